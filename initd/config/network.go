package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// NetworkFile is the file on the boot partition that says how the device is connected.
const NetworkFile = "/boot/network-config"

// A Network is a network-config as cloud-init has it in version 2, which is netplan's: the part of it that people use on such
// devices. Links that it does not name are as without it: wired ones by DHCP.
type Network struct {
	Version  string `yaml:"version"`
	Renderer string `yaml:"renderer"`
	// Ethernets and Wifis are links by their names.
	Ethernets map[string]Interface `yaml:"ethernets"`
	Wifis     map[string]Interface `yaml:"wifis"`
}

// An Interface is what a link is to have.
type Interface struct {
	DHCP4 bool `yaml:"dhcp4"`
	// DHCP6 changes nothing: routers say whether to ask for it.
	DHCP6 bool `yaml:"dhcp6"`
	// Addresses are ADDRESS/BITS.
	Addresses   []string       `yaml:"addresses"`
	Gateway4    string         `yaml:"gateway4"`
	Gateway6    string         `yaml:"gateway6"`
	Routes      []NetworkRoute `yaml:"routes"`
	Nameservers Nameservers    `yaml:"nameservers"`
	MTU         int            `yaml:"mtu"`
	// Optional changes nothing: a boot never waits for a link.
	Optional bool `yaml:"optional"`

	// These are for radios only. RegulatoryDomain is a country, such as DE; AccessPoints are by SSID.
	RegulatoryDomain string                 `yaml:"regulatory-domain"`
	AccessPoints     map[string]AccessPoint `yaml:"access-points"`
}

// A NetworkRoute is one; To "default" stands for everywhere.
type NetworkRoute struct {
	To     string `yaml:"to"`
	Via    string `yaml:"via"`
	Metric int    `yaml:"metric"`
	OnLink bool   `yaml:"on-link"`
}

// Nameservers answer for names; Search are domains that names without one are tried in.
type Nameservers struct {
	Addresses []string `yaml:"addresses"`
	Search    []string `yaml:"search"`
}

// An AccessPoint is a wireless network.
type AccessPoint struct {
	// Password is a passphrase, or 64 hexadecimal digits that were made of it and the SSID.
	Password string `yaml:"password"`
	Hidden   bool   `yaml:"hidden"`
	Auth     Auth   `yaml:"auth"`
}

// Auth is the long form of a password.
type Auth struct {
	KeyManagement string `yaml:"key-management"`
	Password      string `yaml:"password"`
}

// networkChecks are as checks; the names of a section have the path of the section and "{}".
var networkChecks = func() map[string]func(string) error {
	c := map[string]func(string) error{
		"version":                               oneOf("version", "2"),
		"renderer":                              oneOf("renderer", "networkd", "NetworkManager"),
		"ethernets{}":                           checkLink,
		"wifis{}":                               checkLink,
		"wifis[].regulatory-domain":             checkCountry,
		"wifis[].access-points{}":               checkSSID,
		"wifis[].access-points[].password":      checkPassphrase,
		"wifis[].access-points[].auth.password": checkPassphrase,
		"wifis[].access-points[].auth.key-management": oneOf("key management", "none", "psk", "sae"),
	}
	for path, check := range map[string]func(string) error{
		"addresses[]":             checkPrefix,
		"gateway4":                checkFamily(netip.Addr.Is4, "an IPv4 address"),
		"gateway6":                checkFamily(netip.Addr.Is6, "an IPv6 address"),
		"routes[].to":             checkDestination,
		"routes[].via":            checkAddress,
		"routes[].metric":         checkNumber("a metric", 1, 1<<31-1),
		"nameservers.addresses[]": checkAddress,
		"nameservers.search[]":    checkDomain,
		"mtu":                     checkNumber("an MTU", 576, 9216),
	} {
		c["ethernets[]."+path], c["wifis[]."+path] = check, check
	}
	// Their only use is a better message: see misplaced.
	c["ethernets[].regulatory-domain"], c["ethernets[].access-points{}"] = checkCountry, checkSSID
	for _, path := range []string{"password", "auth.password", "auth.key-management"} {
		c["ethernets[].access-points[]."+path] = c["wifis[].access-points[]."+path]
	}
	return c
}()

