package discovery

import (
	"net/netip"
	"slices"
)

// The groups that multicast DNS is spoken in (RFC 6762, 3).
var (
	Group4 = netip.MustParseAddrPort("224.0.0.251:5353")
	Group6 = netip.MustParseAddrPort("[ff02::fb]:5353")
)

// Port is that of multicast DNS, of UDP.
const Port = 5353

// A Network is the links of a machine, and what is said on them. [Open] makes the real one. Receive may be called at the
// same time as the others, which are called by one goroutine; Close ends it.
type Network interface {
	// Links are those that are up and can multicast, but for the loopback.
	Links() ([]Link, error)
	// Join lets Receive hear the groups on a link. A link that was joined already is joined again.
	Join(Link) error
	// Receive waits for a packet, and fails when no more can come.
	Receive() (Packet, error)
	// Send sends a packet through a link, to one of the groups or to one machine.
	Send(link int, to netip.AddrPort, data []byte) error
	Close() error
}

// A Link of the machine.
type Link struct {
	Index     int
	Name      string
	Addresses []netip.Prefix
}

// has says whether the link has an address.
func (l Link) has(a netip.Addr) bool {
	return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

// Near says whether a machine is on this link, as far as its address tells (RFC 6762, 11).
func (l Link) Near(a netip.Addr) bool {
	a = a.WithZone("")
	return a.IsLinkLocalUnicast() || slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Masked().Contains(a) })
}

// Groups are those that can be spoken to on the link.
func (l Link) Groups() []netip.AddrPort {
	var groups []netip.AddrPort
	for _, g := range []netip.AddrPort{Group4, Group6} {
		if slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == g.Addr().Is4() }) {
			groups = append(groups, g)
		}
	}
	return groups
}

// A Packet as it was received.
type Packet struct {
	Link int
	Peer netip.AddrPort // without zone
	// Multicast says that it was sent to a group, and not to this machine.
	Multicast bool
	Data      []byte
}
