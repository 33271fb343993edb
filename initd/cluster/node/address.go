package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/initd/cluster/nodeconfig"
)

// Addresses reads this machine's links and default routes, of IPv4, and chooses the node's address, which is invalid when there
// is none. held says whether an address is one of the machine's.
func Addresses() (chosen netip.Addr, held func(netip.Addr) bool, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return netip.Addr{}, nil, fmt.Errorf("cannot list network links: %w", err)
	}
	var all []nodeconfig.Link
	for _, l := range links {
		if l.Attrs().Flags&unix.IFF_UP == 0 {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return netip.Addr{}, nil, fmt.Errorf("cannot list the addresses of %s: %w", l.Attrs().Name, err)
		}
		nl := nodeconfig.Link{Index: l.Attrs().Index, Name: l.Attrs().Name}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				nl.Addrs = append(nl.Addrs, ip.Unmap())
			}
		}
		all = append(all, nl)
	}
	var defaults []nodeconfig.Route
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return netip.Addr{}, nil, fmt.Errorf("cannot list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst != nil && (!r.Dst.IP.IsUnspecified() || !isZero(r.Dst.Mask)) {
			continue
		}
		src, _ := netip.AddrFromSlice(r.Src)
		defaults = append(defaults, nodeconfig.Route{Link: r.LinkIndex, Source: src.Unmap(), Metric: r.Priority})
	}
	held = func(a netip.Addr) bool {
		return slices.ContainsFunc(all, func(l nodeconfig.Link) bool { return slices.Contains(l.Addrs, a) })
	}
	return nodeconfig.NodeAddress(all, defaults), held, nil
}

func isZero(mask []byte) bool {
	return !slices.ContainsFunc(mask, func(b byte) bool { return b != 0 })
}

// fallback is the address of a machine that has none of IPv4, on a link of its own: Kubernetes needs one that is not loopback. It is
// of the range for benchmarks, RFC 2544, which nobody routes.
var fallback = netip.MustParsePrefix("198.18.0.1/32")

const fallbackLink = "skerry0"

// Own returns the node's address. A machine without any, for instance with no cable, gets fallback, so that its pods run
// all the same.
func Own() (netip.Addr, error) {
	chosen, _, err := Addresses()
	if err != nil || (chosen.IsValid() && chosen != fallback.Addr()) {
		return chosen, err
	}
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: fallbackLink}}
	if _, err := netlink.LinkByName(fallbackLink); err != nil {
		if err := netlink.LinkAdd(link); err != nil {
			return netip.Addr{}, fmt.Errorf("cannot make link %s for a machine without addresses: %w; configure an address", fallbackLink, err)
		}
	}
	made, err := netlink.LinkByName(fallbackLink)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot find link %s: %w", fallbackLink, err)
	}
	addr, err := netlink.ParseAddr(fallback.String())
	if err != nil {
		return netip.Addr{}, err
	}
	if err := netlink.AddrReplace(made, addr); err != nil {
		return netip.Addr{}, fmt.Errorf("cannot give link %s an address: %w", fallbackLink, err)
	}
	if err := netlink.LinkSetUp(made); err != nil {
		return netip.Addr{}, fmt.Errorf("cannot set link %s up: %w", fallbackLink, err)
	}
	return fallback.Addr(), nil
}

// settle is how long an address must be gone before the node takes another: a cable that is plugged again, or a
// DHCP server that restarts, is no reason to restart a cluster.
const settle = 10 * time.Second

// WatchAddress returns an error when the machine no longer has the address that it started with and has another one
// instead. Certificates, kubelet and the API server's endpoint all carry it, so the process is to be started again.
func WatchAddress(ctx context.Context, have netip.Addr) error {
	var since time.Time
	for {
		// To ask costs a tenth of what an idle machine does otherwise: often only while an answer is waited for.
		again := settle
		if have == fallback.Addr() || !since.IsZero() {
			again = 2 * time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
		chosen, held, err := Addresses()
		if err != nil || !moved(have, chosen, held(have)) {
			since = time.Time{}
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		if have == fallback.Addr() || time.Since(since) >= settle {
			return fmt.Errorf("the machine's address changed from %s to %s: starting again to register it", have, chosen)
		}
	}
}

// moved says whether a node that registered with have should register with chosen instead. A node keeps an address for as
// long as the machine holds it, whichever else come; only the fallback gives way to any real one. Without another
// address there is nothing to move to.
func moved(have, chosen netip.Addr, held bool) bool {
	if !chosen.IsValid() || chosen == have {
		return false
	}
	return !held || have == fallback.Addr()
}
