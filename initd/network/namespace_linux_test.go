package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The real kernel: the test runs itself again as the device, in a network namespace with one end of a cable (veth) called
// eth0, and that runs itself again as the DHCP server, in a namespace with the other end.
const roleVariable = "SKERRY_TEST_ROLE"

func TestRealKernel(t *testing.T) {
	switch os.Getenv(roleVariable) {
	case "device":
		testDevice(t)
		return
	case "server":
		testServer(t)
		return
	case "static":
		testStatic(t)
		return
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root to make network namespaces")
		}
		t.Skip("skipped: needs root to make network namespaces")
	}
	for _, role := range []string{"device", "static"} {
		if out, err := again(role).CombinedOutput(); err != nil {
			t.Errorf("the device (%s) failed: %v\n%s", role, err, out)
		}
	}
}

// testStatic holds what the kernel has against what was configured, and how often it was changed: a kernel that tells something in
// other words than it was told would be changed for ever.
func testStatic(t *testing.T) {
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far"}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(far); err != nil {
		t.Fatal(err)
	}
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	configured := Configured{
		Addresses: []netip.Prefix{p("10.9.0.7/24"), p("2001:db8::7/64"), p("10.9.1.7/32")},
		Routes: []Route{
			{Dst: p("0.0.0.0/0"), Gateway: a("10.9.0.1")}, {Dst: p("::/0"), Gateway: a("2001:db8::1")}, {Dst: p("2001:db8:7::/48"), Gateway: a("fe80::1"), Metric: 7},
			{Dst: p("10.8.0.0/16"), Gateway: a("10.9.1.1"), Metric: 50}, {Dst: p("2001:db8:8::/48"), Gateway: a("2001:db8:9::1")},
		},
		DNS: []netip.Addr{a("10.9.0.53")}, MTU: 1400,
	}
	k := &counting{Kernel: &netKernel{wired: func(name string) bool { return name == "eth0" }}}
	states := make(chan State, 100)
	m := New(Options{Configured: map[string]Configured{"eth0": configured}, Kernel: k, OnChange: func(s State) { states <- s }})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	until := func(what string, holds func(State) bool) {
		t.Helper()
		for {
			select {
			case s := <-states:
				if holds(s) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("waited in vain for %s; changes so far: %s", what, k.text())
			}
		}
	}
	complete := func(s State) bool { return len(s.Addresses) == 3 && len(s.Gateways) == 2 }
	until("the addresses", complete)
	// Somebody deletes an address, and with it a route: both come back.
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrDel(eth0, &netlink.Addr{IPNet: toIPNet(p("10.9.0.7/24"))}); err != nil {
		t.Fatal(err)
	}
	until("the loss", func(s State) bool { return !complete(s) || len(k.changes()) > 9 })
	// The kernel tells of its own doings, such as the end of looking for duplicates, for some seconds.
	for before := -1; before != len(k.changes()); time.Sleep(3 * time.Second) {
		before = len(k.changes())
		if before > 40 {
			t.Fatalf("the kernel is changed again and again: %s", k.text())
		}
	}
	links, err := k.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != "eth0" {
			continue
		}
		var got []string
		for _, r := range l.Routes {
			if r.Ours {
				got = append(got, strings.ReplaceAll(r.String(), fmt.Sprint("metric ", metric(l)), "metric of the link"))
			}
		}
		slices.Sort(got)
		want := []string{
			"0.0.0.0/0 via 10.9.0.1 src 10.9.0.7 metric of the link", "10.8.0.0/16 via 10.9.1.1 src 10.9.0.7 metric 50 onlink",
			"2001:db8:7::/48 via fe80::1 metric 7", "2001:db8:8::/48 via 2001:db8:9::1 metric of the link onlink", "::/0 via 2001:db8::1 metric of the link",
		}
		if !slices.Equal(got, want) || l.MTU != 1400 {
			t.Errorf("MTU %d, routes\n%s\nwant\n%s", l.MTU, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// counting is a kernel that remembers what it was asked for.
type counting struct {
	Kernel
	mu   sync.Mutex
	made []string
}

func (k *counting) Apply(c Change) error {
	k.mu.Lock()
	k.made = append(k.made, c.String())
	k.mu.Unlock()
	return k.Kernel.Apply(c)
}

func (k *counting) changes() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.made)
}

func (k *counting) text() string { return strings.Join(k.changes(), "; ") }

// again is this test in another role and an empty network namespace.
func again(role string) *exec.Cmd {
	c := exec.Command(os.Args[0], "-test.run=^TestRealKernel$", "-test.v", "-test.timeout=60s")
	c.Env = append(os.Environ(), roleVariable+"="+role)
	c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	return c
}

const leaseTime = 4 * time.Second

