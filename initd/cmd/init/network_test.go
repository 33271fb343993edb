package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/network/timesync"
)

func TestConfigured(t *testing.T) {
	n, err := config.ParseNetwork("network-config", []byte(`version: 2
ethernets:
  eth0:
    addresses: [192.0.2.7/24, "2001:db8::7/64"]
    gateway4: 192.0.2.1
    gateway6: fe80::1
    routes: [{to: 198.51.100.0/24, via: 192.0.2.2, metric: 50, on-link: true}, {to: default, via: 192.0.2.3, metric: 9}]
    nameservers: {addresses: [192.0.2.53], search: [example.com]}
    mtu: 1400
wifis:
  wlan0:
    dhcp4: true
    access-points: {home: {password: correct-horse}}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := configured(n.Links())
	want := "map[eth0:{DHCP4:false Addresses:[192.0.2.7/24 2001:db8::7/64] Routes:[0.0.0.0/0 via 192.0.2.1 metric 0 ::/0 via fe80::1 metric 0 " +
		"198.51.100.0/24 via 192.0.2.2 metric 50 onlink 0.0.0.0/0 via 192.0.2.3 metric 9] DNS:[192.0.2.53] Search:[example.com] MTU:1400} " +
		"wlan0:{DHCP4:true Addresses:[] Routes:[] DNS:[] Search:[] MTU:0}]"
	if fmt.Sprintf("%+v", got) != want {
		t.Errorf("got  %+v\nwant %s", got, want)
	}
}

func TestConfigureWifi(t *testing.T) {
	dir, program := filepath.Join(t.TempDir(), "wifi"), filepath.Join(t.TempDir(), "wpa_supplicant")
	wifis := map[string]config.Interface{"wlan0": {AccessPoints: map[string]config.AccessPoint{"home": {Password: "correct-horse"}}}}
	if err := configureWifi(dir, program, wifis); err == nil || !strings.Contains(err.Error(), "/boot/network-config has wifis, and this image has no program for them") {
		t.Errorf("without the program: %v", err)
	}
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := configureWifi(dir, program, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("without wifis there is something to start")
	}
	if err := configureWifi(dir, program, wifis); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "wlan0.conf"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "wlan0.conf"))
	if err != nil || !strings.Contains(string(text), `psk="correct-horse"`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestAwaitLink(t *testing.T) {
	if err := awaitLink(t.Context(), "lo"); err != nil {
		t.Errorf("a link that is there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := awaitLink(ctx, "nolink0"); !errors.Is(err, context.Canceled) {
		t.Errorf("a link that never comes: %v", err)
	}
}

// The clock at the start is no floor, or one that is ahead would stay ahead; and what a server has put right stays right.
func TestClockOptions(t *testing.T) {
	built := time.Now().Add(-48 * time.Hour)
	var told []string
	o := clockOptions(config.NTP{Servers: []string{"a"}, Pools: []string{"b"}}, built,
		func() { told = append(told, "synced") }, func(by time.Duration) { told = append(told, "back by "+by.String()) })
	if !o.Floor.Equal(built) || fmt.Sprint(o.Servers) != "[a b]" {
		t.Errorf("floor %v, servers %v", o.Floor, o.Servers)
	}
	for _, c := range []struct {
		name   string
		result timesync.Result
		want   string
	}{
		{"slewed", timesync.Result{Offset: 100 * time.Millisecond}, "[synced]"},
		{"slewed back", timesync.Result{Offset: -100 * time.Millisecond}, "[synced]"},
		{"set", timesync.Result{Offset: time.Hour, Stepped: true}, "[synced]"},
		{"set back", timesync.Result{Offset: -time.Hour, Stepped: true}, "[synced back by 1h0m0s]"},
	} {
		told = nil
		if o.Synced(c.result); fmt.Sprint(told) != c.want {
			t.Errorf("%s: %v, want %s", c.name, told, c.want)
		}
	}
}
