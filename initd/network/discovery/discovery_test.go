package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/network/discovery"
	"github.com/skerryos/skerry/initd/network/discovery/discoverytest"
)

// A device is a responder on a machine.
type device struct {
	*discoverytest.Machine
	states chan discovery.State
	end    func()
}

// start lets a device called edge run; nothing is left to chance.
func start(t *testing.T, name string) device {
	t.Helper()
	d := device{Machine: discoverytest.NewMachine(name, discovery.Port), states: make(chan discovery.State)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := discovery.Responder{Open: func() (discovery.Network, error) { return d.Machine, nil }, States: d.states}
	r.WithoutChance()
	go func() { done <- r.Run(ctx) }()
	ended := false
	d.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("device %s: %v", name, err)
		}
	}
	t.Cleanup(d.end)
	return d
}

func state(addresses ...string) discovery.State {
	s := discovery.StateOf(v1.State{Hostname: "edge", MachineID: "0123", Version: "1.0.0", Board: "x86-64", Slot: "a", Phase: v1.Ready,
		Addresses: addresses})
	s.ID = "0123" // which no hash is, so that it is plain what is said
	return s
}

// passes lets time pass, and returns what was said in it.
func passes(b *discoverytest.Bus, d time.Duration) string {
	time.Sleep(d) // in a bubble: takes no time
	synctest.Wait()
	return b.Log()
}

func compare(t *testing.T, what, got, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimPrefix(want, "\n"), "\t", "")
	if got != want {
		t.Errorf("%s: got\n%s\nwant\n%s", what, got, want)
	}
}

