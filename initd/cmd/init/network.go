package main

import (
	"context"
	"net/netip"
	"slices"
	"time"

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
		Kernel: network.NewKernel(),
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

// newClock prepares what keeps the clock; startTime lets it run.
func (r *root) newClock() {
	servers := slices.Concat(r.config.Config.NTP.Servers, r.config.Config.NTP.Pools)
	r.clock = timesync.New(timesync.Options{
		Servers: servers, Default: defaultServers, Floor: time.Now(),
		Step: machine.SetClock, Slew: machine.SlewClock,
		Synced: func(timesync.Result) { r.state.synced() },
	})
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
