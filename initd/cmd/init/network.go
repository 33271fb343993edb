package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/network"
	"github.com/skerryos/skerry/initd/network/timesync"
)

const (
	resolvConf = "/etc/resolv.conf"
	// clockSaves is how often the clock is written down, for a power cut: each is a write to a card.
	clockSaves = time.Hour
)

// defaultServers are asked for the time when neither configuration nor network names a server. The pool is made for
// devices that nobody configures.
var defaultServers = []string{"0.debian.pool.ntp.org", "1.debian.pool.ntp.org", "2.debian.pool.ntp.org"}

// startNetwork goes on while the machine runs. Nothing waits for it: a machine without a network is of use, too.
func (r *root) startNetwork(ctx context.Context) error {
	r.newClock()
	m := network.New(network.Options{
		Hostname: r.hostname, MachineID: r.machineID, ResolvConf: resolvConf,
		Configured: configured(r.network.Links()),
		Kernel:     network.NewKernel(slices.Sorted(maps.Keys(r.network.Wifis))...),
		OnChange: func(s network.State) {
			r.state.addresses(texts(s.Addresses))
			r.clock.NetworkChanged(texts(s.NTP))
		},
	})
	go func() {
		for ctx.Err() == nil {
			if err := m.Run(ctx); err != nil {
				r.problem(err.Error())
			}
		}
	}()
	return nil
}

// configured is what network-config says, in the words of the network. It was checked when it was read.
func configured(links map[string]config.Interface) map[string]network.Configured {
	out := map[string]network.Configured{}
	for name, l := range links {
		c := network.Configured{DHCP4: l.DHCP4, Search: l.Nameservers.Search, MTU: l.MTU}
		for _, a := range l.Addresses {
			c.Addresses = append(c.Addresses, netip.MustParsePrefix(a))
		}
		for _, a := range l.Nameservers.Addresses {
			c.DNS = append(c.DNS, netip.MustParseAddr(a))
		}
		add := func(to, via string, metric int, onLink bool) {
			r := network.Route{Gateway: netip.MustParseAddr(via), Metric: metric, OnLink: onLink}
			switch {
			case to != "default":
				r.Dst = netip.MustParsePrefix(to)
			case r.Gateway.Is4():
				r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			default:
				r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			c.Routes = append(c.Routes, r)
		}
		for _, gateway := range []string{l.Gateway4, l.Gateway6} {
			if gateway != "" {
				add("default", gateway, 0, false)
			}
		}
		for _, route := range l.Routes {
			add(route.To, route.Via, route.Metric, route.OnLink)
		}
		out[name] = c
	}
	return out
}

const (
	// wifiDir has the configuration of a radio, LINK.conf; the unit of the radio starts only if it is there.
	wifiDir           = runDir + "/wifi"
	supplicantProgram = "/usr/sbin/wpa_supplicant"
)

// configureWifi writes what the radio's service needs. Both places are given for tests.
func configureWifi(dir, program string, wifis map[string]config.Interface) error {
	if len(wifis) == 0 {
		return nil
	}
	if _, err := os.Stat(program); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has wifis, and this image has no program for them: build it with wifi", config.NetworkFile)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, link := range wifis {
		if err := os.WriteFile(filepath.Join(dir, name+".conf"), link.Supplicant(), 0o600); err != nil {
			return fmt.Errorf("cannot configure the radio %s: %w", name, err)
		}
	}
	return nil
}

// wifiMain is the process skerry-wifi: it waits for the radio and becomes wpa_supplicant, which would end without it.
func wifiMain() error {
	files, err := filepath.Glob(filepath.Join(wifiDir, "*.conf"))
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("there are %d files %s/*.conf, and one radio is what can be used", len(files), wifiDir)
	}
	link := strings.TrimSuffix(filepath.Base(files[0]), ".conf")
	if err := awaitLink(context.Background(), link); err != nil {
		return err
	}
	args := []string{supplicantProgram, "-D", "nl80211", "-i", link, "-c", files[0]}
	return fmt.Errorf("cannot start %s: %w", supplicantProgram, syscall.Exec(supplicantProgram, args, os.Environ()))
}

// awaitLink waits for a network interface: a radio may be on USB, or its driver may still wait for its firmware.
func awaitLink(ctx context.Context, link string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := machine.Uevents(ctx)
	if err != nil {
		return err
	}
	for {
		_, err := os.Stat(filepath.Join("/sys/class/net", link))
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, ok := <-events; !ok {
			return fmt.Errorf("cannot wait for link %s: %w", link, errors.Join(errors.New("the kernel's device events have ended"), ctx.Err()))
		}
	}
}

// newClock prepares what keeps the clock; startTime lets it run. Without a time of the build, about which the step clock has
// complained, any time is believed.
func (r *root) newClock() {
	built, _ := readTime(buildTimeFile)
	r.clock = timesync.New(clockOptions(r.config.Config.NTP, built, r.state.synced, r.clockSetBack))
}

// tokenLeeway is how far in the future a token of a pod may begin that the API server still takes.
const tokenLeeway = time.Minute

// clockSetBack writes the time down, and starts Kubernetes again: kubelet would go on giving pods tokens that are not valid yet.
func (r *root) clockSetBack(by time.Duration) {
	if err := r.saveClock(); err != nil {
		r.problem("cannot write down the time: " + err.Error())
	}
	s := r.supervisor()
	if s == nil || by < tokenLeeway {
		return
	}
	r.logf("the clock was set back by %v; %s is started again", by.Round(time.Second), clusterUnit)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Restart(ctx, clusterUnit); err != nil {
			r.logf("%v", err) // it does not run, so there is nothing to start again
		}
	}()
}

// clockOptions take only the build for certain. Where the clock stands now comes from a clock chip, which may have the local
// time or be years ahead, or from what was written down last, which a server may have said that was wrong. When the clock has
// been set back that is written down at once, or it would be ahead again after a power cut.
func clockOptions(c config.NTP, built time.Time, synced func(), setBack func(by time.Duration)) timesync.Options {
	return timesync.Options{
		Servers: slices.Concat(c.Servers, c.Pools), Default: defaultServers, Floor: built,
		Step: machine.SetClock, Slew: machine.SlewClock,
		Synced: func(result timesync.Result) {
			synced()
			if result.Stepped && result.Offset < 0 {
				setBack(-result.Offset)
			}
		},
	}
}

func (r *root) startTime(ctx context.Context) error {
	if r.config.Config.NTP.Enabled {
		go r.clock.Run(ctx)
	}
	go func() {
		tick := time.NewTicker(clockSaves)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := r.saveClock(); err != nil {
					r.problem("cannot write down the time: " + err.Error())
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return nil
}

func texts(addresses []netip.Addr) []string {
	out := []string{}
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}
