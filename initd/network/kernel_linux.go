package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// netKernel is the kernel of the network namespace of the process.
type netKernel struct {
	// wired says whether an Ethernet link is hardware.
	wired func(name string) bool
}

// NewKernel returns the kernel that the process runs on. Radios need more than a cable does: of them only those that are named
// are looked after.
func NewKernel(radios ...string) Kernel {
	return &netKernel{wired: func(name string) bool { return isHardware("/sys/class/net", name, radios) }}
}

// isHardware tells a network card, real or virtual, from what software made: only the former hangs on a bus.
func isHardware(class, name string, radios []string) bool {
	dir := filepath.Join(class, name)
	_, noDevice := os.Stat(filepath.Join(dir, "device"))
	_, noRadio := os.Stat(filepath.Join(dir, "phy80211"))
	return noDevice == nil && (noRadio != nil || slices.Contains(radios, name))
}

func (k *netKernel) Links() ([]Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("cannot list links: %w", err)
	}
	var links []Link
	for _, n := range all {
		a := n.Attrs()
		l := Link{
			Index: a.Index, Name: a.Name, MAC: a.HardwareAddr, MTU: a.MTU,
			Loopback: a.Flags&net.FlagLoopback != 0, Up: a.Flags&net.FlagUp != 0,
			Wired: a.EncapType == "ether" && a.MasterIndex == 0 && k.wired(a.Name),
		}
		if l.Wired {
			l.Carrier = a.RawFlags&unix.IFF_LOWER_UP != 0
			if err := addConfiguration(n, &l); err != nil {
				if _, gone := netlink.LinkByIndex(a.Index); gone != nil {
					continue // it was unplugged meanwhile
				}
				return nil, err
			}
		}
		links = append(links, l)
	}
	flags, err := advertisedFlags()
	if err != nil {
		return nil, err
	}
	for i := range links {
		f := flags[links[i].Index]
		links[i].Managed, links[i].OtherConf = f&raManaged != 0, f&raOtherConf != 0
	}
	return links, nil
}

// addConfiguration adds a link's addresses and routes, and how often it had a carrier.
func addConfiguration(n netlink.Link, l *Link) error {
	// Missing in kernels before 4.16: then a change of network that is over before we look is not seen.
	b, _ := os.ReadFile(filepath.Join("/sys/class/net", l.Name, "carrier_up_count"))
	l.CarrierUps, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	addrs, err := netlink.AddrList(n, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("cannot list the addresses of %s: %w", l.Name, err)
	}
	for _, a := range addrs {
		if p, ok := toPrefix(a.IPNet); ok {
			l.Addrs = append(l.Addrs, Addr{p, a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED|unix.IFA_F_DEPRECATED) == 0})
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: l.Index, Table: unix.RT_TABLE_MAIN},
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("cannot list the routes of %s: %w", l.Name, err)
	}
	for _, r := range routes {
		route := Route{Metric: r.Priority, OnLink: r.Flags&int(netlink.FLAG_ONLINK) != 0, Ours: r.Protocol == unix.RTPROT_DHCP}
		route.Gateway = toAddr(r.Gw)
		route.Src = toAddr(r.Src)
		var ok bool
		if route.Dst, ok = toPrefix(r.Dst); !ok {
			route.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if r.Family == unix.AF_INET6 {
				route.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
		}
		l.Routes = append(l.Routes, route)
	}
	return nil
}

// The flags of an IPv6 interface that router advertisements set (include/net/if_inet6.h of the kernel).
const (
	raManaged   = 0x40
	raOtherConf = 0x80
)

// advertisedFlags returns the flags of IPv6 by link: the netlink library does not read them.
func advertisedFlags() (map[int]uint32, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_INET6))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, fmt.Errorf("cannot list the router advertisements' flags: %w", err)
	}
	flags := map[int]uint32{}
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			continue
		}
		index := int(nl.DeserializeIfInfomsg(m).Index)
		outer, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, fmt.Errorf("cannot read the router advertisements' flags: %w", err)
		}
		for _, o := range outer {
			if o.Attr.Type&^unix.NLA_F_NESTED != unix.IFLA_PROTINFO {
				continue
			}
			inner, err := nl.ParseRouteAttr(o.Value)
			if err != nil {
				return nil, fmt.Errorf("cannot read the router advertisements' flags: %w", err)
			}
			for _, i := range inner {
				if i.Attr.Type == unix.IFLA_INET6_FLAGS && len(i.Value) == 4 {
					flags[index] = binary.NativeEndian.Uint32(i.Value)
				}
			}
		}
	}
	return flags, nil
}

