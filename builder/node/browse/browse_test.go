package browse_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/skerryos/skerry/builder/node/browse"
	"github.com/skerryos/skerry/initd/network/discovery"
	"github.com/skerryos/skerry/initd/network/discovery/discoverytest"
)

// device lets a device answer on the machine.
func device(t *testing.T, m *discoverytest.Machine, s discovery.State) (end func()) {
	states := make(chan discovery.State)
	r := discovery.Responder{Open: func() (discovery.Network, error) { return m, nil }, States: states}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	states <- s
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func list(t *testing.T, m *discoverytest.Machine, wait time.Duration) string {
	t.Helper()
	devices, err := browse.Browse(t.Context(), m, wait)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, d := range devices {
		fmt.Fprintf(&b, "%s %s %d id=%s version=%s board=%s slot=%s phase=%s\n", d.Name, d.Addresses, d.Port, d.ID, d.Version, d.Board, d.Slot, d.Phase)
	}
	return b.String()
}

func addresses(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestBrowse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		office, lab := discoverytest.NewBus(), discoverytest.NewBus()
		workstation := func() *discoverytest.Machine {
			m := discoverytest.NewMachine("workstation", discovery.Port)
			m.Plug(office, 2, "192.0.2.50/24", "fe80::50/64")
			m.Plug(lab, 3, "198.51.100.50/24")
			return m
		}
		if got := list(t, workstation(), browse.Wait); got != "" {
			t.Errorf("in an empty network there is\n%s", got)
		}

		one, two, both := discoverytest.NewMachine("one", discovery.Port), discoverytest.NewMachine("two", discovery.Port), discoverytest.NewMachine("both", discovery.Port)
		one.Plug(office, 2, "192.0.2.7/24", "fe80::7/64", "2001:db8::7/64")
		two.Plug(office, 2, "192.0.2.8/24")
		both.Plug(office, 2, "192.0.2.9/24")
		both.Plug(lab, 3, "198.51.100.9/24")
		s := discovery.State{Hostname: "edge", ID: "01", Version: "1.0.0", Board: "x86-64", Slot: "a", Phase: "ready", Addresses: addresses("2001:db8::7", "192.0.2.7")}
		defer device(t, one, s)()
		time.Sleep(time.Minute)
		s.ID, s.Version, s.Addresses = "02", "1.1.0", addresses("192.0.2.8")
		endTwo := device(t, two, s)
		s.ID, s.Phase, s.Hostname, s.Addresses = "03", "degraded", "bay", addresses("192.0.2.9", "198.51.100.9")
		defer device(t, both, s)()
		time.Sleep(time.Minute)
		const (
			bay   = "bay [192.0.2.9 198.51.100.9] 7443 id=03 version=1.1.0 board=x86-64 slot=a phase=degraded\n"
			edge  = "edge [192.0.2.7 2001:db8::7] 7443 id=01 version=1.0.0 board=x86-64 slot=a phase=ready\n"
			edge2 = "edge-2 [192.0.2.8] 7443 id=02 version=1.1.0 board=x86-64 slot=a phase=ready\n"
		)
		if got, want := list(t, workstation(), browse.Wait), bay+edge+edge2; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		// Without the port of multicast DNS the answers come to the workstation alone.
		aside := discoverytest.NewMachine("workstation", 40000)
		aside.Plug(office, 2, "192.0.2.50/24")
		office.Log()
		if got, want := list(t, aside, browse.Wait), strings.Replace(bay, " 198.51.100.9", "", 1)+edge+edge2; got != want {
			t.Errorf("aside: got\n%s\nwant\n%s", got, want)
		}
		if log := office.Log(); !strings.Contains(log, "to 192.0.2.50:40000: response") || strings.Contains(log, "to all: response") {
			t.Errorf("the answers went elsewhere:\n%s", log)
		}
		endTwo()
		if got, want := list(t, workstation(), browse.Wait), bay+edge; got != want {
			t.Errorf("after a goodbye: got\n%s\nwant\n%s", got, want)
		}
	})
}

