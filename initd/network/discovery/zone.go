package discovery

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// Service is the name that all devices share, AllServices the one of all kinds of services (RFC 6763, 9).
const (
	Service     = v1.MDNSService + ".local."
	AllServices = "_services._dns-sd._udp.local."
)

// How long records may be remembered, in seconds (RFC 6762, 10): those that change with a machine's addresses, and others.
const (
	hostTTL  = 120
	otherTTL = 75 * 60
)

// mostLabel is the most bytes of a part of a name, and of a string in a TXT record (RFC 1035, 2.3.4 and 3.3).
const (
	mostLabel = 63
	mostText  = 255
)

// mostAddresses of a link are told: the records have to fit into a packet.
const mostAddresses = 16

// names are those that the device alone has. They are empty while it has none.
type names struct{ label, host, instance string }

// newNames makes the names of a device of which taken are others'.
func newNames(hostname string, taken int) names {
	label, _, _ := strings.Cut(hostname, ".")
	if label == "" {
		return names{}
	}
	suffix := ""
	if taken > 0 {
		suffix = "-" + strconv.Itoa(taken+1)
	}
	label = label[:min(len(label), mostLabel-len(suffix))] + suffix
	return names{label: label, host: label + ".local.", instance: label + "." + Service}
}

// own says whether a name is one of them.
func (n names) own(name string) bool { return sameName(name, n.host) || sameName(name, n.instance) }

// ownOf are those of the device's addresses that a link has.
func ownOf(l Link, addresses []netip.Addr) []netip.Addr {
	var own []netip.Addr
	for _, a := range addresses {
		if l.has(a) && len(own) < mostAddresses {
			own = append(own, a)
		}
	}
	return own
}

// records are all that the device has to say on an outlet.
func (s *speaker) records(o *outlet) []Record {
	n := s.names()
	if n.label == "" {
		return nil
	}
	text := func(key, value string) string {
		t := key + "=" + value
		return t[:min(len(t), mostText)]
	}
	list := []Record{
		{Name: AllServices, Type: typePTR, TTL: otherTTL, Target: Service},
		{Name: Service, Type: typePTR, TTL: otherTTL, Target: n.instance},
		{Name: n.instance, Type: typeSRV, TTL: hostTTL, Unique: true, Target: n.host, Port: v1.Port},
		{Name: n.instance, Type: typeTXT, TTL: otherTTL, Unique: true, Text: []string{
			text("id", s.state.ID), text("version", s.state.Version), text("board", s.state.Board),
			text("slot", s.state.Slot), text("phase", string(s.state.Phase)),
		}},
	}
	for _, a := range ownOf(o.link, s.state.Addresses) {
		r := Record{Name: n.host, Type: typeA, TTL: hostTTL, Unique: true, Addr: a}
		if a.Is6() {
			r.Type = typeAAAA
		}
		list = append(list, r)
	}
	return list
}

// answer finds the records that answer a question, and says of a name of the device's own that it has no such records
// (RFC 6762, 6.1).
func (n names) answer(zone []Record, q Question) []Record {
	var found []Record
	for _, r := range zone {
		if r.answers(q) {
			found = append(found, r)
		}
	}
	if len(found) == 0 && n.own(q.Name) {
		found = append(found, n.absences(zone, q.Name))
	}
	return found
}

// absences is the record of the types that one of the names has.
func (n names) absences(zone []Record, name string) Record {
	if sameName(name, n.instance) {
		return absence(n.instance, hostTTL, typeTXT, typeSRV)
	}
	var types []dnsmessage.Type
	for _, r := range zone {
		if sameName(r.Name, n.host) {
			types = append(types, r.Type)
		}
	}
	return absence(n.host, hostTTL, types...)
}

// additional are the records that one who gets the answers will want next (RFC 6763, 12).
func (n names) additional(zone, answers []Record) []Record {
	wanted := map[string]bool{}
	for _, r := range answers {
		switch {
		case r.Type == typePTR && sameName(r.Target, n.instance):
			wanted[n.instance], wanted[n.host] = true, true
		case r.Type == typeSRV || r.Type == typeA || r.Type == typeAAAA:
			wanted[n.host] = true
		}
	}
	var list []Record
	families := map[dnsmessage.Type]bool{}
	for _, r := range zone {
		if wanted[r.Name] {
			list = append(list, r)
		}
		if r.Type == typeA || r.Type == typeAAAA {
			families[r.Type] = true
		}
	}
	// Whoever asks for both families need not wait for the one that there is not.
	if wanted[n.host] && len(families) == 1 {
		list = append(list, n.absences(zone, n.host))
	}
	return list
}
