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

// Route is a default route of IPv4.
type Route struct {
	Link   int        // index of its link
	Source netip.Addr // preferred source, invalid when the route names none
	Metric int
}

// ours are links that the pod network makes: their addresses are not the node's.
var ours = []string{"lo", Bridge, "flannel.", "veth", "docker0", "kube-"}

// NodeAddress chooses the address of a node, of all that it has: the source that the best default route uses,
// else the first global one in the order of links. It is always IPv4, as pod networks are: an IPv6 address, which may well come before the DHCP
// server's answer, is of no use to them. The result is invalid when the machine has no usable address.
func NodeAddress(links []Link, defaults []Route) netip.Addr {
	defaults = slices.Clone(defaults)
	slices.SortStableFunc(defaults, func(a, b Route) int { return a.Metric - b.Metric })
	for _, r := range defaults {
		for _, l := range links {
			if l.Index != r.Link {
				continue
			}
			if r.Source.Is4() && slices.Contains(l.Addrs, r.Source) {
				return r.Source
			}
			if i := slices.IndexFunc(l.Addrs, usable); i >= 0 {
				return l.Addrs[i]
			}
		}
	}
	for _, l := range links {
		if slices.ContainsFunc(ours, func(p string) bool { return strings.HasPrefix(l.Name, p) }) {
			continue
		}
		if i := slices.IndexFunc(l.Addrs, usable); i >= 0 {
			return l.Addrs[i]
		}
	}
	return netip.Addr{}
}

func usable(a netip.Addr) bool { return a.Is4() && a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() }