// TestLife holds all that a device says against the text: from its first address to the end.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := discoverytest.NewBus()
		d := start(t, "edge")
		d.Plug(bus, 2, "192.0.2.7/24", "fe80::7/64")
		d.states <- state()
		compare(t, "without an address", passes(bus, time.Minute), "")
		d.states <- state("192.0.2.7")
		compare(t, "an address", passes(bus, 700*time.Millisecond), `
60.00 s edge 192.0.2.7 to all: query
  ask   edge.local. ANY by unicast
  ask   edge._skerry._tcp.local. ANY by unicast
  claim edge._skerry._tcp.local. SRV edge.local.:7443 for 120 s
  claim edge._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=ready"] for 4500 s
  claim edge.local. A 192.0.2.7 for 120 s
60.00 s edge fe80::7 to all: query
  ask   edge.local. ANY by unicast
  ask   edge._skerry._tcp.local. ANY by unicast
  claim edge._skerry._tcp.local. SRV edge.local.:7443 for 120 s
  claim edge._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=ready"] for 4500 s
  claim edge.local. A 192.0.2.7 for 120 s
`+strings.ReplaceAll(twice(`
60.25 s edge 192.0.2.7 to all: query
  ask   edge.local. ANY by unicast
  ask   edge._skerry._tcp.local. ANY by unicast
  claim edge._skerry._tcp.local. SRV edge.local.:7443 for 120 s
  claim edge._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=ready"] for 4500 s
  claim edge.local. A 192.0.2.7 for 120 s
`)+twice(`
60.50 s edge 192.0.2.7 to all: query
  ask   edge.local. ANY by unicast
  ask   edge._skerry._tcp.local. ANY by unicast
  claim edge._skerry._tcp.local. SRV edge.local.:7443 for 120 s
  claim edge._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=ready"] for 4500 s
  claim edge.local. A 192.0.2.7 for 120 s
`), "\t", ""))
		const all = `
  say   _services._dns-sd._udp.local. PTR _skerry._tcp.local. for 4500 s
  say   _skerry._tcp.local. PTR edge._skerry._tcp.local. for 4500 s
  say   edge._skerry._tcp.local. SRV edge.local.:7443 for 120 s, unique
  say   edge._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=ready"] for 4500 s, unique
  say   edge.local. A 192.0.2.7 for 120 s, unique
`
		compare(t, "announcements", passes(bus, time.Minute),
			twice("\n60.75 s edge 192.0.2.7 to all: response"+all)+twice("\n61.75 s edge 192.0.2.7 to all: response"+all))

		d.Unplug(2)
		d.Plug(bus, 2, "192.0.2.7/24", "2001:db8::7/64")
		s := state("192.0.2.7", "2001:db8::7")
		d.states <- s
		const more = "  say   edge.local. AAAA 2001:db8::7 for 120 s, unique\n"
		compare(t, "another address", passes(bus, 10*time.Second),
			twiceFrom("2001:db8::7", "\n120.70 s edge 192.0.2.7 to all: response"+all+more)+
				twiceFrom("2001:db8::7", "\n121.70 s edge 192.0.2.7 to all: response"+all+more))

		// A phase that changes often is told of, but not each time.
		for _, p := range []v1.Phase{v1.Degraded, v1.Ready, v1.Degraded, v1.Stopping} {
			s.Phase = p
			d.states <- s
			synctest.Wait()
		}
		if got := passes(bus, time.Minute); strings.Count(got, "phase=degraded") != 2 || strings.Count(got, "phase=stopping") != 4 || strings.Count(got, "phase=ready") != 0 {
			t.Errorf("a phase that changes four times is told of with:\n%s", got)
		}

		// Another name: the old one is taken back at once, on both families.
		s.Hostname = "harbour.example.com"
		d.states <- s
		synctest.Wait()
		got := bus.Log()
		compare(t, "the old name", got[:strings.Index(got, "query")], `
190.70 s edge 192.0.2.7 to all: response
  say   _skerry._tcp.local. PTR edge._skerry._tcp.local. for 0 s
  say   edge._skerry._tcp.local. SRV edge.local.:7443 for 0 s, unique
  say   edge._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=stopping"] for 0 s, unique
  say   edge.local. A 192.0.2.7 for 0 s, unique
  say   edge.local. AAAA 2001:db8::7 for 0 s, unique
190.70 s edge 2001:db8::7 to all: response
  say   _skerry._tcp.local. PTR edge._skerry._tcp.local. for 0 s
  say   edge._skerry._tcp.local. SRV edge.local.:7443 for 0 s, unique
  say   edge._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=stopping"] for 0 s, unique
  say   edge.local. A 192.0.2.7 for 0 s, unique
  say   edge.local. AAAA 2001:db8::7 for 0 s, unique
190.70 s edge 192.0.2.7 to all: `)
		if got := passes(bus, time.Minute); !strings.Contains(got, "say   harbour.local. AAAA 2001:db8::7 for 120 s, unique") {
			t.Errorf("the new name is not announced:\n%s", got)
		}
		d.end()
		compare(t, "the end", bus.Log(), twiceFrom("2001:db8::7", `
250.70 s edge 192.0.2.7 to all: response
  say   _skerry._tcp.local. PTR harbour._skerry._tcp.local. for 0 s
  say   harbour._skerry._tcp.local. SRV harbour.local.:7443 for 0 s, unique
  say   harbour._skerry._tcp.local. TXT ["id=0123" "version=1.0.0" "board=x86-64" "slot=a" "phase=stopping"] for 0 s, unique
  say   harbour.local. A 192.0.2.7 for 0 s, unique
  say   harbour.local. AAAA 2001:db8::7 for 0 s, unique
`))
	})
}

// twice is what is said by IPv4, and then by IPv6.
func twice(text string) string { return twiceFrom("fe80::7", text) }

func twiceFrom(six, text string) string {
	text = strings.TrimPrefix(text, "\n")
	return text + strings.Replace(text, "edge 192.0.2.7 to", "edge "+six+" to", 1)
}

