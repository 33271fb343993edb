package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeKernel has links, and does to them what the real one would as far as this package sees it.
type fakeKernel struct {
	links  []*Link
	events chan Event
	fail   map[string]error // what to answer to a change, once
}

func (k *fakeKernel) Watch(context.Context) (<-chan Event, error) { return k.events, nil }

func (k *fakeKernel) Links() ([]Link, error) {
	var links []Link
	for _, l := range k.links {
		c := *l
		c.Addrs, c.Routes = slices.Clone(l.Addrs), slices.Clone(l.Routes)
		links = append(links, c)
	}
	return links, nil
}

func (k *fakeKernel) link(index int) *Link {
	i := slices.IndexFunc(k.links, func(l *Link) bool { return l.Index == index })
	if i < 0 {
		return nil
	}
	return k.links[i]
}

func (k *fakeKernel) Prepare(l Link) error {
	k.link(l.Index).Up = true
	return nil
}

func (k *fakeKernel) Apply(c Change) error {
	if err := k.fail[c.String()]; err != nil {
		delete(k.fail, c.String())
		return err
	}
	l := k.link(c.Link.Index)
	switch {
	case c.AddAddr.IsValid():
		l.Addrs = append(l.Addrs, Addr{c.AddAddr, true})
	case c.DeleteAddr.IsValid():
		l.Addrs = slices.DeleteFunc(l.Addrs, func(a Addr) bool { return a.Prefix == c.DeleteAddr })
		// As the kernel: routes that start from an address go with it.
		l.Routes = slices.DeleteFunc(l.Routes, func(r Route) bool { return r.Src == c.DeleteAddr.Addr() })
	case c.AddRoute.Dst.IsValid():
		if !slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Addr() == c.AddRoute.Src }) {
			return fmt.Errorf("invalid argument: no address %s", c.AddRoute.Src)
		}
		c.AddRoute.Ours = true
		l.Routes = append(l.Routes, c.AddRoute)
	case c.DelRoute.Dst.IsValid():
		c.DelRoute.Ours = true
		l.Routes = slices.DeleteFunc(l.Routes, func(r Route) bool { return r == c.DelRoute })
	default:
		l.MTU = c.MTU
	}
	return nil
}

