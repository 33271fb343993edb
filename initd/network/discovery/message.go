package discovery

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/net/dns/dnsmessage"
)

// A Message is a packet of multicast DNS: a query, or a response that nobody need have asked for.
type Message struct {
	// ID is 0 but for queries of resolvers that know nothing of multicast, and answers to these (RFC 6762, 6.7).
	ID       uint16
	Response bool
	// Truncated says that more answers that the asker knows follow in another packet (RFC 6762, 7.2).
	Truncated bool
	Questions []Question
	// Answers of a query are those that the asker knows already; its Authorities are what it wants to claim.
	Answers, Authorities, Additionals []Record
}

// A Question asks for the records of a name.
type Question struct {
	Name string // with a dot at the end
	Type dnsmessage.Type
	// Unicast says that the asker would rather be answered alone (RFC 6762, 5.4).
	Unicast bool
}

// MaxPacket is the largest packet of multicast DNS, in bytes (RFC 6762, 17).
const MaxPacket = 9000

// topBit of a class says in a record that the asker is to forget what else it knows of this name and type, and in a question
// that an answer may come by unicast (RFC 6762, 10.2 and 5.4).
const topBit dnsmessage.Class = 1 << 15

// Parse reads a packet. Questions and records whose names cannot be read, or of classes other than the internet's, are passed
// over: a packet is also about services that are none of our business. It fails when the packet is damaged, and when RFC 6762, 18,
// wants it to be ignored.
func Parse(packet []byte) (Message, error) {
	var p dnsmessage.Parser
	h, err := p.Start(packet)
	if err != nil {
		return Message{}, fmt.Errorf("cannot read a packet: %w", err)
	}
	if h.OpCode != 0 || h.RCode != 0 {
		return Message{}, fmt.Errorf("cannot read a packet: operation %d with result %d is none of multicast DNS", h.OpCode, h.RCode)
	}
	m := Message{ID: h.ID, Response: h.Response, Truncated: h.Truncated}
	for {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			if err := p.SkipQuestion(); err != nil {
				return Message{}, fmt.Errorf("cannot read a packet's questions: %w", err)
			}
			continue
		}
		if c := q.Class &^ topBit; c == dnsmessage.ClassINET || c == dnsmessage.ClassANY {
			m.Questions = append(m.Questions, Question{Name: q.Name.String(), Type: q.Type, Unicast: q.Class&topBit != 0})
		}
	}
	for _, s := range []struct {
		name   string
		into   *[]Record
		header func() (dnsmessage.ResourceHeader, error)
		skip   func() error
	}{
		{"answers", &m.Answers, p.AnswerHeader, p.SkipAnswer},
		{"authorities", &m.Authorities, p.AuthorityHeader, p.SkipAuthority},
		{"additional records", &m.Additionals, p.AdditionalHeader, p.SkipAdditional},
	} {
		for {
			h, err := s.header()
			if errors.Is(err, dnsmessage.ErrSectionDone) {
				break
			}
			if err == nil && h.Class&^topBit == dnsmessage.ClassINET {
				var r Record
				if r, err = parseRecord(&p, h); err == nil {
					*s.into = append(*s.into, r)
					continue
				}
			}
			if err := s.skip(); err != nil {
				return Message{}, fmt.Errorf("cannot read a packet's %s: %w", s.name, err)
			}
		}
	}
	return m, nil
}

// Pack makes the packet.
func (m Message) Pack() ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: m.ID, Response: m.Response, Authoritative: m.Response, Truncated: m.Truncated})
	b.EnableCompression()
	err := b.StartQuestions()
	for _, q := range m.Questions {
		n, nameErr := dnsmessage.NewName(q.Name)
		class := dnsmessage.ClassINET
		if q.Unicast {
			class |= topBit
		}
		err = errors.Join(err, nameErr, b.Question(dnsmessage.Question{Name: n, Type: q.Type, Class: class}))
	}
	for _, s := range []struct {
		start   func() error
		records []Record
	}{{b.StartAnswers, m.Answers}, {b.StartAuthorities, m.Authorities}, {b.StartAdditionals, m.Additionals}} {
		err = errors.Join(err, s.start())
		for _, r := range s.records {
			err = errors.Join(err, r.pack(&b))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a packet: %w", err)
	}
	return b.Finish()
}

// all are the records of all sections of a response.
func (m Message) all() []Record { return slices.Concat(m.Answers, m.Authorities, m.Additionals) }

// String shows a packet in a line for each part.
func (m Message) String() string {
	kind := "query"
	if m.Response {
		kind = "response"
	}
	if m.ID != 0 {
		kind += fmt.Sprintf(" %d", m.ID)
	}
	if m.Truncated {
		kind += " to be continued"
	}
	text := kind + "\n"
	for _, q := range m.Questions {
		alone := ""
		if q.Unicast {
			alone = " by unicast"
		}
		text += fmt.Sprintf("  ask   %s %s%s\n", q.Name, typeName(q.Type), alone)
	}
	for _, s := range []struct {
		head    string
		records []Record
	}{{"  know ", m.Answers}, {"  claim", m.Authorities}, {"  add  ", m.Additionals}} {
		if m.Response && s.head == "  know " {
			s.head = "  say  "
		}
		for _, r := range s.records {
			text += s.head + " " + r.String() + "\n"
		}
	}
	return text
}
