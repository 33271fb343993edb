package config

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
)

// Supplicant renders the configuration of wpa_supplicant for a radio (wpa_supplicant.conf(5)). It holds passwords: mode 0600.
func (i Interface) Supplicant() []byte {
	var b bytes.Buffer
	b.WriteString("# Written by init on every boot from network-config: changes here are lost.\nupdate_config=0\n")
	if i.RegulatoryDomain != "" {
		fmt.Fprintf(&b, "country=%s\n", i.RegulatoryDomain)
	}
	for _, name := range slices.Sorted(maps.Keys(i.AccessPoints)) {
		a := i.AccessPoints[name]
		// Digits need no escape, whatever is in the name.
		fmt.Fprintf(&b, "network={\n\tssid=%x\n", SSID(name))
		if a.Hidden {
			b.WriteString("\tscan_ssid=1\n")
		}
		key := a.Key()
		switch {
		case key == "":
			b.WriteString("\tkey_mgmt=NONE\n")
		case isPSK(key):
			// WPA3 cannot be entered with what was made of a passphrase.
			fmt.Fprintf(&b, "\tkey_mgmt=WPA-PSK WPA-PSK-SHA256\n\tpsk=%s\n", key)
		case a.Auth.KeyManagement == "sae":
			fmt.Fprintf(&b, "\tkey_mgmt=SAE\n\tieee80211w=2\n\tpsk=\"%s\"\n", key)
		default:
			// What is between the first and the last quotation mark is the passphrase, as it is. Frames that manage the connection are
			// protected where the network can do that (1), as WPA3 requires.
			fmt.Fprintf(&b, "\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n\tpsk=\"%s\"\n", key)
		}
		b.WriteString("}\n")
	}
	return b.Bytes()
}
