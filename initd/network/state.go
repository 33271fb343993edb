package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// State is how the machine is reachable. Lists are in order of preference and nil when empty.
type State struct {
	Links []LinkState `json:"links"`
	// Addresses are all global addresses of the wired links, IPv4 first; link-local IPv4 addresses come last and IPv6 ones
	// are left out.
	Addresses []netip.Addr `json:"addresses"`
	Gateways  []netip.Addr `json:"gateways"`
	DNS       []netip.Addr `json:"dns"`
	Search    []string     `json:"search"`
	// NTP are time servers that DHCP names.
	NTP []netip.Addr `json:"ntp"`
}

// LinkState is one wired link.
type LinkState struct {
	Name    string `json:"name"`
	MAC     string `json:"mac"`
	Carrier bool   `json:"carrier"`
	// Source says where the IPv4 address comes from; empty while there is none.
	Source    Source         `json:"source,omitempty"`
	Addresses []netip.Prefix `json:"addresses"`
}

// state sums up what the kernel has and the leases say.
func (m *Manager) state(links []Link) State {
	var s State
	links = slices.Clone(links)
	slices.SortFunc(links, func(a, b Link) int { return cmp.Compare(metric(a), metric(b)) })
	for _, l := range links {
		known := m.links[l.Index]
		if !l.Wired || known == nil {
			continue
		}
		ls := LinkState{Name: l.Name, MAC: l.MAC.String(), Carrier: l.Carrier}
		configured := m.Configured[l.Name]
		if slices.ContainsFunc(configured.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
			ls.Source = Static
		} else if lease := known.leases[v4]; lease != nil {
			ls.Source = lease.Source
		}
		for _, a := range l.Addrs {
			if !a.Usable {
				continue
			}
			ls.Addresses = append(ls.Addresses, a.Prefix)
			if a.Addr().Is4() || !a.Addr().IsLinkLocalUnicast() {
				s.Addresses = append(s.Addresses, a.Addr())
			}
		}
		s.Links = append(s.Links, ls)
		for _, r := range l.Routes {
			if r.Dst.Bits() == 0 && r.Gateway.IsValid() {
				s.Gateways = appendNew(s.Gateways, zoned(r.Gateway, l.Name))
			}
		}
		for _, a := range configured.DNS {
			s.DNS = appendNew(s.DNS, zoned(a, l.Name))
		}
		s.Search = appendNew(s.Search, configured.Search...)
		for _, lease := range known.leases {
			if lease == nil {
				continue
			}
			for _, a := range lease.DNS {
				s.DNS = appendNew(s.DNS, zoned(a, l.Name))
			}
			s.NTP = appendNew(s.NTP, lease.NTP...)
			s.Search = appendNew(s.Search, lease.Search...)
		}
		if time.Now().Before(known.dnsUntil) {
			for _, a := range known.dns {
				s.DNS = appendNew(s.DNS, zoned(a, l.Name))
			}
		}
	}
	rank := func(a netip.Addr) int {
		switch {
		case a.Is4() && !a.IsLinkLocalUnicast():
			return 0
		case a.Is6():
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(s.Addresses, func(a, b netip.Addr) int { return cmp.Compare(rank(a), rank(b)) })
	return s
}

// zoned adds the link to an address that means nothing without it.
func zoned(a netip.Addr, link string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(link)
	}
	return a
}

func appendNew[T comparable](list []T, more ...T) []T {
	for _, x := range more {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	return list
}

// domain is a domain name as it may stand in resolv.conf.
var domain = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?$`)

// mostServers is how many name servers resolvers heed (resolv.conf(5), MAXNS); kubelet complains of more.
const mostServers = 3

// resolvConf renders resolv.conf(5).
func resolvConf(s State) string {
	var b strings.Builder
	b.WriteString("# Written by init from what the network offers: changes here are lost.\n")
	for _, a := range s.DNS[:min(len(s.DNS), mostServers)] {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(s.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(s.Search, " "))
	}
	return b.String()
}

// writeResolvConf replaces the file as a whole: a resolver never reads half of it.
func writeResolvConf(path, text string) error {
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = renameio.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s; names are resolved as before: %w", path, err)
	}
	return nil
}
