package discovery

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A message of another's, with a name that has a dot within a label, a class that is not the internet's, and a type without a
// field: what can be read is read.
func TestParsePassesOver(t *testing.T) {
	b := []byte{0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 0}
	dotted := append([]byte{3, 'a', '.', 'b', 5}, "local\x00"...)
	edge := append([]byte{4}, "edge\x05local\x00"...)
	record := func(name []byte, kind, class byte, data ...byte) {
		b = append(append(b, name...), 0, kind, 0, class, 0, 0, 0, 120, 0, byte(len(data)))
		b = append(b, data...)
	}
	b = append(append(b, dotted...), 0, 1, 0, 1)
	b = append(append(b, edge...), 0, 1, 0x80, 1)
	record(dotted, 1, 1, 192, 0, 2, 1)
	record(edge, 1, 3, 192, 0, 2, 2)
	record(edge, 13, 1, 1, 'x', 1, 'y')
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	const want = `query
  ask   edge.local. A by unicast
  know  edge.local. HINFO 01780179 for 120 s
`
	if got := m.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNames(t *testing.T) {
	const long = "a123456789b123456789c123456789d123456789e123456789f123456789g123456789"
	tests := []struct {
		hostname string
		taken    int
		want     names
	}{
		{"", 3, names{}},
		{"edge", 0, names{"edge", "edge.local.", "edge._skerry._tcp.local."}},
		{"Edge.example.com", 1, names{"Edge-2", "Edge-2.local.", "Edge-2._skerry._tcp.local."}},
		{long, 9, names{long[:60] + "-10", long[:60] + "-10.local.", long[:60] + "-10._skerry._tcp.local."}},
	}
	for _, test := range tests {
		if got := newNames(test.hostname, test.taken); got != test.want {
			t.Errorf("%q, %d taken: got %q, want %q", test.hostname, test.taken, got, test.want)
		}
	}
}

// The example of RFC 6762, 8.2: 169.254.200.50 wins over 169.254.99.200. And more records win over fewer.
func TestCompareClaims(t *testing.T) {
	a := func(text string) Record {
		return Record{Name: "MyPrinter.local.", Type: typeA, Addr: netip.MustParseAddr(text)}
	}
	srv := Record{Name: "MyPrinter.local.", Type: typeSRV, Target: "a."}
	for _, test := range []struct {
		name         string
		ours, theirs []Record
		want         int
	}{
		{"example", []Record{a("169.254.99.200")}, []Record{a("169.254.200.50")}, -1},
		{"the other way round", []Record{a("169.254.200.50")}, []Record{a("169.254.99.200")}, 1},
		{"the same in another order", []Record{a("192.0.2.1"), a("192.0.2.2")}, []Record{a("192.0.2.2"), a("192.0.2.1")}, 0},
		{"fewer", []Record{a("192.0.2.1")}, []Record{a("192.0.2.1"), srv}, -1},
		{"higher type", []Record{srv}, []Record{a("192.0.2.1")}, 1},
	} {
		if got := compareClaims(test.ours, test.theirs); sign(got) != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

func sign(n int) int { return max(-1, min(1, n)) }

// mute is a network that counts what is sent.
type mute struct{ bytes, packets int }

func (*mute) Links() ([]Link, error) {
	return []Link{{Index: 1, Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}}, nil
}
func (*mute) Join(Link) error          { return nil }
func (*mute) Receive() (Packet, error) { select {} }
func (m *mute) Send(_ int, _ netip.AddrPort, b []byte) error {
	m.bytes += len(b)
	m.packets++
	return nil
}
func (*mute) Close() error { return nil }

// FuzzReceive sends anything to a device that has its names, as often as it likes within a second: it stands that, and
// says no more than it may. What can be read can be written and read again.
func FuzzReceive(f *testing.F) {
	for _, m := range []Message{
		{Questions: []Question{{Service, typePTR, false}, {"edge.local.", typeANY, true}}},
		{ID: 9, Questions: []Question{{"edge." + Service, typeSRV, false}}, Answers: []Record{{Name: Service, Type: typePTR, TTL: 9, Target: "edge." + Service}}},
		{Response: true, Answers: []Record{{Name: "edge.local.", Type: typeA, TTL: 120, Unique: true, Addr: netip.MustParseAddr("192.0.2.8")}},
			Additionals: []Record{absence("edge.local.", 120, typeA), {Name: "edge." + Service, Type: typeTXT, TTL: 1, Text: []string{"id=1", ""}}}},
		{Questions: []Question{{"edge.local.", typeANY, true}}, Authorities: []Record{{Name: "edge.local.", Type: typeAAAA, TTL: 120, Addr: netip.MustParseAddr("fe80::1")}}},
		{Truncated: true, Questions: []Question{{AllServices, dnsmessage.TypePTR, true}}},
	} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true, uint16(Port))
		f.Add(b, false, uint16(40000))
	}
	f.Fuzz(func(t *testing.T, data []byte, multicast bool, port uint16) {
		if m, err := Parse(data); err == nil {
			if b, err := m.Pack(); err == nil {
				again, err := Parse(b)
				if err != nil || again.String() != m.String() {
					t.Fatalf("%s\nis read again as\n%s\n%v", m, again, err)
				}
			}
		}
		n := &mute{}
		s := newSpeaker(n)
		now := time.Unix(1_800_000_000, 0)
		run := func(d time.Duration) {
			for end := now.Add(d); now.Before(end); now = now.Add(10 * time.Millisecond) {
				s.speak(now)
			}
		}
		s.setState(now, State{Hostname: "edge", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}})
		run(5 * time.Second)
		if !s.outlets[0].claimed {
			t.Fatal("the name is not claimed")
		}
		n.packets = 0
		for range 100 {
			s.receive(now, Packet{Link: 1, Peer: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), port), Multicast: multicast, Data: data})
			run(10 * time.Millisecond)
		}
		// Four defences a second, ten answers to one, and what claiming a name anew takes.
		if n.packets > 4+1+mostAlone+probes+announcements {
			t.Errorf("%d packets were said", n.packets)
		}
		if len(s.outlets[0].pending) > 20 || len(s.outlets[0].sent) > 20 {
			t.Errorf("%d answers are pending, %d are remembered", len(s.outlets[0].pending), len(s.outlets[0].sent))
		}
	})
}