// ipv6Settings are written before a link comes up, so that they hold for the first router advertisement.
var ipv6Settings = []struct{ name, value string }{
	{"disable_ipv6", "0"},
	{"accept_ra", "2"},    // 2: also while the machine forwards, as a node with pods does
	{"autoconf", "1"},     // addresses by SLAAC
	{"use_tempaddr", "0"}, // an address that changes every day is none for a node
}

func (k *netKernel) Prepare(l Link) error {
	n, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return fmt.Errorf("cannot find %s: %w", l.Name, err)
	}
	if !l.Loopback {
		for _, s := range ipv6Settings {
			err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", l.Name, s.name), []byte(s.value), 0o644)
			if errors.Is(err, fs.ErrNotExist) {
				slog.Warn("the kernel has no IPv6 on a link", "link", l.Name, "reason", err)
				break
			}
			if err != nil {
				return fmt.Errorf("cannot set %s of %s to %s: %w", s.name, l.Name, s.value, err)
			}
		}
	}
	if err := netlink.LinkSetUp(n); err != nil {
		return fmt.Errorf("cannot bring up %s: %w", l.Name, err)
	}
	return nil
}

func (k *netKernel) Apply(c Change) error {
	n, err := netlink.LinkByIndex(c.Link.Index)
	if err != nil {
		return err
	}
	switch {
	case c.AddAddr.IsValid():
		return netlink.AddrReplace(n, &netlink.Addr{IPNet: toIPNet(c.AddAddr)})
	case c.DeleteAddr.IsValid():
		return unless(unix.EADDRNOTAVAIL, netlink.AddrDel(n, &netlink.Addr{IPNet: toIPNet(c.DeleteAddr)}))
	case c.AddRoute.Dst.IsValid():
		return netlink.RouteReplace(toRoute(c.Link, c.AddRoute))
	case c.DelRoute.Dst.IsValid():
		return unless(unix.ESRCH, netlink.RouteDel(toRoute(c.Link, c.DelRoute)))
	default:
		return netlink.LinkSetMTU(n, c.MTU)
	}
}

// unless drops the error that says that there was nothing to delete.
func unless(absent, err error) error {
	if errors.Is(err, absent) {
		return nil
	}
	return err
}

// groups are the multicast groups of rtnetlink(7) that tell of changes.
var groups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_IFINFO, unix.RTNLGRP_ND_USEROPT,
}

func (k *netKernel) Watch(ctx context.Context) (<-chan Event, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return nil, fmt.Errorf("cannot subscribe to the kernel's network changes: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	events := make(chan Event)
	go func() {
		defer close(events)
		defer func() {
			if stop() {
				s.Close()
			}
		}()
		for {
			messages, from, err := s.Receive()
			if errors.Is(err, unix.ENOBUFS) {
				messages, err = nil, nil // changes were lost: look at everything, as always
			} else if err == nil && from.Pid != nl.PidKernel {
				continue // another process may send to the groups
			}
			if err != nil {
				if ctx.Err() == nil {
					slog.Error("cannot hear of network changes any more", "reason", err)
				}
				return
			}
			var e Event
			for _, m := range messages {
				if m.Header.Type == unix.RTM_NEWNDUSEROPT {
					e = parseUserOption(m.Data)
				}
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}

// parseUserOption reads the name servers of a router advertisement out of a struct nduseroptmsg (16 bytes, in host order, the
// link's index at 4) and the option of RFC 8106, 5.1, behind it. Anything else is an event without name servers.
func parseUserOption(b []byte) Event {
	const header, rdnss = 16, 25
	if len(b) < header+8 || b[0] != unix.AF_INET6 {
		return Event{}
	}
	option := b[header:]
	length := int(option[1]) * 8
	if option[0] != rdnss || length < 24 || length > len(option) {
		return Event{}
	}
	e := Event{
		Link:     int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Lifetime: time.Duration(binary.BigEndian.Uint32(option[4:])) * time.Second,
	}
	for a := option[8:length]; len(a) >= 16; a = a[16:] {
		e.DNS = append(e.DNS, netip.AddrFrom16([16]byte(a[:16])))
	}
	return e
}

func toRoute(l Link, r Route) *netlink.Route {
	n := &netlink.Route{
		LinkIndex: l.Index, Dst: toIPNet(r.Dst), Priority: r.Metric,
		Protocol: unix.RTPROT_DHCP, Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_LINK,
	}
	if r.Gateway.IsValid() {
		n.Gw, n.Scope = r.Gateway.AsSlice(), netlink.SCOPE_UNIVERSE
	}
	if r.Src.IsValid() {
		n.Src = r.Src.AsSlice()
	}
	if r.OnLink {
		n.Flags = int(netlink.FLAG_ONLINK)
	}
	return n
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ones, bits := n.Mask.Size()
	a, ok := netip.AddrFromSlice(n.IP)
	if ok && bits == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), ok
}

// toAddr is not valid for a missing address.
func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