// ParseNetwork reads a network-config. The error is of type Problems and lists every mistake.
func ParseNetwork(name string, data []byte) (*Network, error) {
	network := &Network{}
	d := &decoder{source: name, origin: map[string]Position{}, checks: networkChecks}
	if text, ok := d.text(data); ok {
		n := d.document(text)
		// Either all is below one key, as in netplan's own files and Imager's, or it is not, as in cloud-init's documentation.
		if n != nil && len(n.Content) == 2 && n.Content[0].Value == "network" {
			n = n.Content[1]
		}
		if n != nil {
			d.section(n, reflect.ValueOf(network).Elem(), "")
		}
		d.misplaced()
		if len(network.Wifis) > 1 {
			d.at(n, "there are %d wifis, and one radio is all that can be used", len(network.Wifis))
		}
		if len(d.problems) == 0 && network.Version == "" && n != nil && n.Kind == yaml.MappingNode {
			d.at(n, `"version: 2" is missing`)
		}
	}
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	return network, nil
}

// misplaced finds what only radios have.
func (d *decoder) misplaced() {
	for path, at := range d.origin {
		for _, key := range []string{"regulatory-domain", "access-points"} {
			if ruleOf(path) == "ethernets[]."+key {
				d.problem(at.Line, at.Column, "%q has a meaning below wifis only", key)
			}
		}
	}
}

// Links are all links that are configured, by name. A name that is both a cable's and a radio's is the radio's.
func (n *Network) Links() map[string]Interface {
	links := maps.Clone(n.Ethernets)
	if links == nil {
		links = map[string]Interface{}
	}
	maps.Copy(links, n.Wifis)
	return links
}

// incomplete implements [whole].
func (i *Interface) incomplete() error {
	has := func(is func(netip.Addr) bool) bool {
		return slices.ContainsFunc(i.Addresses, func(a string) bool { return is(netip.MustParsePrefix(a).Addr()) })
	}
	switch {
	case i.Gateway4 != "" && !has(netip.Addr.Is4):
		return errors.New("gateway4 needs an IPv4 address in addresses")
	case i.Gateway6 != "" && !has(netip.Addr.Is6):
		return errors.New("gateway6 needs an IPv6 address in addresses")
	}
	seen := map[string]bool{}
	once := func(to string, metric int) error {
		id := fmt.Sprint(to, " ", metric)
		if seen[id] {
			return fmt.Errorf("two routes go to %s with the same metric; give one of them another", to)
		}
		seen[id] = true
		return nil
	}
	if i.Gateway4 != "" {
		seen[defaultRoute(netip.IPv4Unspecified())+" 0"] = true
	}
	if i.Gateway6 != "" {
		seen[defaultRoute(netip.IPv6Unspecified())+" 0"] = true
	}
	for _, r := range i.Routes {
		to := r.To
		if to == "default" {
			to = defaultRoute(netip.MustParseAddr(r.Via))
		}
		if err := once(to, r.Metric); err != nil {
			return err
		}
		if via := netip.MustParseAddr(r.Via); !has(func(a netip.Addr) bool { return a.Is4() == via.Is4() }) {
			return fmt.Errorf("the route by %s needs an address of its kind in addresses", r.Via)
		}
	}
	return nil
}

// defaultRoute is where a default route by a gateway goes.
func defaultRoute(gateway netip.Addr) string {
	if gateway.Is4() {
		return "0.0.0.0/0"
	}
	return "::/0"
}

// incomplete implements [whole].
func (r *NetworkRoute) incomplete() error {
	if r.To == "" || r.Via == "" {
		return errors.New(`a route needs "to" and "via"`)
	}
	via := netip.MustParseAddr(r.Via)
	if r.To != "default" && netip.MustParsePrefix(r.To).Addr().Is4() != via.Is4() {
		return fmt.Errorf("the route to %s cannot go by %s, which is of the other kind of addresses", r.To, r.Via)
	}
	return nil
}

func (*NetworkRoute) key() string { return "" }

