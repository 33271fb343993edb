package discovery

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// The types that this package has something to say about.
const (
	typePTR  = dnsmessage.TypePTR
	typeSRV  = dnsmessage.TypeSRV
	typeTXT  = dnsmessage.TypeTXT
	typeA    = dnsmessage.TypeA
	typeAAAA = dnsmessage.TypeAAAA
	typeNSEC = dnsmessage.Type(47) // RFC 4034
	typeANY  = dnsmessage.TypeALL
)

// A Record says something about a name. Of the fields after Unique those of its type are set, and Data for types that have no
// field.
type Record struct {
	Name string // with a dot at the end
	Type dnsmessage.Type
	// TTL is how long it may be remembered, in seconds. 0: it does not hold any more.
	TTL uint32
	// Unique says that only one machine speaks for this name and type: what others have said is to be forgotten.
	Unique bool

	Target string // PTR, SRV
	Port   uint16 // SRV
	Text   []string
	Addr   netip.Addr // A, AAAA
	Data   []byte
}

func parseRecord(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) (Record, error) {
	r := Record{Name: h.Name.String(), Type: h.Type, TTL: h.TTL, Unique: h.Class&topBit != 0}
	switch h.Type {
	case typePTR:
		x, err := p.PTRResource()
		r.Target = x.PTR.String()
		return r, err
	case typeSRV:
		x, err := p.SRVResource()
		r.Target, r.Port = x.Target.String(), x.Port
		return r, err
	case typeTXT:
		x, err := p.TXTResource()
		r.Text = x.TXT
		return r, err
	case typeA:
		x, err := p.AResource()
		r.Addr = netip.AddrFrom4(x.A)
		return r, err
	case typeAAAA:
		x, err := p.AAAAResource()
		r.Addr = netip.AddrFrom16(x.AAAA)
		return r, err
	default:
		x, err := p.UnknownResource()
		r.Data = x.Data
		return r, err
	}
}

func (r Record) pack(b *dnsmessage.Builder) error {
	name, err := dnsmessage.NewName(r.Name)
	if err != nil {
		return fmt.Errorf("%q is not a name: %w", r.Name, err)
	}
	h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: r.TTL}
	if r.Unique {
		h.Class |= topBit
	}
	switch r.Type {
	case typePTR, typeSRV:
		target, err := dnsmessage.NewName(r.Target)
		if err != nil {
			return fmt.Errorf("%q is not a name: %w", r.Target, err)
		}
		if r.Type == typePTR {
			return b.PTRResource(h, dnsmessage.PTRResource{PTR: target})
		}
		return b.SRVResource(h, dnsmessage.SRVResource{Target: target, Port: r.Port})
	case typeTXT:
		return b.TXTResource(h, dnsmessage.TXTResource{TXT: r.Text})
	case typeA:
		return b.AResource(h, dnsmessage.AResource{A: r.Addr.As4()})
	case typeAAAA:
		return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: r.Addr.As16()})
	default:
		return b.UnknownResource(h, dnsmessage.UnknownResource{Type: r.Type, Data: r.Data})
	}
}

// rdata is the record's data as it stands in a packet, without compression: what RFC 6762, 8.2, compares.
func (r Record) rdata() []byte {
	switch r.Type {
	case typePTR:
		return wireName(nil, r.Target)
	case typeSRV:
		return wireName(binary.BigEndian.AppendUint16(make([]byte, 4), r.Port), r.Target)
	case typeTXT:
		var b []byte
		for _, s := range r.Text {
			b = append(append(b, byte(len(s))), s...)
		}
		return b
	case typeA, typeAAAA:
		return r.Addr.AsSlice()
	default:
		return r.Data
	}
}

// wireName appends a name as it stands in a packet.
func wireName(b []byte, name string) []byte {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label != "" {
			b = append(append(b, byte(len(label))), label...)
		}
	}
	return append(b, 0)
}

// A recordKey tells records apart: two with the same key say the same.
type recordKey struct {
	name string
	kind dnsmessage.Type
	data string
}

func (r Record) key() recordKey {
	r.Target = lower(r.Target)
	return recordKey{lower(r.Name), r.Type, string(r.rdata())}
}

// Says tells whether both records say the same, for however long.
func (r Record) Says(other Record) bool { return r.key() == other.key() }

// Speaks tells whether both records are about the same name and type.
func (r Record) Speaks(other Record) bool {
	return r.Type == other.Type && sameName(r.Name, other.Name)
}

// lower makes the letters small that names are compared without regard to (RFC 6762, 16): those of ASCII.
func lower(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, name)
}

func sameName(a, b string) bool { return lower(a) == lower(b) }

// answers says whether the record answers the question.
func (r Record) answers(q Question) bool {
	return sameName(r.Name, q.Name) && (q.Type == r.Type || q.Type == typeANY)
}

// compareClaims is negative if ours come before theirs in the order of RFC 6762, 8.2, by which two machines that want the same
// name at the same time find out who gets it: the one whose records come later.
func compareClaims(ours, theirs []Record) int {
	sorted := func(list []Record) []Record {
		list = slices.Clone(list)
		slices.SortFunc(list, compareRecords)
		return list
	}
	return slices.CompareFunc(sorted(ours), sorted(theirs), compareRecords)
}

// compareRecords compares type and data; the class is the same for all.
func compareRecords(a, b Record) int {
	if a.Type != b.Type {
		return int(a.Type) - int(b.Type)
	}
	return bytes.Compare(a.rdata(), b.rdata())
}

// absence is the record that a name has records of these types, and no others (RFC 6762, 6.1).
func absence(name string, ttl uint32, types ...dnsmessage.Type) Record {
	// The bitmap's first block covers the types up to 255, the first type in the highest bit of its first byte.
	bitmap := make([]byte, 32)
	last := 0
	for _, t := range types {
		bitmap[t/8] |= 0x80 >> (t % 8)
		last = max(last, int(t/8))
	}
	data := append(wireName(nil, name), 0, byte(last+1))
	return Record{Name: name, Type: typeNSEC, TTL: ttl, Unique: true, Data: append(data, bitmap[:last+1]...)}
}

func typeName(t dnsmessage.Type) string {
	switch t {
	case typeNSEC:
		return "NSEC"
	case typeANY:
		return "ANY"
	default:
		return strings.TrimPrefix(t.String(), "Type")
	}
}

func (r Record) String() string {
	text := fmt.Sprintf("%s %s ", r.Name, typeName(r.Type))
	switch r.Type {
	case typePTR:
		text += r.Target
	case typeSRV:
		text += fmt.Sprintf("%s:%d", r.Target, r.Port)
	case typeTXT:
		text += fmt.Sprintf("%q", r.Text)
	case typeA, typeAAAA:
		text += r.Addr.String()
	default:
		text += fmt.Sprintf("%x", r.Data)
	}
	text += fmt.Sprintf(" for %d s", r.TTL)
	if r.Unique {
		text += ", unique"
	}
	return text
}