// TestLinks: each link is told its own addresses, and none has to do with links of pods.
func TestLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, pods := discoverytest.NewBus(), discoverytest.NewBus(), discoverytest.NewBus()
		d := start(t, "edge")
		d.Plug(one, 2, "192.0.2.7/24")
		d.Plug(two, 3, "198.51.100.7/24")
		d.Plug(pods, 4, "10.42.0.1/24")
		d.states <- state("192.0.2.7", "198.51.100.7")
		passes(one, time.Minute)
		ask(one, "192.0.2.9:5353", discovery.Message{Questions: []discovery.Question{{Name: "edge.local.", Type: dnsmessage.TypeA}}})
		ask(pods, "10.42.0.9:5353", discovery.Message{Questions: []discovery.Question{{Name: "edge.local.", Type: dnsmessage.TypeA}}})
		pods.Log()
		compare(t, "a pod's question", passes(pods, time.Minute), "")
		if got := two.Log(); !strings.Contains(got, "A 198.51.100.7") || strings.Contains(got, "192.0.2.7") {
			t.Errorf("on the second link is said\n%s", got)
		}
		if got := one.Log(); !strings.Contains(got, "add   edge.local. NSEC") || strings.Contains(got, "198.51.100.7") {
			t.Errorf("on the first link is said\n%s", got)
		}
		// Both links in the same network: the device does not take itself for another.
		d.Plug(one, 3, "198.51.100.7/24")
		d.states <- state("192.0.2.7", "198.51.100.7")
		d.Unplug(2)
		d.Plug(one, 2, "192.0.2.7/24", "192.0.2.8/24")
		d.states <- state("192.0.2.7", "192.0.2.8", "198.51.100.7")
		if got := passes(one, time.Minute); strings.Contains(got, "edge-2") || !strings.Contains(got, "A 192.0.2.8") {
			t.Errorf("two links in one network:\n%s", got)
		}
	})
}

// TestConflicts: the second device of a name gets another, whoever comes when.
func TestConflicts(t *testing.T) {
	tests := []struct {
		name string
		// second is when the second device is switched on, after the first.
		second time.Duration
		// apart: they meet only after both have claimed the name.
		apart bool
		// first and other are the names that they end with.
		first, other string
	}{
		{"one after the other", time.Minute, false, "edge", "edge-2"},
		{"during the probes", 300 * time.Millisecond, false, "edge-2", "edge"},
		{"at the same time", 0, false, "edge-2", "edge"},
		{"in networks that are joined", time.Minute, true, "edge-2", "edge"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := discoverytest.NewBus()
				a, b := start(t, "a"), start(t, "b")
				a.Plug(bus, 2, "192.0.2.7/24")
				b.Plug(bus, 2, "192.0.2.8/24")
				if test.apart {
					b.Plug(discoverytest.NewBus(), 2, "192.0.2.8/24")
				}
				a.states <- state("192.0.2.7")
				passes(bus, test.second)
				b.states <- state("192.0.2.8")
				got := passes(bus, time.Minute)
				if test.apart {
					b.Plug(bus, 2, "192.0.2.8/24")
					s := state("192.0.2.8")
					s.Version = "1.0.1"
					b.states <- s
					got = passes(bus, time.Minute)
				}
				ask(bus, "192.0.2.9:5353", discovery.Message{Questions: []discovery.Question{
					{Name: "edge.local.", Type: dnsmessage.TypeA}, {Name: "edge-2.local.", Type: dnsmessage.TypeA}}})
				answers := passes(bus, time.Minute)
				for _, want := range []string{test.first + ".local. A 192.0.2.7 for", test.other + ".local. A 192.0.2.8 for"} {
					if strings.Count(answers, "say   "+want) != 1 {
						t.Errorf("%q is not the answer; it is\n%s\nbefore that was said\n%s", want, answers, got)
					}
				}
				if strings.Contains(got+answers, "edge-3") {
					t.Errorf("a third name was taken:\n%s", got)
				}
			})
		})
	}
}

