package discovery

import (
	"slices"
	"time"
)

// RFC 6762, 6 and 7.2: where several machines may answer each waits a little, and longer when the asker has more to say.
const (
	sharedDelay    = 20 * time.Millisecond
	sharedSpread   = 100 * time.Millisecond
	continueDelay  = 400 * time.Millisecond
	continueSpread = 100 * time.Millisecond
)

// aloneTTL is how long one may remember an answer, in seconds, who hears of no changes (RFC 6762, 6.7).
const aloneTTL = 10

// receive takes a packet.
func (s *speaker) receive(now time.Time, p Packet) {
	group := Group4
	if p.Peer.Addr().Is6() {
		group = Group6
	}
	o := s.outlet(p.Link, group)
	if o == nil || len(o.zone) == 0 {
		return
	}
	m, err := Parse(p.Data)
	switch {
	case err != nil: // others' mistakes are no news
	case m.Response:
		s.hear(now, o, p, m)
	case len(m.Authorities) > 0 && s.own[p.Peer.Addr()]: // our own claim, on this link or another in the same network
	case !o.claimed:
		s.contend(now, o, m.Authorities)
	default:
		s.answer(now, o, p, m)
	}
}

// answer sees to it that a query is answered.
func (s *speaker) answer(now time.Time, o *outlet, p Packet, m Message) {
	near := o.link.Near(p.Peer.Addr())
	if !p.Multicast && !near {
		return
	}
	// What the asker knows already, unless it is about to forget it (RFC 6762, 7.1).
	knows := map[recordKey]uint32{}
	for _, r := range m.Answers {
		knows[r.key()] = r.TTL
	}
	known := func(r Record) bool {
		ttl, ok := knows[r.key()]
		return ok && uint64(ttl)*2 >= uint64(r.TTL)
	}
	// The rest of what the asker knows already.
	o.pending = slices.DeleteFunc(o.pending, func(a pendingAnswer) bool { return a.asker == p.Peer && known(a.record) })

	n := s.names()
	claim := slices.ContainsFunc(m.Authorities, func(r Record) bool { return n.own(r.Name) })
	// One that has another port cannot hear what is said to all.
	deaf := p.Peer.Port() != Port
	var toAll, toOne []Record
	for _, q := range m.Questions {
		for _, r := range n.answer(o.zone, q) {
			is := func(a Record) bool { return a.key() == r.key() }
			if known(r) || slices.ContainsFunc(toAll, is) || slices.ContainsFunc(toOne, is) {
				continue
			}
			// Now and then all are to hear it, so that it does not get old (RFC 6762, 5.4).
			fresh := !o.rested(now, r, time.Duration(r.TTL)*time.Second/4)
			if deaf || !p.Multicast || q.Unicast && fresh && !claim {
				toOne = append(toOne, r)
			} else {
				toAll = append(toAll, r)
			}
		}
	}
	if len(toOne) > 0 && near && o.maySpeakAlone(now) {
		s.sayToOne(o, p, m, toOne)
	} else if !deaf && p.Multicast {
		toAll = append(toAll, toOne...)
	}
	s.wantAll(now, o, p, toAll, claim, m.Truncated)
}

// wantAll plans answers for all.
func (s *speaker) wantAll(now time.Time, o *outlet, p Packet, answers []Record, claim, truncated bool) {
	at, rest := now, recordRest
	shared := slices.ContainsFunc(answers, func(r Record) bool { return !r.Unique })
	switch {
	case truncated:
		at = now.Add(continueDelay + s.random(continueSpread))
	case claim:
		rest = defendRest
	case shared:
		at = now.Add(sharedDelay + s.random(sharedSpread))
	}
	for _, r := range answers {
		due := at
		if last, ok := o.sent[r.key()]; ok {
			due = later(due, last.Add(rest))
		}
		o.want(pendingAnswer{r, due, p.Peer})
	}
}

// sayToAll says answers to all, with what they will be asked for next.
func (s *speaker) sayToAll(now time.Time, o *outlet, answers []Record) {
	m := Message{Response: true, Answers: answers}
	for _, r := range s.names().additional(o.zone, answers) {
		said := slices.ContainsFunc(answers, func(a Record) bool { return a.key() == r.key() })
		if !said && o.rested(now, r, recordRest) {
			m.Additionals = append(m.Additionals, r)
		}
	}
	s.send(o, o.group, m)
	o.note(now, m.all())
}

// sayToOne answers a single machine.
func (s *speaker) sayToOne(o *outlet, p Packet, asked Message, answers []Record) {
	m := Message{Response: true, Answers: slices.Clone(answers)}
	for _, r := range s.names().additional(o.zone, answers) {
		if !slices.ContainsFunc(answers, func(a Record) bool { return a.key() == r.key() }) {
			m.Additionals = append(m.Additionals, r)
		}
	}
	if p.Peer.Port() != Port {
		// A resolver that knows nothing of multicast wants its question back, and no bits that it does not know.
		m.ID = asked.ID
		m.Questions = slices.DeleteFunc(slices.Clone(asked.Questions), func(q Question) bool {
			return !slices.ContainsFunc(answers, func(r Record) bool { return sameName(r.Name, q.Name) })
		})
		for _, list := range [][]Record{m.Answers, m.Additionals} {
			for i := range list {
				list[i].TTL, list[i].Unique = min(list[i].TTL, aloneTTL), false
			}
		}
		for i := range m.Questions {
			m.Questions[i].Unicast = false
		}
	}
	s.send(o, p.Peer, m)
}
