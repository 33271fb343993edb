package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

func (l *Lease) text() string {
	return fmt.Sprintf("%s routes %v dns %v ntp %v search %v mtu %d times %s %s %s", l.Address, l.Routes, l.DNS, l.NTP, l.Search, l.MTU, l.Renew, l.Rebind, l.Expire)
}

func TestLease4(t *testing.T) {
	_, ten, _ := net.ParseCIDR("10.0.0.0/8")
	for _, c := range []struct {
		name    string
		options []dhcpv4.Modifier
		want    string
	}{
		{"the usual", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IP{10, 0, 0, 1}, net.IP{10, 0, 0, 2}),
			dhcpv4.WithDNS(net.IP{10, 0, 0, 3}, net.IPv4zero), dhcpv4.WithLeaseTime(800), dhcpv4.WithOption(dhcpv4.OptDomainName("example.com"))},
			"10.0.0.5/24 routes [0.0.0.0/0 via 10.0.0.1 metric 0] dns [10.0.0.3] ntp [] search [example.com] mtu 0 times 6m40s 11m40s 13m20s"},
		{"classless routes replace the router", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IP{10, 0, 0, 1}), dhcpv4.WithLeaseTime(800),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: ten, Router: net.IPv4zero}))},
			"10.0.0.5/24 routes [10.0.0.0/8 metric 0] dns [] ntp [] search [] mtu 0 times 6m40s 11m40s 13m20s"},
		{"no netmask, times out of order", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(800), dhcpv4.WithGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 9, 0}),
			dhcpv4.WithGeneric(dhcpv4.OptionRebindingTimeValue, []byte{0, 0, 9, 0})},
			"10.0.0.5/8 routes [] dns [] ntp [] search [] mtu 0 times 6m40s 11m40s 13m20s"},
		{"for ever", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.CIDRMask(16, 32)), dhcpv4.WithLeaseTime(1<<32 - 1)},
			"10.0.0.5/16 routes [] dns [] ntp [] search [] mtu 0 times 0s 0s 0s"},
		{"a domain that would write resolv.conf", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(800), dhcpv4.WithOption(dhcpv4.OptDomainName("a\nnameserver 6.6.6.6"))},
			"10.0.0.5/8 routes [] dns [] ntp [] search [] mtu 0 times 6m40s 11m40s 13m20s"},
		{"no lease time", nil, "the server's answer has no lease time"},
		{"no address", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(800), dhcpv4.WithYourIP(net.IPv4zero)}, "the server's answer has no address for us: 0.0.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ack, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IP{10, 0, 0, 5})}, c.options...)...)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if l, err := newLease4(ack, time.Now()); err != nil {
				got = err.Error()
			} else {
				got = l.text()
			}
			expect(t, "lease", got, c.want)
		})
	}
}

func TestLease6(t *testing.T) {
	address := func(options ...dhcpv6.Option) dhcpv6.Modifier {
		return dhcpv6.WithOption(&dhcpv6.OptIANA{T1: 100 * time.Second, T2: 160 * time.Second, Options: dhcpv6.IdentityOptions{Options: options}})
	}
	given := &dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::5"), PreferredLifetime: 180 * time.Second, ValidLifetime: 200 * time.Second}
	dns := dhcpv6.WithDNS(net.ParseIP("2001:db8::53"))
	search := dhcpv6.WithOption(dhcpv6.OptDomainSearchList(&rfc1035label.Labels{Labels: []string{"example.com"}}))
	for _, c := range []struct {
		name    string
		managed bool
		options []dhcpv6.Modifier
		want    string
		refused bool
	}{
		{"an address", true, []dhcpv6.Modifier{address(given), dns, search},
			"2001:db8::5/128 routes [] dns [2001:db8::53] ntp [] search [example.com] mtu 0 times 1m40s 2m40s 3m20s", false},
		{"the rest only", false, []dhcpv6.Modifier{dns},
			"invalid Prefix routes [] dns [2001:db8::53] ntp [] search [] mtu 0 times 24h0m0s 24h0m0s 48h0m0s", false},
		{"no address is left", true, []dhcpv6.Modifier{address(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail, StatusMessage: "full"})},
			"the server refused the lease: NoAddrsAvail full", true},
		{"no answer to the question", true, []dhcpv6.Modifier{dns}, "the server refused the lease: it gives no address", true},
		{"an address that is over", true, []dhcpv6.Modifier{address(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::5")})},
			"the server refused the lease: it gives no address", true},
		{"a multicast address", true, []dhcpv6.Modifier{address(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("ff02::1"), ValidLifetime: time.Hour})},
			"the server's answer has no address for us: ff02::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := dhcpv6.NewMessage(c.options...)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			l, err := newLease6(m, c.managed, time.Now())
			if err != nil {
				got = err.Error()
			} else {
				got = l.text()
			}
			expect(t, "lease", got, c.want)
			if errors.Is(err, errRefused) != c.refused {
				t.Errorf("the error says refused: %t, want %t", !c.refused, c.refused)
			}
		})
	}
}

// The layout of struct nduseroptmsg and of RFC 8106's option.
func TestParseUserOption(t *testing.T) {
	message := func(option ...byte) []byte {
		b := make([]byte, 16, 16+len(option))
		b[0] = 10 // AF_INET6
		binary.NativeEndian.PutUint32(b[4:], 7)
		return append(b, option...)
	}
	server := netip.MustParseAddr("fe80::1").AsSlice()
	rdnss := append([]byte{25, 3, 0, 0, 0, 0, 0x0e, 0x10}, server...)
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"a name server", message(rdnss...), "7 [fe80::1] 1h0m0s"},
		{"cut short", message(rdnss[:20]...), "0 [] 0s"},
		{"no address", message(25, 1, 0, 0, 0, 0, 0, 9), "0 [] 0s"},
		{"a search list", message(append([]byte{31}, rdnss[1:]...)...), "0 [] 0s"},
		{"nothing", nil, "0 [] 0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := parseUserOption(c.b)
			expect(t, "event", fmt.Sprint(e.Link, " ", e.DNS, " ", e.Lifetime), c.want)
		})
	}
}

func TestARP(t *testing.T) {
	us, them := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	a, other := netip.MustParseAddr("169.254.7.7"), netip.MustParseAddr("169.254.7.8")
	from := func(mac net.HardwareAddr, sender, target netip.Addr) []byte {
		b := arpProbe(mac, target)
		copy(b[14:18], sender.AsSlice())
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"somebody has it", from(them, a, other), true},
		{"somebody probes for it too", arpProbe(them, a), true},
		{"our own probe", arpProbe(us, a), false},
		{"somebody asks for it", from(them, other, a), false},
		{"somebody has another", from(them, other, other), false},
		{"cut short", arpProbe(them, a)[:27], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := arpClaims(c.b, us, a); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

// TestIsHardware: cables are looked after, and of radios those that are named.
func TestIsHardware(t *testing.T) {
	class := t.TempDir()
	for _, path := range []string{"eth0/device", "wlan0/device", "wlan0/phy80211", "wlan1/device", "wlan1/phy80211", "veth0"} {
		if err := os.MkdirAll(filepath.Join(class, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"eth0": true, "wlan0": true, "wlan1": false, "veth0": false, "gone": false} {
		if got := isHardware(class, name, []string{"wlan0", "veth0"}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
