package discovery_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/skerryos/skerry/initd/network/discovery"
	"github.com/skerryos/skerry/initd/network/discovery/discoverytest"
)

const instance = "edge." + discovery.Service

var (
	asker = netip.MustParseAddrPort("192.0.2.9:5353")
	here  = netip.MustParseAddrPort("192.0.2.7:5353")
)

func question(name string, kind dnsmessage.Type) discovery.Message {
	return discovery.Message{Questions: []discovery.Question{{Name: name, Type: kind}}}
}

// alone asks for an answer by unicast.
func alone(m discovery.Message) discovery.Message {
	m.Questions[0].Unicast = true
	return m
}

// known adds the service's record to what the asker knows.
func known(m discovery.Message, ttl uint32) discovery.Message {
	m.Answers = []discovery.Record{{Name: discovery.Service, Type: dnsmessage.TypePTR, TTL: ttl, Target: instance}}
	return m
}

// TestAnswers holds the answers of a device that nobody has asked for a minute against the text. Their times are counted
// from the question.
func TestAnswers(t *testing.T) {
	const (
		srv = "edge._skerry._tcp.local. SRV edge.local.:7443 for 120 s, unique\n"
		txt = "edge._skerry._tcp.local. TXT [\"id=0123\" \"version=1.0.0\" \"board=x86-64\" \"slot=a\" \"phase=ready\"] for 4500 s, unique\n"
		a   = "edge.local. A 192.0.2.7 for 120 s, unique\n"
		no6 = "edge.local. NSEC 0465646765056c6f63616c00000140 for 120 s, unique\n"
		yes = "  say   "
		add = "  add   "
	)
	toAll := "0.00 s edge 192.0.2.7 to all: response\n"
	all := func(at string, lines ...string) string {
		return strings.Replace(toAll, "0.00", at, 1) + strings.Join(lines, "")
	}
	ptr := yes + "_skerry._tcp.local. PTR edge._skerry._tcp.local. for 4500 s\n" + add + srv + add + txt + add + a + add + no6
	tests := []struct {
		name     string
		from, to netip.AddrPort
		messages []discovery.Message
		want     string
	}{
		{"service", asker, discovery.Group4, []discovery.Message{question(discovery.Service, dnsmessage.TypePTR)}, all("0.02", ptr)},
		{"service, in capitals", asker, discovery.Group4, []discovery.Message{question("_SKERRY._TCP.Local.", dnsmessage.TypePTR)}, all("0.02", ptr)},
		{"all kinds of services", asker, discovery.Group4, []discovery.Message{question(discovery.AllServices, dnsmessage.TypePTR)},
			all("0.02", yes, "_services._dns-sd._udp.local. PTR _skerry._tcp.local. for 4500 s\n")},
		{"where it is", asker, discovery.Group4, []discovery.Message{question(instance, dnsmessage.TypeSRV)}, all("0.00", yes, srv, add, a, add, no6)},
		{"what it is", asker, discovery.Group4, []discovery.Message{question(instance, dnsmessage.TypeTXT)}, all("0.00", yes, txt)},
		{"anything", asker, discovery.Group4, []discovery.Message{question(instance, dnsmessage.TypeALL)}, all("0.00", yes, srv, yes, txt, add, a, add, no6)},
		{"address", asker, discovery.Group4, []discovery.Message{question("Edge.local.", dnsmessage.TypeA)}, all("0.00", yes, a, add, no6)},
		{"address that it has not", asker, discovery.Group4, []discovery.Message{question("edge.local.", dnsmessage.TypeAAAA)}, all("0.00", yes, no6)},
		{"instance has no address", asker, discovery.Group4, []discovery.Message{question(instance, dnsmessage.TypeA)},
			all("0.00", yes, "edge._skerry._tcp.local. NSEC 0465646765075f736b65727279045f746370056c6f63616c0000050000800040 for 120 s, unique\n")},
		{"two questions", asker, discovery.Group4, []discovery.Message{{Questions: append(question(instance, dnsmessage.TypeTXT).Questions,
			question("edge.local.", dnsmessage.TypeA).Questions[0])}}, all("0.00", yes, txt, yes, a, add, no6)},
		{"others' name", asker, discovery.Group4, []discovery.Message{question("ledge.local.", dnsmessage.TypeA)}, ""},
		{"others' service", asker, discovery.Group4, []discovery.Message{question("_http._tcp.local.", dnsmessage.TypePTR)}, ""},
		{"others' kind of record", asker, discovery.Group4, []discovery.Message{question(discovery.Service, dnsmessage.TypeSRV)}, ""},

		{"known", asker, discovery.Group4, []discovery.Message{known(question(discovery.Service, dnsmessage.TypePTR), 2250)}, ""},
		{"nearly forgotten", asker, discovery.Group4, []discovery.Message{known(question(discovery.Service, dnsmessage.TypePTR), 2249)}, all("0.02", ptr)},
		{"more is known than fits into a packet", asker, discovery.Group4, []discovery.Message{
			{Truncated: true, Questions: question(discovery.Service, dnsmessage.TypePTR).Questions}, known(discovery.Message{}, 4500)}, ""},
		{"more does not come", asker, discovery.Group4, []discovery.Message{
			{Truncated: true, Questions: question(discovery.Service, dnsmessage.TypePTR).Questions}}, all("0.40", ptr)},
		{"another knows it", asker, discovery.Group4, []discovery.Message{question(discovery.AllServices, dnsmessage.TypePTR),
			{Response: true, Answers: []discovery.Record{{Name: discovery.AllServices, Type: dnsmessage.TypePTR, TTL: 4500, Target: discovery.Service}}}}, ""},

		{"by unicast", asker, discovery.Group4, []discovery.Message{alone(question(discovery.Service, dnsmessage.TypePTR))},
			"0.00 s edge 192.0.2.7 to 192.0.2.9:5353: response\n" + ptr},
		{"by unicast, but all should hear it again", asker, discovery.Group4, []discovery.Message{alone(question(instance, dnsmessage.TypeSRV))},
			all("0.00", yes, srv, add, a, add, no6)},
		{"to the device alone", asker, here, []discovery.Message{question(instance, dnsmessage.TypeSRV)},
			"0.00 s edge 192.0.2.7 to 192.0.2.9:5353: response\n" + yes + srv + add + a + add + no6},
		{"a resolver without multicast", netip.MustParseAddrPort("192.0.2.9:40000"), discovery.Group4,
			[]discovery.Message{{ID: 7, Questions: question(instance, dnsmessage.TypeSRV).Questions}},
			"0.00 s edge 192.0.2.7 to 192.0.2.9:40000: response 7\n  ask   edge._skerry._tcp.local. SRV\n" +
				strings.NewReplacer("120", "10", "4500", "10", ", unique", "").Replace(yes+srv+add+a+add+no6)},
		{"a resolver from elsewhere", netip.MustParseAddrPort("198.51.100.9:40000"), discovery.Group4, []discovery.Message{question(instance, dnsmessage.TypeSRV)}, ""},
		{"to the device alone, from elsewhere", netip.MustParseAddrPort("198.51.100.9:5353"), here, []discovery.Message{question(instance, dnsmessage.TypeSRV)}, ""},
		{"by unicast, from elsewhere", netip.MustParseAddrPort("198.51.100.9:5353"), discovery.Group4,
			[]discovery.Message{alone(question(discovery.AllServices, dnsmessage.TypePTR))},
			all("0.02", yes, "_services._dns-sd._udp.local. PTR _skerry._tcp.local. for 4500 s\n")},

		{"another claims the name", asker, discovery.Group4, []discovery.Message{{Questions: alone(question("edge.local.", dnsmessage.TypeALL)).Questions,
			Authorities: []discovery.Record{{Name: "edge.local.", Type: dnsmessage.TypeA, TTL: 120, Addr: asker.Addr()}}}}, all("0.00", yes, a, add, no6)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := quietDevice(t)
				bus.Restart()
				for _, m := range test.messages {
					say(bus, test.from, test.to, m)
				}
				bus.Log()
				compare(t, "answer", passes(bus, time.Second), test.want)
			})
		})
	}
}

