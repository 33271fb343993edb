package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/skerryos/skerry/initd/api"
	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/network/discovery"
	"github.com/skerryos/skerry/initd/snapshot"
)

// clusterProgram is the Kubernetes runtime; an image without it has nothing to drain and no datastore.
const clusterProgram = "/usr/bin/skerryd"

// apiMain is the process skerry-api.
func apiMain() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Process 1 takes SIGTERM as reboot and SIGUSR2 as poweroff.
	reboot := func() error { return syscall.Kill(1, syscall.SIGTERM) }
	o := api.Options{Reboot: reboot, PowerOff: func() error { return syscall.Kill(1, syscall.SIGUSR2) }, Reset: requestReset}
	if u, err := newUpgrades(reboot); err != nil {
		slog.Error("the device cannot be upgraded", "reason", err)
	} else {
		o.Upgrades = u
		go u.undrainLeftover(ctx)
		// What is wrong with the configuration is shown by process 1, which reads the same files.
		u.byItself(ctx, config.Load(config.ReadFiles("/")...).Config.Skerry.Update)
	}
	if _, err := os.Stat(clusterProgram); err == nil {
		o.Snapshots = &snapshots{store: newSnapshots()}
	}
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		announce(ctx, o.Upgrades)
	}()
	err := api.Main(ctx, o)
	stop()
	<-announced // or nobody hears that the device goes
	return err
}

const (
	// announceInterval is between two looks at what is announced, announceRetry after a failure.
	announceInterval = 2 * time.Second
	announceRetry    = 30 * time.Second
)

// announce lets the device be found by multicast DNS, if there is anybody who may use what is found.
func announce(ctx context.Context, upgrades api.Upgrades) {
	if _, err := os.Stat(v1.ClientsPath); err != nil || upgrades == nil {
		return
	}
	var last v1.State
	look := func() discovery.State {
		var s v1.State
		if b, err := os.ReadFile(v1.StatePath); err == nil && json.Unmarshal(b, &s) == nil && upgrades.Describe(&s) == nil {
			last = s
		}
		return discovery.StateOf(last)
	}
	for ctx.Err() == nil {
		round, stop := context.WithCancel(ctx)
		// It begins anew with each round: what has not changed it says only once.
		err := (&discovery.Responder{Open: discovery.Open, States: discovery.Poll(round, announceInterval, look)}).Run(round)
		stop()
		if err != nil && ctx.Err() == nil {
			slog.Warn("the device cannot be found in the network", "reason", err)
			select {
			case <-time.After(announceRetry):
			case <-ctx.Done():
			}
		}
	}
}

// runCluster runs the Kubernetes runtime's program for a task.
func runCluster(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, clusterProgram, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, trimmed(out))
	}
	slog.Info(trimmed(out), "task", args[0])
	return nil
}

// snapshots are those of the device API, which runs while the datastore is in use.
type snapshots struct {
	store *snapshot.Store
	mu    sync.Mutex // two that are taken at once would have one name
}

func (s *snapshots) List() ([]v1.Snapshot, error) {
	list, err := s.store.List()
	out := []v1.Snapshot{}
	for _, i := range list {
		out = append(out, v1Snapshot(i))
	}
	return out, err
}

func v1Snapshot(i snapshot.Info) v1.Snapshot {
	return v1.Snapshot{Name: i.Name, Created: i.Created, Bytes: i.Bytes, Version: i.Version, Reason: string(i.Reason)}
}

// snapshotTimeout bounds the copy of a datastore on a slow card.
const snapshotTimeout = 5 * time.Minute

func (s *snapshots) Create(ctx context.Context) (v1.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	if _, err := os.Stat(datastoreDir); err != nil {
		return v1.Snapshot{}, &api.Refusal{Status: 409, Err: errors.New("there is no datastore to take a snapshot of: this node is an agent, or its control plane has not started yet"),
			Hint: "ask a server of the cluster"}
	}
	c, err := readCommandLine()
	if err != nil {
		return v1.Snapshot{}, err
	}
	i, err := s.store.Adopt(snapshot.Info{Version: c.version, Reason: snapshot.Asked}, func(dir string) error {
		return runCluster(ctx, "snapshot", datastoreDir, dir)
	})
	return v1Snapshot(i), err
}

func (s *snapshots) Restore(name string) error {
	err := s.store.Request(name)
	if errors.Is(err, snapshot.ErrNotFound) {
		return &api.Refusal{Status: 404, Err: err, Hint: "GET /v1/snapshots lists those that there are; nothing was changed"}
	}
	return err
}
