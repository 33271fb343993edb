package browse

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/dns/dnsmessage"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/network/discovery"
)

// A link and what was heard on it.
type link struct {
	discovery.Link
	heard []heard
}

type heard struct {
	discovery.Record
	at time.Time
}

const (
	// mostHeard is how many records of a link are kept: a network in which somebody talks without end takes no more memory.
	mostHeard = 5000
	// mostKnown is how many devices are named in a query as known, and mostMissing how many records are asked for by name.
	mostKnown   = 40
	mostMissing = 40
	// flushed is how old a record must be for one that is unique to take its place (RFC 6762, 10.2).
	flushed = time.Second
)

// receive takes the answers out of a packet.
func (l *link) receive(now time.Time, p discovery.Packet) {
	m, err := discovery.Parse(p.Data)
	if err != nil || !m.Response || p.Peer.Port() != discovery.Port || !p.Multicast && !l.Near(p.Peer.Addr()) {
		return // nothing for us: queries of others, and what RFC 6762 (6, 11) wants to be ignored
	}
	for _, r := range slices.Concat(m.Answers, m.Additionals) {
		if !ofInterest(r) {
			continue
		}
		l.heard = slices.DeleteFunc(l.heard, func(h heard) bool {
			return h.Says(r) || r.Unique && h.Speaks(r) && now.Sub(h.at) > flushed
		})
		if r.TTL > 0 && len(l.heard) < mostHeard {
			l.heard = append(l.heard, heard{r, now})
		}
	}
}

// ofInterest says whether a record may be about a device.
func ofInterest(r discovery.Record) bool {
	switch r.Type {
	case dnsmessage.TypePTR:
		_, ok := label(r.Target)
		return ok && strings.EqualFold(r.Name, discovery.Service)
	case dnsmessage.TypeSRV, dnsmessage.TypeTXT:
		_, ok := label(r.Name)
		return ok
	default:
		return r.Type == dnsmessage.TypeA || r.Type == dnsmessage.TypeAAAA
	}
}

// label is the first part of a device's full name.
func label(instance string) (string, bool) {
	at := len(instance) - len(discovery.Service) - 1
	if at < 1 || !strings.EqualFold(instance[at:], "."+discovery.Service) {
		return "", false
	}
	return instance[:at], true
}

// of are the records of a name and type.
func (l *link) of(name string, kind dnsmessage.Type) []discovery.Record {
	var list []discovery.Record
	for _, h := range l.heard {
		if h.Type == kind && strings.EqualFold(h.Name, name) {
			list = append(list, h.Record)
		}
	}
	return list
}

// query asks for all devices but those that are known, and for what is missing of these.
func (l *link) query() discovery.Message {
	m := discovery.Message{Questions: []discovery.Question{question(discovery.Service, dnsmessage.TypePTR)}}
	for _, r := range l.of(discovery.Service, dnsmessage.TypePTR) {
		if len(m.Answers) < mostKnown {
			r.Unique = false
			m.Answers = append(m.Answers, r)
		}
		for _, q := range l.missing(r.Target) {
			if len(m.Questions) <= mostMissing {
				m.Questions = append(m.Questions, q)
			}
		}
	}
	return m
}

// missing are the questions that are left about a device: packets get lost.
func (l *link) missing(instance string) []discovery.Question {
	var list []discovery.Question
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeSRV, dnsmessage.TypeTXT} {
		if len(l.of(instance, kind)) == 0 {
			list = append(list, question(instance, kind))
		}
	}
	for _, srv := range l.of(instance, dnsmessage.TypeSRV) {
		if len(l.addresses(srv.Target)) == 0 {
			list = append(list, question(srv.Target, dnsmessage.TypeA), question(srv.Target, dnsmessage.TypeAAAA))
		}
	}
	return list
}

func (l *link) addresses(host string) []netip.Addr {
	var list []netip.Addr
	for _, r := range slices.Concat(l.of(host, dnsmessage.TypeA), l.of(host, dnsmessage.TypeAAAA)) {
		a := r.Addr.Unmap()
		if a.Is6() && a.IsLinkLocalUnicast() {
			a = a.WithZone(l.Name)
		}
		list = append(list, a)
	}
	return list
}

// devices are those of all links, each once. One that is on several links is known by its machine identifier.
func devices(links []*link) []Device {
	list := []Device{}
	for _, l := range links {
		for _, r := range l.of(discovery.Service, dnsmessage.TypePTR) {
			d, ok := l.device(r.Target)
			if !ok {
				continue
			}
			i := slices.IndexFunc(list, func(x Device) bool { return x.ID == d.ID && x.Name == d.Name && x.Port == d.Port })
			if i < 0 {
				list = append(list, d)
				continue
			}
			for _, a := range d.Addresses {
				if !slices.Contains(list[i].Addresses, a) {
					list[i].Addresses = append(list[i].Addresses, a)
				}
			}
		}
	}
	for _, d := range list {
		slices.SortStableFunc(d.Addresses, compareAddresses)
	}
	slices.SortFunc(list, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID), slices.CompareFunc(a.Addresses, b.Addresses, netip.Addr.Compare))
	})
	return list
}

// device puts together what was heard of a device; ok is false if that is not where it is.
func (l *link) device(instance string) (d Device, ok bool) {
	srv := l.of(instance, dnsmessage.TypeSRV)
	if len(srv) == 0 {
		return d, false
	}
	name, _ := label(instance)
	d = Device{Name: printable(name), Port: srv[0].Port, Addresses: l.addresses(srv[0].Target)}
	fields := map[string]*string{"id": &d.ID, "version": &d.Version, "board": &d.Board, "slot": &d.Slot, "phase": &d.Phase}
	for _, r := range l.of(instance, dnsmessage.TypeTXT) {
		for _, text := range r.Text {
			key, value, _ := strings.Cut(text, "=")
			// The first of several counts (RFC 6763, 6.4).
			if field := fields[strings.ToLower(key)]; field != nil && *field == "" {
				*field = printable(value)
			}
		}
	}
	return d, len(d.Addresses) > 0
}

// Nodes are the ways to name the device to the command line's --node: its addresses in the order that they are good in, and
// its name in the domain local and without one.
func (d Device) Nodes() []string {
	var list []string
	for _, a := range d.Addresses {
		list = append(list, a.String())
	}
	list = append(list, strings.ToLower(d.Name)+".local", strings.ToLower(d.Name))
	for i := range list {
		if d.Port != v1.Port {
			list[i] = net.JoinHostPort(list[i], strconv.Itoa(int(d.Port)))
		}
	}
	return list
}

// compareAddresses puts those first that are of use in most places.
func compareAddresses(a, b netip.Addr) int {
	rank := func(a netip.Addr) int {
		r := 0
		if a.Is6() {
			r++
		}
		if a.IsLinkLocalUnicast() {
			r += 2
		}
		return r
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), a.Compare(b))
}

// printable replaces what could make a terminal do something: whoever is in the network can send it.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