// quietDevice is on a network of its own, and was not asked anything for a minute.
func quietDevice(t *testing.T) *discoverytest.Bus {
	bus := discoverytest.NewBus()
	d := start(t, "edge")
	d.Plug(bus, 2, "192.0.2.7/24")
	d.states <- state("192.0.2.7")
	passes(bus, time.Minute)
	return bus
}

// TestRate: whoever asks as often as he can brings the device to say no more than it may.
func TestRate(t *testing.T) {
	tests := []struct {
		name string
		from netip.AddrPort
		m    discovery.Message
		most int // packets in ten seconds
	}{
		{"for all", asker, question(discovery.Service, dnsmessage.TypePTR), 11},
		{"of different kinds", asker, question(instance, dnsmessage.TypeALL), 11},
		{"for one", asker, alone(question(discovery.Service, dnsmessage.TypePTR)), 110},
		{"without multicast", netip.MustParseAddrPort("192.0.2.9:40000"), question(discovery.Service, dnsmessage.TypePTR), 110},
		{"as claims", asker, discovery.Message{Questions: question("edge.local.", dnsmessage.TypeALL).Questions,
			Authorities: []discovery.Record{{Name: "edge.local.", Type: dnsmessage.TypeA, TTL: 120, Addr: asker.Addr()}}}, 41},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := quietDevice(t)
				said := 0
				for range 10 * 200 {
					say(bus, test.from, discovery.Group4, test.m)
					said += strings.Count(passes(bus, 5*time.Millisecond), ": response")
				}
				if said > test.most || said < 10 {
					t.Errorf("2000 questions in 10 s have brought %d packets, at most %d may be said", said, test.most)
				}
			})
		})
	}
}

// TestOthersMistakes: packets that are none do no harm.
func TestOthersMistakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := quietDevice(t)
		good, err := question(instance, dnsmessage.TypeSRV).Pack()
		if err != nil {
			t.Fatal(err)
		}
		status := append([]byte(nil), good...)
		status[2] |= 2 << 3 // another operation than a query
		for i, data := range [][]byte{nil, {0}, good[:len(good)-1], status, []byte(strings.Repeat("\xc0\x0c", 100)),
			append([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, good[12:]...)} {
			if err := bus.Inject("asker", asker, discovery.Group4, data); err != nil {
				t.Fatal(err)
			}
			bus.Log()
			compare(t, fmt.Sprintf("packet %d", i), passes(bus, time.Second), "")
		}
		say(bus, asker, discovery.Group4, question(instance, dnsmessage.TypeSRV))
		if got := passes(bus, time.Second); !strings.Contains(got, "say   "+instance+" SRV") {
			t.Errorf("afterwards the answer is\n%s", got)
		}
	})
}