func (k *fakeKernel) String() string {
	var b strings.Builder
	for _, l := range k.links {
		fmt.Fprintf(&b, "%s up=%t", l.Name, l.Up)
		for _, a := range l.Addrs {
			fmt.Fprintf(&b, ", %s", a.Prefix)
		}
		for _, r := range l.Routes {
			fmt.Fprintf(&b, ", %s", r)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// fakeClients are servers by link and family ("eth0 4").
type fakeClients struct {
	script map[string]map[string][]string
	asked  []string
}

func (f *fakeClients) server(name string) exchanger {
	s := f.script[name]
	if s == nil {
		s = map[string][]string{}
	}
	return &fakeServer{script: s, log: func(_ string, args ...any) { f.asked = append(f.asked, fmt.Sprint(name, " ", args[0])) }}
}
func (f *fakeClients) dhcp4(l Link) exchanger { return f.server(l.Name + " 4") }
func (f *fakeClients) dhcp6(l Link) exchanger { return f.server(l.Name + " 6") }
func (f *fakeClients) linkLocal(_ context.Context, l Link) (netip.Addr, error) {
	return netip.AddrFrom4([4]byte{169, 254, 7, byte(l.Index)}), nil
}

// world is a machine under test.
type world struct {
	kernel  *fakeKernel
	clients *fakeClients
	state   State
	resolv  string
	changes int
}

// settle tells of a change and lets everything happen that happens within a second, then returns all there is to see.
func (w *world) settle() string {
	w.kernel.events <- Event{}
	return w.pass(time.Second)
}

// pass lets time pass in which the kernel has nothing to tell.
func (w *world) pass(d time.Duration) string {
	time.Sleep(d) // of the bubble's time
	synctest.Wait()
	resolv, _ := os.ReadFile(w.resolv)
	_, servers, _ := strings.Cut(string(resolv), "\n")
	return fmt.Sprintf("%saddresses %v gateways %v dns %v\n%s", w.kernel, w.state.Addresses, w.state.Gateways, w.state.DNS, servers)
}

// run runs a manager on a machine with a loopback, eth0 without a carrier, and a bridge.
func run(t *testing.T, test func(t *testing.T, w *world, eth0 *Link)) { runWith(t, nil, test) }

// runWith is run for a machine that somebody has configured.
func runWith(t *testing.T, configured map[string]Configured, test func(t *testing.T, w *world, eth0 *Link)) {
	synctest.Test(t, func(t *testing.T) {
		eth0 := &Link{Index: 2, Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, Wired: true, MTU: 1500}
		w := &world{
			kernel: &fakeKernel{
				links:  []*Link{{Index: 1, Name: "lo", Loopback: true}, eth0, {Index: 3, Name: "cni0", Carrier: true}},
				events: make(chan Event),
				fail:   map[string]error{},
			},
			clients: &fakeClients{script: map[string]map[string][]string{}},
			resolv:  filepath.Join(t.TempDir(), "etc/resolv.conf"),
		}
		m := New(Options{Configured: configured, Kernel: w.kernel, ResolvConf: w.resolv, clients: w.clients, OnChange: func(s State) { w.state = s; w.changes++ }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Run(ctx) }()
		synctest.Wait()
		test(t, w, eth0)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		synctest.Wait()
	})
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got:\n%s\nwant:\n%s", what, got, want)
	}
}

const nothing = `lo up=true
eth0 up=true
cni0 up=false
addresses [] gateways [] dns []
`

const leased = `lo up=true
eth0 up=true, 10.0.0.5/24, 0.0.0.0/0 via 10.0.0.1 src 10.0.0.5 metric 102
cni0 up=false
addresses [10.0.0.5] gateways [10.0.0.1] dns [10.0.0.1]
nameserver 10.0.0.1
search example.com
`

func TestLifeOfALink(t *testing.T) {
	run(t, func(t *testing.T, w *world, eth0 *Link) {
		expect(t, "without a carrier", w.settle(), nothing)
		w.clients.script["eth0 4"] = map[string][]string{"acquire": {"10.0.0.5/24", "192.168.1.5/24"}, "confirm": {"10.0.0.5/24", "nak"}}
		eth0.Carrier, eth0.CarrierUps = true, 1
		expect(t, "with a carrier", w.settle(), leased)
		eth0.Carrier = false
		expect(t, "the carrier is lost", w.settle(), leased)
		eth0.Carrier, eth0.CarrierUps = true, 2
		expect(t, "the carrier is back", w.settle(), leased)
		eth0.CarrierUps = 3
		expect(t, "the carrier came and went unseen, and leads to another network", w.settle(), `lo up=true
eth0 up=true, 192.168.1.5/24, 0.0.0.0/0 via 192.168.1.1 src 192.168.1.5 metric 102
cni0 up=false
addresses [192.168.1.5] gateways [192.168.1.1] dns [192.168.1.1]
nameserver 192.168.1.1
search example.com
`)
		if w.changes < 3 {
			t.Errorf("the change of address was told in %d changes", w.changes)
		}
		before := w.changes
		w.settle()
		if w.changes != before {
			t.Error("a change was told that was none")
		}
		w.kernel.links = slices.Delete(w.kernel.links, 1, 2)
		expect(t, "unplugged", w.settle(), "lo up=true\ncni0 up=false\naddresses [] gateways [] dns []\n")
		w.clients.script["usb0 4"] = map[string][]string{"acquire": {"10.0.0.5/24"}}
		w.kernel.links = append(w.kernel.links, &Link{Index: 9, Name: "usb0", Wired: true, Carrier: true})
		expect(t, "another one plugged in", w.settle(), `lo up=true
cni0 up=false
usb0 up=true, 10.0.0.5/24, 0.0.0.0/0 via 10.0.0.1 src 10.0.0.5 metric 109
addresses [10.0.0.5] gateways [10.0.0.1] dns [10.0.0.1]
nameserver 10.0.0.1
search example.com
`)
		expect(t, "asked", strings.Join(w.clients.asked, "\n"),
			"eth0 4 acquire\neth0 4 confirm\neth0 4 confirm\neth0 4 acquire\nusb0 4 acquire")
	})
}

func TestNoServer(t *testing.T) {
	run(t, func(t *testing.T, w *world, eth0 *Link) {
		w.clients.script["eth0 4"] = map[string][]string{"acquire": {"silence", "silence", "silence", "silence", "10.0.0.5/24"}}
		eth0.Carrier = true
		expect(t, "not yet", w.settle(), nothing)
		time.Sleep(7 * time.Second) // of the bubble's time
		expect(t, "link-local", w.settle(), `lo up=true
eth0 up=true, 169.254.7.2/16
cni0 up=false
addresses [169.254.7.2] gateways [] dns []
`)
		if s := w.state.Links[0].Source; s != LinkLocal {
			t.Errorf("the source is %q", s)
		}
		time.Sleep(7 * time.Second)
		expect(t, "a server came", w.settle(), leased)
	})
}

// static is a link with addresses of an operator.
func static(dhcp bool) map[string]Configured {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	return map[string]Configured{"eth0": {
		DHCP4: dhcp, Addresses: []netip.Prefix{p("192.0.2.7/24"), p("198.51.100.7/24")},
		Routes: []Route{
			{Dst: p("0.0.0.0/0"), Gateway: a("192.0.2.1")},
			{Dst: p("203.0.113.0/24"), Gateway: a("198.51.100.1"), Metric: 7},
			{Dst: p("203.0.114.0/24"), Gateway: a("10.9.9.9")},
		},
		DNS: []netip.Addr{a("192.0.2.53")}, Search: []string{"static.example"}, MTU: 1400,
	}}
}

func TestStatic(t *testing.T) {
	const addressed = `lo up=true
eth0 up=true, 192.0.2.7/24, 198.51.100.7/24, 0.0.0.0/0 via 192.0.2.1 src 192.0.2.7 metric 102, ` +
		`203.0.113.0/24 via 198.51.100.1 src 198.51.100.7 metric 7, 203.0.114.0/24 via 10.9.9.9 src 192.0.2.7 metric 102 onlink
cni0 up=false
addresses [192.0.2.7 198.51.100.7] gateways [192.0.2.1] dns [192.0.2.53]
nameserver 192.0.2.53
search static.example
`
	runWith(t, static(false), func(t *testing.T, w *world, eth0 *Link) {
		w.clients.script["eth0 4"] = map[string][]string{"acquire": {"10.0.0.5/24"}}
		expect(t, "without a carrier", w.settle(), addressed)
		eth0.Carrier = true
		expect(t, "with a carrier", w.settle(), addressed)
		if len(w.clients.asked) != 0 || w.state.Links[0].Source != Static || eth0.MTU != 1400 {
			t.Errorf("asked %v, source %q, MTU %d", w.clients.asked, w.state.Links[0].Source, eth0.MTU)
		}
		w.kernel.Apply(Change{Link: *eth0, DeleteAddr: netip.MustParsePrefix("192.0.2.7/24")})
		if got := w.settle(); !strings.Contains(got, "192.0.2.7/24") || !strings.Contains(got, "via 192.0.2.1") {
			t.Errorf("what was deleted does not come back:\n%s", got)
		}
		w.kernel.links = append(w.kernel.links, &Link{Index: 9, Name: "usb0", Wired: true, Carrier: true})
		w.clients.script["usb0 4"] = map[string][]string{"acquire": {"10.0.0.6/24"}}
		if got := w.settle(); !strings.Contains(got, "usb0 up=true, 10.0.0.6/24") {
			t.Errorf("a link that is not configured has no lease:\n%s", got)
		}
	})
	runWith(t, static(true), func(t *testing.T, w *world, eth0 *Link) {
		w.clients.script["eth0 4"] = map[string][]string{"acquire": {"10.0.0.5/24"}}
		eth0.Carrier = true
		w.settle()
		expect(t, "with a lease besides", w.settle(), `lo up=true
eth0 up=true, 192.0.2.7/24, 198.51.100.7/24, 10.0.0.5/24, 0.0.0.0/0 via 192.0.2.1 src 192.0.2.7 metric 102, `+
			`203.0.113.0/24 via 198.51.100.1 src 198.51.100.7 metric 7, 203.0.114.0/24 via 10.9.9.9 src 192.0.2.7 metric 102 onlink
cni0 up=false
addresses [192.0.2.7 198.51.100.7 10.0.0.5] gateways [192.0.2.1] dns [192.0.2.53 10.0.0.1]
nameserver 192.0.2.53
nameserver 10.0.0.1
search static.example example.com
`)
	})
}

// Others' addresses and routes stay, ours come back.
func TestDrift(t *testing.T) {
	run(t, func(t *testing.T, w *world, eth0 *Link) {
		w.clients.script["eth0 4"] = map[string][]string{"acquire": {"10.0.0.5/24"}}
		eth0.Carrier = true
		w.settle()
		w.kernel.Apply(Change{Link: *eth0, DeleteAddr: netip.MustParsePrefix("10.0.0.5/24")})
		eth0.Addrs = append(eth0.Addrs, Addr{netip.MustParsePrefix("10.0.0.200/32"), true})
		eth0.Routes = append(eth0.Routes, Route{Dst: netip.MustParsePrefix("10.42.1.0/24"), Gateway: netip.MustParseAddr("10.0.0.6")})
		eth0.Up = false
		// The kernel refuses the first time: it is tried again.
		w.kernel.fail["add address 10.0.0.5/24"] = errors.New("no buffer space available")
		w.settle()
		expect(t, "mended", w.pass(time.Second), `lo up=true
eth0 up=true, 10.0.0.200/32, 10.0.0.5/24, 10.42.1.0/24 via 10.0.0.6 metric 0, 0.0.0.0/0 via 10.0.0.1 src 10.0.0.5 metric 102
cni0 up=false
addresses [10.0.0.200 10.0.0.5] gateways [10.0.0.1] dns [10.0.0.1]
nameserver 10.0.0.1
search example.com
`)
		// An address that could not be deleted is deleted later.
		w.kernel.fail["delete address 10.0.0.5/24"] = errors.New("no buffer space available")
		w.clients.script["eth0 4"] = map[string][]string{"confirm": {"nak"}}
		eth0.CarrierUps = 1
		w.settle()
		if got := w.pass(time.Second); strings.Contains(got, "10.0.0.5") {
			t.Errorf("the address is still there:\n%s", got)
		}
		if len(w.kernel.fail) != 0 {
			t.Errorf("the changes that should fail were not made: %v", w.kernel.fail)
		}
	})
}

func TestRouterAdvertisements(t *testing.T) {
	run(t, func(t *testing.T, w *world, eth0 *Link) {
		w.clients.script["eth0 4"] = map[string][]string{"acquire": {"10.0.0.5/24"}}
		w.clients.script["eth0 6"] = map[string][]string{"acquire": {"2001:db8::5/128"}}
		eth0.Carrier = true
		w.settle()
		// What the kernel makes of an advertisement.
		eth0.Addrs = append(eth0.Addrs, Addr{netip.MustParsePrefix("fe80::2/64"), true}, Addr{netip.MustParsePrefix("2001:db8::2/64"), true},
			Addr{netip.MustParsePrefix("2001:db8:1::2/64"), false})
		eth0.Routes = append(eth0.Routes, Route{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fe80::1"), Metric: 1024})
		servers := []netip.Addr{netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::53")}
		w.kernel.events <- Event{Link: 2, DNS: servers, Lifetime: time.Hour}
		w.settle()
		expect(t, "without DHCPv6", fmt.Sprint(w.state.Addresses, w.state.Gateways, w.state.DNS, w.clients.asked),
			"[10.0.0.5 2001:db8::2] [10.0.0.1 fe80::1%eth0] [10.0.0.1 fe80::1%eth0 2001:db8::53] [eth0 4 acquire]")
		eth0.Managed = true
		w.settle()
		expect(t, "with DHCPv6", fmt.Sprint(w.state.Addresses), "[10.0.0.5 2001:db8::2 2001:db8::5]")
		eth0.Managed = false
		w.settle()
		expect(t, "without again", fmt.Sprint(w.state.Addresses), "[10.0.0.5 2001:db8::2]")
		w.kernel.events <- Event{Link: 2, DNS: servers[:1]}
		w.settle()
		expect(t, "the router takes a name server back", fmt.Sprint(w.state.DNS), "[10.0.0.1 2001:db8::53]")
		w.pass(time.Hour)
		w.settle()
		expect(t, "the other one's time is over", fmt.Sprint(w.state.DNS), "[]")
	})
}

func TestDiff(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	l := Link{
		Index: 2, MTU: 1500,
		Addrs: []Addr{{p("10.0.0.5/24"), true}, {p("10.0.0.9/24"), true}},
		Routes: []Route{
			{Dst: p("0.0.0.0/0"), Gateway: a("10.0.0.1"), Src: a("10.0.0.5"), Metric: 102, Ours: true},
			{Dst: p("10.0.0.0/24"), Src: a("10.0.0.5")},
		},
	}
	router := []Route{{Dst: p("0.0.0.0/0"), Gateway: a("10.0.0.1")}}
	for _, c := range []struct {
		name   string
		leases []Lease
		want   string
	}{
		{"as it is", []Lease{{Address: p("10.0.0.5/24"), Routes: router}}, ""},
		{"nothing", nil, "delete route 0.0.0.0/0 via 10.0.0.1 src 10.0.0.5 metric 102; delete address 10.0.0.5/24"},
		{"another address in the same subnet", []Lease{{Address: p("10.0.0.6/24"), Routes: router}},
			"delete route 0.0.0.0/0 via 10.0.0.1 src 10.0.0.5 metric 102; delete address 10.0.0.5/24; " +
				"add address 10.0.0.6/24; add route 0.0.0.0/0 via 10.0.0.1 src 10.0.0.6 metric 102"},
		{"a router outside of the subnet", []Lease{{Address: p("10.0.0.5/32"), Routes: router}},
			"delete route 0.0.0.0/0 via 10.0.0.1 src 10.0.0.5 metric 102; delete address 10.0.0.5/24; " +
				"add address 10.0.0.5/32; add route 0.0.0.0/0 via 10.0.0.1 src 10.0.0.5 metric 102 onlink"},
		{"MTU", []Lease{{Address: p("10.0.0.5/24"), Routes: router, MTU: 9000}}, "set MTU 9000"},
		{"an MTU that would end IPv6", []Lease{{Address: p("10.0.0.5/24"), Routes: router, MTU: 576}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want wanted
			for _, lease := range c.leases {
				want.add(l, &lease)
			}
			var got []string
			for _, change := range diff(l, []netip.Prefix{p("10.0.0.5/24")}, want) {
				got = append(got, change.String())
			}
			expect(t, "changes", strings.Join(got, "; "), c.want)
		})
	}
}
