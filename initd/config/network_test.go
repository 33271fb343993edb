package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The files below testdata/imager are what Raspberry Pi Imager 2.0.11 writes for a customised image, with a made-up person.
func imager(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "imager", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestImagersUserData(t *testing.T) {
	c, err := Parse("user-data", imager(t, "user-data"))
	if err != nil {
		t.Fatal(err)
	}
	var ignored []string
	for _, p := range c.Ignored() {
		ignored = append(ignored, p.Error())
	}
	const want = `user-data:6:1: "packages" has no effect: the system is one read-only image, which has no package manager
user-data:8:1: "apt" has no effect: the system is one read-only image, which has no package manager
user-data:14:1: "timezone" has no effect: the device's clock and its logs are in UTC
user-data:15:1: "keyboard" has no effect: nobody logs in at the device
user-data:18:1: "user" has no effect: there are no users and no SSH; use skerry node and kubectl
user-data:26:1: "ssh_pwauth" has no effect: there are no users and no SSH; use skerry node and kubectl
user-data:27:1: "rpi" has no effect: interfaces are switched on in config.txt on the boot partition
user-data:33:1: "runcmd" has no effect: there is no shell; use a pod, or a DaemonSet`
	if got := strings.Join(ignored, "\n"); c.Hostname != "gate-7" || got != want {
		t.Errorf("hostname %q; ignored:\n%s", c.Hostname, got)
	}
	l := Load(Source{Name: "user-data", Data: imager(t, "user-data")})
	if len(l.Config.Ignored()) != len(ignored) || l.Problems != nil {
		t.Errorf("merged: %d ignored, problems %v", len(l.Config.Ignored()), l.Problems)
	}
	if _, err := l.Node("gate-7"); err != nil {
		t.Error(err)
	}
}

func TestImagersNetworkConfig(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for name, want := range map[string]*Network{
		"network-config": {
			Version:   "2",
			Ethernets: map[string]Interface{"eth0": {DHCP4: true, DHCP6: true, Optional: true}},
			Wifis: map[string]Interface{"wlan0": {DHCP4: true, Optional: true, RegulatoryDomain: "DE",
				AccessPoints: map[string]AccessPoint{"Caf\u00c3\u00a9 \"7\"": {Password: hash, Hidden: true}}}},
		},
		"network-config-open": {
			Version:   "2",
			Ethernets: map[string]Interface{"eth0": {DHCP4: true, DHCP6: true, Optional: true}},
			Wifis: map[string]Interface{"wlan0": {DHCP4: true, Optional: true, RegulatoryDomain: "US",
				AccessPoints: map[string]AccessPoint{"OpenNetwork": {Auth: Auth{KeyManagement: "none"}}}}},
		},
	} {
		got, err := ParseNetwork(name, imager(t, name))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, want)
		}
	}
}

func TestSSID(t *testing.T) {
	for name, want := range map[string]string{
		"plain":               "plain",
		"Caf\u00e9":           "Caf\xc3\xa9", // written by hand, in UTF-8
		"Caf\u00c3\u00a9":     "Caf\xc3\xa9", // the octets of that, one by one
		"\u65e5\u672c":        "\xe6\x97\xa5\xe6\x9c\xac",
		"\u65e5 \u00c3\u00a9": "\xe6\x97\xa5 \xc3\x83\xc2\xa9",
	} {
		if got := string(SSID(name)); got != want {
			t.Errorf("%q has the octets %q, want %q", name, got, want)
		}
	}
}

const static = `version: 2
renderer: networkd
ethernets:
  eth0:
    dhcp4: false
    addresses: [192.0.2.7/24, "2001:db8::7/64"]
    gateway4: 192.0.2.1
    gateway6: fe80::1
    routes:
      - to: 198.51.100.0/24
        via: 192.0.2.2
        metric: 50
      - {to: default, via: 192.0.2.3, on-link: true, metric: 500}
    nameservers:
      addresses: [192.0.2.53, "2001:db8::53"]
      search: [example.com]
    mtu: 1400
  eth1:
    dhcp4: true
`