// TestConflictsSlowDown: somebody who says of each name that it is his does not make the device shout.
func TestConflictsSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := discoverytest.NewBus()
		d := start(t, "edge")
		d.Plug(bus, 2, "192.0.2.7/24")
		d.states <- state("192.0.2.7")
		packets, began := 0, time.Now()
		for n := 1; n <= 100; n++ {
			name := "edge.local."
			if n > 1 {
				name = fmt.Sprintf("edge-%d.local.", n)
			}
			for tries := 0; ; tries++ {
				got := passes(bus, 10*time.Millisecond)
				packets += strings.Count(got, " to all: ")
				if strings.Contains(got, "ask   "+name) {
					break
				}
				if tries > 1000 {
					t.Fatalf("%s was not probed for", name)
				}
			}
			ask(bus, "192.0.2.9:5353", discovery.Message{Response: true, Answers: []discovery.Record{
				{Name: name, Type: dnsmessage.TypeA, TTL: 120, Addr: netip.MustParseAddr("192.0.2.9")}}})
			bus.Log()
		}
		// 14 at once, and then one in five seconds.
		if took := time.Since(began); packets > 110 || took < 85*5*time.Second {
			t.Errorf("%d packets for 100 names in %v", packets, took)
		}
	})
}

// Poll tells of a state when it has changed, and StateOf leaves out what others have no use for.
func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := v1.State{Hostname: "edge", Message: "one", Addresses: []string{"::ffff:192.0.2.7", "none", "fe80::7%eth0"}}
		var now atomic.Pointer[v1.State]
		now.Store(&s)
		states := discovery.Poll(ctx, time.Second, func() discovery.State { return discovery.StateOf(*now.Load()) })
		if got, want := fmt.Sprint(<-states), "{edge      [192.0.2.7 fe80::7]}"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		other := s
		other.Message = "two"
		now.Store(&other)
		select {
		case s := <-states:
			t.Errorf("told of what others have no use for: %v", s)
		case <-time.After(time.Minute):
		}
		ready := s
		ready.Phase = v1.Ready
		now.Store(&ready)
		if got, want := fmt.Sprint(<-states), "{edge     ready [192.0.2.7 fe80::7]}"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		select {
		case s := <-states:
			t.Errorf("told without a change: %v", s)
		case <-time.After(time.Minute):
		}
	})
}

// A network that ends is an error, and one that cannot be opened, too.
func TestRunFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := discoverytest.NewMachine("edge", discovery.Port)
		m.Close()
		r := discovery.Responder{Open: func() (discovery.Network, error) { return m, nil }}
		if err := r.Run(t.Context()); err == nil {
			t.Error("a network that has ended: no error")
		}
		r.Open = func() (discovery.Network, error) { return nil, errors.New("no network today") }
		if err := r.Run(t.Context()); err == nil || err.Error() != "no network today" {
			t.Errorf("got %v", err)
		}
	})
}

// ask sends a message to all.
func ask(b *discoverytest.Bus, from string, m discovery.Message) {
	group := discovery.Group4
	f := netip.MustParseAddrPort(from)
	if f.Addr().Is6() {
		group = discovery.Group6
	}
	say(b, f, group, m)
}

func say(b *discoverytest.Bus, from, to netip.AddrPort, m discovery.Message) {
	data, err := m.Pack()
	if err != nil {
		panic(err)
	}
	if err := b.Inject("asker", from, to, data); err != nil {
		panic(err)
	}
}

// A device is known by its identifier, which nobody must learn from the network (machine-id(5)).
func TestPublicID(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	id := discovery.PublicID(secret)
	if len(id) != 32 || id == secret || id != discovery.PublicID(secret) || id == discovery.PublicID(secret[1:]) || discovery.PublicID("") != "" {
		t.Errorf("the public identifier is %q", id)
	}
	if s := discovery.StateOf(v1.State{MachineID: secret}); s.ID != id {
		t.Errorf("the network is told %q", s.ID)
	}
}