// incomplete implements [whole].
func (a *AccessPoint) incomplete() error {
	key := a.Key()
	switch {
	case a.Password != "" && a.Auth.Password != "":
		return errors.New(`write the password once, as "password" or below "auth"`)
	case key == "" && a.Auth.KeyManagement != "none":
		return errors.New(`an access point needs a "password"; for a network that is open to everybody write: auth: {key-management: none}`)
	case key != "" && a.Auth.KeyManagement == "none":
		return errors.New("key-management none has no password")
	case a.Auth.KeyManagement == "sae" && isPSK(key):
		return errors.New("key-management sae (WPA3) needs the passphrase itself, not 64 digits made of it")
	}
	return nil
}

// Key is the password, wherever it is written.
func (a AccessPoint) Key() string {
	if a.Password != "" {
		return a.Password
	}
	return a.Auth.Password
}

var linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)

// checkLink: what a kernel takes for a name, without patterns.
func checkLink(value string) error {
	if !linkName.MatchString(value) {
		return fmt.Errorf("%q is not the name of a link, such as eth0 or wlan0", value)
	}
	return nil
}

func checkPrefix(value string) error {
	p, err := netip.ParsePrefix(value)
	if err != nil || !p.Addr().IsValid() || p.Bits() == 0 || p.Addr().IsUnspecified() || p.Addr().IsMulticast() {
		return fmt.Errorf("%q is not an address with the bits of its network, such as 192.0.2.7/24", value)
	}
	return nil
}

func checkAddress(value string) error {
	if a, err := netip.ParseAddr(value); err != nil || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
		return fmt.Errorf("%q is not an address", value)
	}
	return nil
}

func checkFamily(is func(netip.Addr) bool, what string) func(string) error {
	return func(value string) error {
		if a, err := netip.ParseAddr(value); err != nil || !is(a) || checkAddress(value) != nil {
			return fmt.Errorf("%q is not %s", value, what)
		}
		return nil
	}
}

func checkDestination(value string) error {
	if value == "default" {
		return nil
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return fmt.Errorf("%q is neither default nor a network such as 192.0.2.0/24", value)
	}
	if p != p.Masked() {
		return fmt.Errorf("%q is an address in a network; the network is %s", value, p.Masked())
	}
	return nil
}

func checkNumber(what string, least, most int) func(string) error {
	return func(value string) error {
		if n, err := strconv.Atoi(value); err != nil || n < least || n > most {
			return fmt.Errorf("%s is a number from %d to %d, not %s", what, least, most, value)
		}
		return nil
	}
}

var country = regexp.MustCompile(`^[A-Z][A-Z]$`)

func checkCountry(value string) error {
	if !country.MatchString(value) && value != "00" {
		return fmt.Errorf("%q is not a country in two capital letters (ISO 3166), such as DE", value)
	}
	return nil
}

// checkSSID: 32 octets of any kind (IEEE 802.11-2020, 9.4.2.2).
func checkSSID(value string) error {
	if n := len(SSID(value)); n == 0 || n > 32 {
		return fmt.Errorf("an SSID has 1 to 32 bytes, not %d", n)
	}
	return nil
}

// SSID is the octets of a network's name. Imager writes each octet beyond ASCII as an escape, which YAML takes for a
// character: what reads as UTF-8 when such characters are taken for octets was one of those.
func SSID(name string) []byte {
	var octets []byte
	for _, r := range name {
		if r > 0xff {
			return []byte(name)
		}
		octets = append(octets, byte(r))
	}
	if !utf8.Valid(octets) {
		return []byte(name)
	}
	return octets
}

var psk = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)

func isPSK(value string) bool { return psk.MatchString(value) }

// checkPassphrase never shows what it was given.
func checkPassphrase(value string) error {
	plain := !strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 || r > 0x7e })
	if !isPSK(value) && (!plain || len(value) < 8 || len(value) > 63) {
		return fmt.Errorf("the password has %d characters: it is a passphrase of 8 to 63 ASCII characters, or 64 hexadecimal digits", utf8.RuneCountInString(value))
	}
	return nil
}