// Whatever comes, in parts, and from whomever.
func TestBrowseHears(t *testing.T) {
	const instance = "edge." + discovery.Service
	ptr := discovery.Record{Name: discovery.Service, Type: dnsmessage.TypePTR, TTL: 4500, Target: instance}
	srv := discovery.Record{Name: instance, Type: dnsmessage.TypeSRV, TTL: 120, Unique: true, Target: "edge.local.", Port: 7443}
	txt := discovery.Record{Name: instance, Type: dnsmessage.TypeTXT, TTL: 4500, Unique: true, Text: []string{"ID=01", "id=02", "version=1\x1b[2J", "x", "new=1"}}
	a := discovery.Record{Name: "edge.local.", Type: dnsmessage.TypeA, TTL: 120, Unique: true, Addr: netip.MustParseAddr("192.0.2.7")}
	b := a
	b.Addr = netip.MustParseAddr("192.0.2.8")
	gone := ptr
	gone.TTL = 0
	service := netip.MustParseAddrPort("192.0.2.7:5353")
	group := discovery.Group4
	here := netip.MustParseAddrPort("192.0.2.50:5353")
	const found = "edge [192.0.2.7] 7443 id=01 version=1?[2J board= slot= phase=\n"
	type packet struct {
		from, to netip.AddrPort
		records  []discovery.Record
	}
	tests := []struct {
		name    string
		packets []packet
		want    string
		// asked is what is asked for in the end, beside the service.
		asked []string
	}{
		{"at once", []packet{{service, group, []discovery.Record{ptr, srv, txt, a}}}, found, nil},
		{"in parts, in any order", []packet{{service, group, []discovery.Record{a}}, {service, group, []discovery.Record{txt}},
			{service, group, []discovery.Record{srv}}, {service, group, []discovery.Record{ptr}}}, found, nil},
		{"without an address", []packet{{service, group, []discovery.Record{ptr, srv, txt}}}, "", []string{"edge.local. A", "edge.local. AAAA"}},
		{"no more than a name", []packet{{service, group, []discovery.Record{ptr}}}, "", []string{instance + " SRV", instance + " TXT"}},
		{"gone again", []packet{{service, group, []discovery.Record{ptr, srv, txt, a}}, {service, group, []discovery.Record{gone}}}, "", nil},
		{"another address", []packet{{service, group, []discovery.Record{ptr, srv, txt, b}}, {service, group, []discovery.Record{a}}}, found, nil},
		{"two addresses", []packet{{service, group, []discovery.Record{ptr, srv, txt, b, a}}},
			strings.Replace(found, "7]", "7 192.0.2.8]", 1), nil},
		{"to the workstation alone", []packet{{service, here, []discovery.Record{ptr, srv, txt, a}}}, found, nil},
		{"from elsewhere", []packet{{netip.MustParseAddrPort("203.0.113.1:5353"), here, []discovery.Record{ptr, srv, txt, a}}}, "", nil},
		{"from no responder", []packet{{netip.MustParseAddrPort("192.0.2.7:40000"), group, []discovery.Record{ptr, srv, txt, a}}}, "", nil},
		{"another service", []packet{{service, group, []discovery.Record{{Name: discovery.Service, Type: dnsmessage.TypePTR, TTL: 9, Target: "edge._http._tcp.local."}}}}, "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := discoverytest.NewBus()
				m := discoverytest.NewMachine("workstation", discovery.Port)
				m.Plug(bus, 2, "192.0.2.50/24")
				go func() {
					for _, p := range test.packets {
						time.Sleep(1100 * time.Millisecond)
						data, err := discovery.Message{Response: true, Answers: p.records}.Pack()
						if err == nil {
							err = bus.Inject("service", p.from, p.to, data)
						}
						if err != nil {
							t.Error(err)
						}
					}
				}()
				if got := list(t, m, 10*time.Second); got != test.want {
					t.Errorf("got\n%s\nwant\n%s", got, test.want)
				}
				log := bus.Log()
				last := log[strings.LastIndex(log, ": query\n"):]
				if got := strings.Count(last, "  ask   "); got != 1+len(test.asked) {
					t.Errorf("in the end is asked\n%s", last)
				}
				for _, q := range test.asked {
					if !strings.Contains(last, "  ask   "+q+"\n") {
						t.Errorf("%s is not asked for in the end:\n%s", q, last)
					}
				}
			})
		})
	}
}

func TestBrowseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := discoverytest.NewMachine("workstation", discovery.Port)
		_, err := browse.Browse(t.Context(), m, browse.Wait)
		if err == nil || !strings.Contains(err.Error(), "cannot look for devices: no network link is up") {
			t.Errorf("without links: %v", err)
		}
		m = discoverytest.NewMachine("workstation", discovery.Port)
		m.Plug(discoverytest.NewBus(), 2, "192.0.2.50/24")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := browse.Browse(ctx, m, browse.Wait); err != context.DeadlineExceeded {
			t.Errorf("interrupted: %v", err)
		}
	})
}

func TestNodes(t *testing.T) {
	d := browse.Device{Name: "Edge", Addresses: addresses("192.0.2.7", "2001:db8::7"), Port: 7443}
	if got, want := strings.Join(d.Nodes(), " "), "192.0.2.7 2001:db8::7 edge.local edge"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	d.Port = 443
	if got, want := strings.Join(d.Nodes(), " "), "192.0.2.7:443 [2001:db8::7]:443 edge.local:443 edge:443"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
