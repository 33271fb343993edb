package discovery

import (
	"log/slog"
	"slices"
	"time"
)

// How names are claimed (RFC 6762, 8): three probes, and when nobody objects two announcements.
const (
	probes        = 3
	probeWait     = 250 * time.Millisecond // between probes, and at most before the first
	probeLost     = time.Second            // before the next try, when another wants the name at the same time
	announcements = 2
	announceWait  = time.Second
)

// RFC 6762, 8.1: after so many conflicts within that time, names are tried more slowly, until there is some peace.
const (
	manyConflicts = 15
	conflictTime  = 10 * time.Second
	conflictWait  = 5 * time.Second
	peace         = time.Minute
)

// claim begins to claim the names, with a first probe at that time. Until they are claimed nothing is said.
func (o *outlet) claim(at time.Time) {
	o.claimed, o.probes, o.probeAt = false, 0, at
	o.announcements, o.pending = 0, nil
}

// speak says what is due on all outlets.
func (s *speaker) speak(now time.Time) {
	for _, o := range s.outlets {
		if !o.claimed && len(o.zone) > 0 && !o.probeAt.After(now) {
			if o.probes < probes {
				s.probe(now, o)
			} else {
				o.claimed, o.announcements, o.announceAt = true, announcements, now
			}
		}
		if o.claimed && o.announcements > 0 && !o.announceAt.After(now) {
			s.announce(now, o)
		}
		if due := o.take(now); len(due) > 0 {
			s.sayToAll(now, o, due)
		}
	}
}

// probe asks whether anybody has the names already.
func (s *speaker) probe(now time.Time, o *outlet) {
	n := s.names()
	m := Message{Questions: []Question{{n.host, typeANY, true}, {n.instance, typeANY, true}}}
	for _, r := range o.zone {
		if r.Unique {
			r.Unique = false // belongs to responses only (RFC 6762, 10.2)
			m.Authorities = append(m.Authorities, r)
		}
	}
	s.send(o, o.group, m)
	o.probes++
	o.probeAt = now.Add(probeWait)
}

// announce says everything to all, and takes back what does not hold any more.
func (s *speaker) announce(now time.Time, o *outlet) {
	var answers []Record
	for _, r := range o.zone {
		if o.rested(now, r, recordRest) {
			answers = append(answers, r)
		}
	}
	o.note(now, answers)
	for _, r := range o.said {
		holds := slices.ContainsFunc(o.zone, func(z Record) bool {
			// A new record of a name and type that are ours makes others forget the old one.
			return z.key() == r.key() || r.Unique && z.Type == r.Type && sameName(z.Name, r.Name)
		})
		if !holds {
			r.TTL = 0
			answers = append(answers, r)
		}
	}
	if len(answers) > 0 {
		s.send(o, o.group, Message{Response: true, Answers: answers})
	}
	o.said = o.zone
	if o.announcements == announcements {
		o.changed = now
	}
	o.announcements--
	o.announceAt = now.Add(announceWait)
}

// goodbye takes back all that was said.
func (s *speaker) goodbye() {
	for _, o := range s.outlets {
		s.bye(o)
	}
}

func (s *speaker) bye(o *outlet) {
	if !o.claimed || len(o.said) == 0 {
		return
	}
	var answers []Record
	for _, r := range slices.Concat(o.said, o.zone) {
		// That there are devices is for others to take back, too.
		if r.TTL = 0; r.Name != AllServices && !slices.ContainsFunc(answers, func(a Record) bool { return a.key() == r.key() }) {
			answers = append(answers, r)
		}
	}
	s.send(o, o.group, Message{Response: true, Answers: answers})
	o.said = nil
}

// hear looks in what others say for records that contradict ours, and for answers that we need not give any more.
func (s *speaker) hear(now time.Time, o *outlet, p Packet, m Message) {
	// RFC 6762, 6 and 11.
	if p.Peer.Port() != Port || s.own[p.Peer.Addr()] || !p.Multicast && !o.link.Near(p.Peer.Addr()) {
		return
	}
	ours := s.ours()
	contradicted := false
	for _, r := range m.all() {
		if r.TTL == 0 {
			continue
		}
		contradicted = contradicted || !ours[r.key()] && s.claims(o, r)
		if p.Multicast {
			key := r.key()
			o.pending = slices.DeleteFunc(o.pending, func(a pendingAnswer) bool { return a.record.key() == key && r.TTL >= a.record.TTL })
		}
	}
	if contradicted {
		s.conflict(now, o)
	}
}

// ours are the records that are no contradiction: what we say on another link may come back from there, and what we said until
// now may be late.
func (s *speaker) ours() map[recordKey]bool {
	keys := map[recordKey]bool{}
	for _, o := range s.outlets {
		for _, r := range slices.Concat(o.zone, o.said) {
			keys[r.key()] = true
		}
	}
	return keys
}

// claims says whether a record that is not ours speaks for one of our names.
func (s *speaker) claims(o *outlet, r Record) bool {
	switch r.Type {
	case typeNSEC:
		return false
	case typeA, typeAAAA, typeSRV, typeTXT:
		return s.names().own(r.Name)
	default:
		// Of a name that is ours others may know more than we do; one that is not yet is theirs.
		return !o.claimed && s.names().own(r.Name)
	}
}

// conflict does what is to be done when another has our name: it is claimed anew, and if the other then keeps it, another name
// is taken (RFC 6762, 9).
func (s *speaker) conflict(now time.Time, o *outlet) {
	s.conflicts = append(slices.DeleteFunc(s.conflicts, func(t time.Time) bool { return now.Sub(t) > conflictTime }), now)
	wait := s.random(probeWait)
	if len(s.conflicts) >= manyConflicts || now.Before(s.slowUntil) {
		wait, s.slowUntil = conflictWait, now.Add(peace)
	}
	if o.claimed {
		o.claim(now.Add(wait))
		return
	}
	had := s.names()
	s.taken++
	slog.Warn("another machine in the network has this name; taking another one there",
		"name", had.label, "instead", s.names().label, "link", o.link.Name)
	for _, o := range s.outlets {
		// What was said of the old name is now the other's to take back.
		o.said = nil
		o.claim(now.Add(wait))
		o.change(now, s.records(o))
	}
}

// contend is called while we claim, with what another claims at the same time: the names go to the one whose records come later
// (RFC 6762, 8.2).
func (s *speaker) contend(now time.Time, o *outlet, theirs []Record) {
	n := s.names()
	for _, name := range []string{n.host, n.instance} {
		of := func(list []Record) []Record {
			return slices.DeleteFunc(slices.Clone(list), func(r Record) bool { return !sameName(r.Name, name) })
		}
		if t := of(theirs); len(t) > 0 && compareClaims(of(o.zone), t) < 0 {
			o.claim(now.Add(probeLost))
			return
		}
	}
}
