package nodeconfig

import (
	"net/netip"
	"slices"
	"strings"
)

// Link is a network link with its addresses.
type Link struct {
	Index int
	Name  string
	Addrs []netip.Addr
}

// Route is a default route.
type Route struct {
	Link   int        // index of its link
	Source netip.Addr // preferred source, invalid when the route names none
	Metric int
	V6     bool
}

// ours are links that the pod network makes: their addresses are not the node's.
var ours = []string{"lo", Bridge, "flannel.", "veth", "docker0", "kube-"}

// NodeAddress chooses the address of a node, of all that it has: the source that the best default route uses,
// else the first global one in the order of links. IPv4 comes before IPv6, as pod networks are IPv4. The result is invalid
// when the machine has no usable address.
func NodeAddress(links []Link, defaults []Route) netip.Addr {
	defaults = slices.Clone(defaults)
	slices.SortStableFunc(defaults, func(a, b Route) int {
		switch {
		case a.V6 != b.V6 && a.V6:
			return 1
		case a.V6 != b.V6:
			return -1
		}
		return a.Metric - b.Metric
	})
	for _, r := range defaults {
		for _, l := range links {
			if l.Index != r.Link {
				continue
			}
			if r.Source.IsValid() && slices.Contains(l.Addrs, r.Source) {
				return r.Source
			}
			for _, a := range l.Addrs {
				if usable(a) && a.Is6() == r.V6 {
					return a
				}
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		for _, l := range links {
			if slices.ContainsFunc(ours, func(p string) bool { return strings.HasPrefix(l.Name, p) }) {
				continue
			}
			for _, a := range l.Addrs {
				if usable(a) && a.Is6() == v6 {
					return a
				}
			}
		}
	}
	return netip.Addr{}
}

func usable(a netip.Addr) bool { return a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() }
