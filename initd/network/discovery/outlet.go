package discovery

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// An outlet is a link and a family: RFC 6762 (20) sees them as networks of their own.
type outlet struct {
	link  Link
	group netip.AddrPort
	// zone is what is to be said.
	zone []Record

	// claimed says that the names are ours. Until then they are probed for, for the next time at probeAt.
	claimed bool
	probes  int
	probeAt time.Time
	// announcements are left to be made, the next at announceAt. changed is when the last that told of something new was made.
	announcements int
	announceAt    time.Time
	changed       time.Time
	// said is what others may remember.
	said []Record

	// sent is when each record was last said to all.
	sent    map[recordKey]time.Time
	pending []pendingAnswer
	// alone counts the answers to single machines since then.
	alone      int
	aloneSince time.Time
}

// A pendingAnswer is a record that is to be said to all.
type pendingAnswer struct {
	record Record
	at     time.Time
	// asker is the only one who wants to know; not valid if there are more.
	asker netip.AddrPort
}

// RFC 6762 wants a record to be said at most once a second (6), but for those whose name another claims; and no more than
// ten changes a minute (8.4).
const (
	recordRest = time.Second
	defendRest = 250 * time.Millisecond
	changeRest = 6 * time.Second
)

// mostAlone is how many answers a second go to single machines, whose addresses can be forged. Nobody asks that often.
const mostAlone = 10

func newOutlet(group netip.AddrPort) *outlet {
	return &outlet{group: group, sent: map[recordKey]time.Time{}}
}

// rested says whether a record was not said to all for that long.
func (o *outlet) rested(now time.Time, r Record, d time.Duration) bool {
	last, ok := o.sent[r.key()]
	return !ok || now.Sub(last) >= d
}

// change takes what is to be said from now on.
func (o *outlet) change(now time.Time, zone []Record) {
	same := slices.EqualFunc(o.zone, zone, func(a, b Record) bool { return a.key() == b.key() })
	o.zone = zone
	if same {
		return
	}
	if o.claimed {
		o.announcements, o.announceAt = announcements, later(now, o.changed.Add(changeRest))
	}
	old := o.pending
	o.pending = nil
	for _, p := range old {
		for _, r := range zone {
			if r.Type == p.record.Type && sameName(r.Name, p.record.Name) {
				o.want(pendingAnswer{r, p.at, p.asker})
			}
		}
	}
}

// want adds an answer that is to be given, or joins it with one that is.
func (o *outlet) want(p pendingAnswer) {
	for i := range o.pending {
		if q := &o.pending[i]; q.record.key() == p.record.key() {
			if p.at.Before(q.at) {
				q.at = p.at
			}
			if q.asker != p.asker {
				q.asker = netip.AddrPort{}
			}
			return
		}
	}
	o.pending = append(o.pending, p)
}

// take takes the answers that are due out of those that are pending.
func (o *outlet) take(now time.Time) []Record {
	var due []Record
	o.pending = slices.DeleteFunc(o.pending, func(p pendingAnswer) bool {
		if p.at.After(now) {
			return false
		}
		due = append(due, p.record)
		return true
	})
	return due
}

// note notes that records were said to all.
func (o *outlet) note(now time.Time, records []Record) {
	maps.DeleteFunc(o.sent, func(_ recordKey, at time.Time) bool { return now.Sub(at) > otherTTL*time.Second })
	for _, r := range records {
		o.sent[r.key()] = now
	}
}

// maySpeakAlone counts an answer to a single machine, and says whether it may be given.
func (o *outlet) maySpeakAlone(now time.Time) bool {
	if now.Sub(o.aloneSince) >= time.Second {
		o.alone, o.aloneSince = 0, now
	}
	o.alone++
	return o.alone <= mostAlone
}

// next is when something is to be said; ok is false if there is nothing.
func (o *outlet) next() (at time.Time, ok bool) {
	sooner := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if !o.claimed && len(o.zone) > 0 {
		sooner(o.probeAt)
	}
	if o.claimed && o.announcements > 0 {
		sooner(o.announceAt)
	}
	for _, p := range o.pending {
		sooner(p.at)
	}
	return at, ok
}

// next is when speak is to be called.
func (s *speaker) next() (at time.Time, ok bool) {
	for _, o := range s.outlets {
		if t, some := o.next(); some && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	return at, ok
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