func TestParseNetwork(t *testing.T) {
	got, err := ParseNetwork("network-config", []byte(static))
	if err != nil {
		t.Fatal(err)
	}
	want := &Network{Version: "2", Renderer: "networkd", Ethernets: map[string]Interface{
		"eth0": {
			Addresses: []string{"192.0.2.7/24", "2001:db8::7/64"}, Gateway4: "192.0.2.1", Gateway6: "fe80::1",
			Routes:      []NetworkRoute{{To: "198.51.100.0/24", Via: "192.0.2.2", Metric: 50}, {To: "default", Via: "192.0.2.3", OnLink: true, Metric: 500}},
			Nameservers: Nameservers{Addresses: []string{"192.0.2.53", "2001:db8::53"}, Search: []string{"example.com"}}, MTU: 1400,
		},
		"eth1": {DHCP4: true},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		if got, err := ParseNetwork("n", []byte(text)); err != nil || !reflect.DeepEqual(got, &Network{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestNetworkMistakes(t *testing.T) {
	const eth, wifi = "version: 2\nethernets:\n  eth0:\n", "version: 2\nwifis:\n  wlan0:\n"
	for _, test := range []struct{ name, text, want string }{
		{"no version", "ethernets: {}\n", `n:1:1: "version: 2" is missing`},
		{"version 1", "version: 1\nconfig: []\n", "n:1:10: unknown version \"1\"; did you mean \"2\"? allowed here: 2\nn:2:1: unknown key \"config\"; allowed here: version, renderer, ethernets, wifis"},
		{"not keys", "- a\n", "n:1:1: keys with values are expected here, not a list; allowed here: version, renderer, ethernets, wifis"},
		{"bridges", "network:\n  version: 2\n  bridges: {}\n", `n:3:3: unknown key "bridges"; allowed here: version, renderer, ethernets, wifis`},
		{"near key", eth + "    dhcp: true\n", `n:4:5: unknown key "dhcp"; did you mean "dhcp4"? allowed here: dhcp4, dhcp6, addresses, gateway4, gateway6, routes, nameservers, mtu, optional, regulatory-domain, access-points`},
		{"a pattern", "version: 2\nethernets:\n  \"en*\": {dhcp4: true}\n", `n:3:3: "en*" is not the name of a link, such as eth0 or wlan0`},
		{"a link twice", eth + "    dhcp4: true\n  eth0: {}\n", `n:5:3: key "eth0" was already given in line 3`},
		{"no bits", eth + "    addresses: [192.0.2.7]\n", `n:4:17: "192.0.2.7" is not an address with the bits of its network, such as 192.0.2.7/24`},
		{"netmask", eth + "    addresses: [192.0.2.7/255.255.255.0]\n", `n:4:17: "192.0.2.7/255.255.255.0" is not an address with the bits of its network, such as 192.0.2.7/24`},
		{"gateway alone", eth + "    gateway4: 192.0.2.1\n", `n:4:5: gateway4 needs an IPv4 address in addresses`},
		{"gateway of the other kind", eth + "    addresses: [192.0.2.7/24]\n    gateway4: fe80::1\n", `n:5:15: "fe80::1" is not an IPv4 address`},
		{"route without via", eth + "    addresses: [192.0.2.7/24]\n    routes: [{to: default}]\n", `n:5:14: a route needs "to" and "via"`},
		{"route's host bits", eth + "    routes: [{to: 192.0.2.7/24, via: 192.0.2.1}]\n", `n:4:19: "192.0.2.7/24" is an address in a network; the network is 192.0.2.0/24`},
		{"route of two kinds", eth + "    addresses: [192.0.2.7/24]\n    routes: [{to: 2001:db8::/32, via: 192.0.2.1}]\n", `n:5:14: the route to 2001:db8::/32 cannot go by 192.0.2.1, which is of the other kind of addresses`},
		{"route without address", eth + "    dhcp4: true\n    routes: [{to: default, via: 192.0.2.1}]\n", `n:4:5: the route by 192.0.2.1 needs an address of its kind in addresses`},
		{"two default routes", eth + "    addresses: [192.0.2.7/24]\n    gateway4: 192.0.2.1\n    routes: [{to: default, via: 192.0.2.2}]\n", `n:4:5: two routes go to 0.0.0.0/0 with the same metric; give one of them another`},
		{"MTU", eth + "    mtu: 100\n", `n:4:10: an MTU is a number from 576 to 9216, not 100`},
		{"name server", eth + "    nameservers: {addresses: [ns.example.com]}\n", `n:4:31: "ns.example.com" is not an address`},
		{"yes", eth + "    dhcp4: yes\n", `n:4:12: true or false is expected here, not the text "yes"`},
		{"two radios", "version: 2\nwifis:\n  wlan0: {access-points: {a: {password: correct-horse}}}\n  wlan1: {access-points: {a: {password: correct-horse}}}\n", `n:1:1: there are 2 wifis, and one radio is all that can be used`},
		{"country", wifi + "    regulatory-domain: Germany\n", `n:4:24: "Germany" is not a country in two capital letters (ISO 3166), such as DE`},
		{"short password", wifi + "    access-points:\n      home: {password: secret}\n", `n:5:24: the password has 6 characters: it is a passphrase of 8 to 63 ASCII characters, or 64 hexadecimal digits`},
		{"no password", wifi + "    access-points:\n      home: {}\n", `n:5:13: an access point needs a "password"; for a network that is open to everybody write: auth: {key-management: none}`},
		{"password of an open network", wifi + "    access-points:\n      home: {auth: {key-management: none, password: correct-horse}}\n", `n:5:13: key-management none has no password`},
		{"enterprise", wifi + "    access-points:\n      home: {auth: {key-management: eap, password: correct-horse}}\n", `n:5:37: unknown key management "eap"; allowed here: none, psk, sae`},
		{"long SSID", wifi + "    access-points:\n      " + strings.Repeat("x", 33) + ": {password: correct-horse}\n", `n:5:7: an SSID has 1 to 32 bytes, not 33`},
		{"access points of a cable", eth + "    access-points:\n      home: {password: correct-horse}\n", `n:5:7: "access-points" has a meaning below wifis only`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := ParseNetwork("n", []byte(test.text))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			if err.Error() != test.want {
				t.Errorf("got\n%s\nwant\n%s", err, test.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for text, want := range map[string]string{
		string(imager(t, "user-data")):                  "8 ignored, <nil>",
		string(imager(t, "network-config")):             "0 ignored, <nil>",
		static:                                          "0 ignored, <nil>",
		"ethernets: {}\n":                               `0 ignored, f:1:1: "version: 2" is missing`,
		"hostname: a\n":                                 `0 ignored, f:1:1: the first line must be "#cloud-config"`,
		"#cloud-config\nnetwork: {}\n":                  `0 ignored, f:2:1: unknown key "network"; allowed here: hostname, ntp, skerry`,
		"#cloud-config\nskerry:\n  server: https://a\n": `0 ignored, f:3:11: "server" has a meaning on an agent only; set role: agent to join it`,
	} {
		ignored, err := Validate("f", []byte(text))
		if got := fmt.Sprintf("%d ignored, %v", len(ignored), err); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestSupplicant(t *testing.T) {
	n, err := ParseNetwork("network-config", imager(t, "network-config"))
	if err != nil {
		t.Fatal(err)
	}
	const head = "# Written by init on every boot from network-config: changes here are lost.\nupdate_config=0\n"
	const want = head + `country=DE
network={
	ssid=436166c3a920223722
	scan_ssid=1
	key_mgmt=WPA-PSK WPA-PSK-SHA256
	psk=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
}
`
	if got := string(n.Wifis["wlan0"].Supplicant()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got := string(Interface{AccessPoints: map[string]AccessPoint{
		"b": {Password: `quote " and 'quote"`}, "a": {Auth: Auth{KeyManagement: "none"}}, "c": {Auth: Auth{KeyManagement: "sae", Password: "correct-horse"}},
	}}.Supplicant())
	if want := head + "network={\n\tssid=61\n\tkey_mgmt=NONE\n}\n" +
		"network={\n\tssid=62\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n\tpsk=\"quote \" and 'quote\"\"\n}\n" +
		"network={\n\tssid=63\n\tkey_mgmt=SAE\n\tieee80211w=2\n\tpsk=\"correct-horse\"\n}\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestReadNetwork(t *testing.T) {
	root := t.TempDir()
	if n, err := ReadNetwork(root); err != nil || len(n.Links()) != 0 {
		t.Errorf("without a file: %+v, %v", n, err)
	}
	path := filepath.Join(root, NetworkFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		static:           "",
		"network: [1]\n": "/boot/network-config:1:10: keys with values are expected here, not a list; allowed here: version, renderer, ethernets, wifis",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := ReadNetwork(root)
		if want == "" && (err != nil || len(n.Links()) != 2) || want != "" && (err == nil || err.Error() != want || len(n.Links()) != 0) {
			t.Errorf("%q: %+v, %v", text, n, err)
		}
	}
}

// Whatever is in the file, the parser returns, with positions inside the file.
func FuzzParseNetwork(f *testing.F) {
	f.Add([]byte(static))
	f.Add([]byte("network: {version: 2, wifis: {wlan0: {access-points: {\"a\\xc3\": {password: 12345678}, b: , [c]: }}}}\n"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := ParseNetwork("f", data)
		if err == nil {
			return
		}
		var problems Problems
		if !errors.As(err, &problems) {
			t.Fatalf("%T is not of type Problems", err)
		}
		last := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
		for _, p := range problems {
			if p.At.Line < 1 || p.At.Line > last || p.At.Column < 1 {
				t.Errorf("%v is not in the file", p)
			}
		}
	})
}