func testDevice(t *testing.T) {
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far"}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	server := again("server")
	var serverLog bytes.Buffer
	server.Stdout, server.Stderr = &serverLog, &serverLog
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
		t.Logf("the server says:\n%s", serverLog.String())
	}()
	far, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsPid(far, server.Process.Pid); err != nil {
		t.Fatal(err)
	}

	states := make(chan State, 100)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	m := New(Options{
		Hostname: "node-1", MachineID: "0123456789abcdef0123456789abcdef", ResolvConf: resolv,
		Kernel:   &netKernel{wired: func(name string) bool { return name == "eth0" }},
		OnChange: func(s State) { states <- s },
	})
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	until := func(what string, holds func(State) bool) State {
		t.Helper()
		for {
			select {
			case s := <-states:
				if holds(s) {
					return s
				}
			case err := <-done:
				t.Fatalf("waiting for %s: Run ended: %v", what, err)
			case <-ctx.Done():
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	has := func(a string) func(State) bool {
		return func(s State) bool { return slices.Contains(s.Addresses, netip.MustParseAddr(a)) }
	}

	s := until("a lease", has("10.9.0.100"))
	if got, want := fmt.Sprint(s.Gateways, s.DNS, s.NTP, s.Search), "[10.9.0.1] [10.9.0.53] [10.9.0.123] [example.com]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if b, err := os.ReadFile(resolv); err != nil || !strings.HasSuffix(string(b), "\nnameserver 10.9.0.53\nsearch example.com\n") {
		t.Errorf("resolv.conf is %q, %v", b, err)
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if got := eth0.Attrs().MTU; got != 1400 {
		t.Errorf("the MTU is %d, not the server's 1400", got)
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/accept_ra"); err != nil || string(b) != "2\n" {
		t.Errorf("accept_ra is %q, %v", b, err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil || lo.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("the loopback is not up: %v, %v", lo, err)
	}
	// Somebody deletes the address, and with it the route: both come back.
	if err := netlink.AddrDel(eth0, &netlink.Addr{IPNet: toIPNet(netip.MustParsePrefix("10.9.0.100/24"))}); err != nil {
		t.Fatal(err)
	}
	until("the address again", func(s State) bool { return has("10.9.0.100")(s) && len(s.Gateways) == 1 })
	// The server refuses the second renewal and gives another address.
	until("the new address", func(s State) bool { return has("10.9.0.101")(s) && !has("10.9.0.100")(s) && len(s.Gateways) == 1 })

	// Pulling the cable at our end keeps the address; unplugging the card drops all.
	if err := netlink.LinkDel(eth0); err != nil {
		t.Fatal(err)
	}
	until("the end", func(s State) bool { return len(s.Links) == 0 && len(s.Addresses) == 0 && len(s.DNS) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// testServer serves DHCP on "far", once it is there: 10.9.0.100, renewed once by unicast, then refused; then 10.9.0.101.
func testServer(t *testing.T) {
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribeWithOptions(updates, t.Context().Done(), netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		t.Fatal(err)
	}
	var far netlink.Link
	for u := range updates {
		if u.Attrs().Name == "far" {
			far = u.Link
			break
		}
	}
	go func() {
		for range updates {
		}
	}()
	if err := netlink.AddrAdd(far, &netlink.Addr{IPNet: toIPNet(netip.MustParsePrefix("10.9.0.1/24"))}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(far); err != nil {
		t.Fatal(err)
	}
	address, renewals := net.IP{10, 9, 0, 100}, 0
	server, err := server4.NewServer("far", &net.UDPAddr{Port: 67}, func(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
			if !m.ClientIPAddr.IsUnspecified() {
				if renewals++; renewals == 2 {
					kind, address = dhcpv4.MessageTypeNak, net.IP{10, 9, 0, 101}
				}
			}
		}
		fmt.Printf("%s from %s, host %q, client %x: %s\n", m.MessageType(), peer, m.HostName(), m.Options.Get(dhcpv4.OptionClientIdentifier), kind)
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(address), dhcpv4.WithServerIP(net.IP{10, 9, 0, 1}),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 9, 0, 1})), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithRouter(net.IP{10, 9, 0, 1}), dhcpv4.WithDNS(net.IP{10, 9, 0, 53}), dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IP{10, 9, 0, 123})),
			dhcpv4.WithOption(dhcpv4.OptDomainName("example.com")), dhcpv4.WithLeaseTime(uint32(leaseTime/time.Second)),
			dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{1400 >> 8, 1400 & 0xff}))
		if err != nil {
			t.Error(err)
			return
		}
		to := &net.UDPAddr{IP: net.IPv4bcast, Port: 68}
		if udp, ok := peer.(*net.UDPAddr); ok && !udp.IP.IsUnspecified() {
			to.IP = udp.IP
		}
		if _, err := conn.WriteTo(reply.ToBytes(), to); err != nil {
			fmt.Println("cannot answer:", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
}
