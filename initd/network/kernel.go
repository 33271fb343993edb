package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// A Kernel is what the manager asks of the operating system. Watch comes first; the others may be called in any order.
type Kernel interface {
	// Watch tells of every change of links, addresses, routes and router advertisements from now on, until ctx is done or
	// the kernel ends the subscription; then it closes the channel. Changes may be told together.
	Watch(ctx context.Context) (<-chan Event, error)
	// Links lists all links, with what is configured on the wired ones.
	Links() ([]Link, error)
	// Prepare brings a link up, and before that, unless it is the loopback, makes it heed router advertisements.
	Prepare(Link) error
	// Apply carries one change out. A change that is already there is not an error.
	Apply(Change) error
}

// An Event says that something changed; the name servers are from a router advertisement, if that is what it was.
type Event struct {
	Link int // index, with DNS
	DNS  []netip.Addr
	// Lifetime is how long the name servers may be used; 0 means not any more.
	Lifetime time.Duration
}

// A Link as the kernel has it.
type Link struct {
	Index    int
	Name     string
	MAC      net.HardwareAddr
	MTU      int
	Loopback bool
	// Wired is an Ethernet device that is hardware, or a hypervisor's, or a radio that is configured: not a bridge, veth or tunnel.
	Wired bool
	// Up is the administrator's word, Carrier the cable's.
	Up, Carrier bool
	// CarrierUps counts how often the carrier came.
	CarrierUps int
	// Managed and OtherConf are the M and O flags of the last router advertisement (RFC 4861, 4.2).
	Managed, OtherConf bool
	Addrs              []Addr
	Routes             []Route // of the main table
}

// An Addr on a link.
type Addr struct {
	netip.Prefix
	// Usable is false while IPv6 checks for duplicates, when it found one, and when the address is deprecated.
	Usable bool
}

// A Route through a link.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr // not valid: Dst is on the link
	Src     netip.Addr // not valid: the kernel chooses
	Metric  int
	// OnLink says that the gateway is on the link although no address's prefix says so.
	OnLink bool
	// Ours says that this package made the route (protocol dhcp).
	Ours bool
}

func (r Route) String() string {
	s := r.Dst.String()
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	s += fmt.Sprintf(" metric %d", r.Metric)
	if r.OnLink {
		s += " onlink"
	}
	return s
}

// A Change of one link: one of the fields after Link is set.
type Change struct {
	Link                Link
	AddAddr, DeleteAddr netip.Prefix
	AddRoute, DelRoute  Route // set if Dst is valid
	MTU                 int
}

func (c Change) String() string {
	switch {
	case c.AddAddr.IsValid():
		return "add address " + c.AddAddr.String()
	case c.DeleteAddr.IsValid():
		return "delete address " + c.DeleteAddr.String()
	case c.AddRoute.Dst.IsValid():
		return "add route " + c.AddRoute.String()
	case c.DelRoute.Dst.IsValid():
		return "delete route " + c.DelRoute.String()
	default:
		return fmt.Sprintf("set MTU %d", c.MTU)
	}
}

// wanted is what should be on a link.
type wanted struct {
	Addrs  []netip.Prefix
	Routes []Route
	MTU    int // 0: as it is
}

// baseMetric is the metric of routes through the link with index 0. Each link has its own, so that two links with a
// default route do not replace each other's, and the first found is preferred. Kernel defaults for routes of router
// advertisements (1024) come after all of them.
const baseMetric = 100

func metric(l Link) int { return baseMetric + l.Index }

// leastMTU is what IPv6 needs (RFC 8200, 5): a DHCP server's lower value would end it, and is not heeded.
const leastMTU = 1280

// add adds what a lease asks for.
func (w *wanted) add(l Link, lease *Lease) {
	if lease.MTU >= leastMTU {
		w.MTU = lease.MTU
	}
	if !lease.Address.IsValid() {
		return
	}
	w.Addrs = append(w.Addrs, lease.Address)
	for _, r := range lease.Routes {
		w.Routes = append(w.Routes, Route{
			Dst: r.Dst, Gateway: r.Gateway, Src: lease.Address.Addr(), Metric: metric(l),
			OnLink: r.Gateway.IsValid() && !lease.Address.Masked().Contains(r.Gateway),
		})
	}
}

// configure adds what operators want.
func (w *wanted) configure(l Link, c Configured) {
	if c.MTU != 0 {
		w.MTU = c.MTU
	}
	for _, p := range c.Addresses {
		if !slices.Contains(w.Addrs, p) { // DHCP may give the same
			w.Addrs = append(w.Addrs, p)
		}
	}
	for _, r := range c.Routes {
		if r.Metric == 0 {
			r.Metric = metric(l)
		}
		near := slices.IndexFunc(c.Addresses, func(p netip.Prefix) bool { return p.Contains(r.Gateway) })
		if near < 0 && !r.Gateway.IsLinkLocalUnicast() {
			r.OnLink = true
		}
		// IPv6 refuses a source that it still looks for duplicates of, and needs none: it chooses by destination (RFC 6724).
		if r.Gateway.Is4() {
			if near < 0 {
				near = slices.IndexFunc(c.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() })
			}
			if near >= 0 {
				r.Src = c.Addresses[near].Addr()
			}
		}
		// The kernel has one of a metric: what was configured takes the place of what was offered.
		w.Routes = slices.DeleteFunc(w.Routes, func(o Route) bool { return o.Dst == r.Dst && o.Metric == r.Metric })
		w.Routes = append(w.Routes, r)
	}
}

// diff lists the changes that make a link as wanted. Addresses are deleted only if they are among owned, routes only if
// they are Ours. Deletions come first: an address that is added to the subnet of another is secondary to it, and would go
// with it. Routes come after the addresses that they start from.
func diff(l Link, owned []netip.Prefix, want wanted) []Change {
	var changes []Change
	has := func(p netip.Prefix) bool {
		return slices.ContainsFunc(l.Addrs, func(a Addr) bool { return a.Prefix == p })
	}
	have := map[Route]bool{}
	for _, r := range l.Routes {
		if !r.Ours {
			continue
		}
		r.Ours = false
		have[r] = true
		if !slices.Contains(want.Routes, r) {
			changes = append(changes, Change{Link: l, DelRoute: r})
		}
	}
	for _, p := range owned {
		if has(p) && !slices.Contains(want.Addrs, p) {
			changes = append(changes, Change{Link: l, DeleteAddr: p})
		}
	}
	if want.MTU != 0 && want.MTU != l.MTU {
		changes = append(changes, Change{Link: l, MTU: want.MTU})
	}
	for _, p := range want.Addrs {
		if !has(p) {
			changes = append(changes, Change{Link: l, AddAddr: p})
		}
	}
	for _, r := range want.Routes {
		if !have[r] {
			changes = append(changes, Change{Link: l, AddRoute: r})
		}
	}
	return changes
}
