package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/skerryos/skerry/initd/api"
	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/update"
)

// upgrades are what the device API does about them. Whoever writes, by the network, by itself or from a stick, comes by here.
type upgrades struct {
	*update.Updater
	reboot func() error
	// identity is the file with the machine's identity.
	identity string
	// drain makes the node ready for a restart, undrain takes that back.
	drain, undrain func(context.Context) error

	// asked lets the URL of the configuration be asked at once; nil when there is none.
	asked chan struct{}

	mu sync.Mutex
	// activity is what is done at this moment: what somebody has asked for under the empty name, else by the way by which upgrades come
	// by themselves.
	activity map[string]string
	// trying: somebody has begun to try what was written. failed is why that came to nothing.
	trying bool
	failed error
	// problems are those of each way by which upgrades come by themselves.
	problems map[string]string
}

func newUpgrades(reboot func() error) (*upgrades, error) {
	c, err := readCommandLine()
	if err != nil {
		return nil, err
	}
	disk, err := findDisk()
	if err != nil {
		return nil, err
	}
	updater, err := newUpdater(c, disk, newSlots(c.loader, disk))
	if err != nil {
		return nil, err
	}
	return &upgrades{Updater: updater, reboot: reboot, identity: machineIDFile, drain: drainNode, undrain: undrainNode}, nil
}

// doing shows what is done at this moment; empty is nothing.
func (u *upgrades) doing(format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.setActivity("", fmt.Sprintf(format, args...))
}

// setActivity is for those who have the lock.
func (u *upgrades) setActivity(way, what string) {
	if u.activity == nil {
		u.activity = map[string]string{}
	}
	u.activity[way] = what
}

// shownActivity is for those who have the lock.
func (u *upgrades) shownActivity() string {
	for _, way := range slices.Sorted(maps.Keys(u.activity)) {
		if what := u.activity[way]; what != "" {
			return what
		}
	}
	return ""
}

// report shows what comes of one of the ways by which upgrades come by themselves.
func (u *upgrades) report(way, activity, problem string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.setActivity(way, activity)
	if problem != u.problems[way] && problem != "" {
		slog.Warn(problem, "from", way)
	}
	if u.problems == nil {
		u.problems = map[string]string{}
	}
	u.problems[way] = problem
}

// Describe implements [api.Upgrades].
func (u *upgrades) Describe(s *v1.State) error {
	u.mu.Lock()
	for _, way := range slices.Sorted(maps.Keys(u.problems)) {
		if problem := u.problems[way]; problem != "" {
			s.Problems = append(s.Problems, way+": "+problem)
		}
	}
	u.mu.Unlock()
	rec, err := u.Status()
	if err != nil {
		return err
	}
	id, err := os.ReadFile(u.identity)
	if err != nil {
		return err
	}
	s.MachineID = trimmed(id)
	up := rec.Upgrade
	s.Slots = nil
	for _, n := range []slot.Name{slot.A, slot.B} {
		status, err := u.Slots.Status(n)
		if err != nil {
			return err
		}
		out := v1.Slot{Name: string(n), Running: n == u.Running.Slot, Present: status.Present, Good: status.Good}
		if !status.Good {
			out.Tries = status.Left
		}
		switch {
		case out.Running:
			out.Version = u.Running.Version
		case n == up.Target:
			out.Version = up.Version
		case up.Version == u.Running.Version:
			out.Version = up.From
		}
		s.Slots = append(s.Slots, out)
	}
	s.Update = u.describe(rec)
	return nil
}

func (u *upgrades) describe(rec update.Record) *v1.Update {
	u.mu.Lock()
	activity, failed := u.shownActivity(), u.failed
	u.mu.Unlock()
	up := rec.Upgrade
	if failed != nil && up.State == update.Written {
		activity, up.Reason = "", failed.Error()
	}
	out := &v1.Update{
		State: string(up.State), Activity: activity, Version: up.Version, From: up.From, Target: string(up.Target),
		Bundle: up.Bundle, Chunk: up.Chunk, Chunks: up.Chunks, Attempts: up.Attempts, Reason: up.Reason,
		Started: up.Started, Changed: up.Changed, Floor: max(rec.Floor, u.Running.Floor),
	}
	for _, f := range rec.Failed {
		out.Failed = append(out.Failed, v1.FailedVersion{Version: f.Version, Reason: f.Reason, Time: f.Time})
	}
	return out
}

// Upload implements [api.Upgrades].
func (u *upgrades) Upload(ctx context.Context, body io.Reader, from int, force bool) error {
	b, err := u.Open(body)
	if err != nil {
		return u.refusal(err)
	}
	return u.Write(ctx, b, from, body, force)
}

// Write writes an opened bundle whose stream goes on with that chunk.
func (u *upgrades) Write(ctx context.Context, b *bundle.Reader, from int, rest io.Reader, force bool) error {
	if err := u.notWhileTrying(b.Manifest().Version); err != nil {
		return err
	}
	if err := counts(u.Slots); err != nil {
		return &api.Refusal{Status: http.StatusPreconditionFailed, Err: fmt.Errorf("bundle refused, nothing was written: %w", err), Hint: "see what the device shows as a problem"}
	}
	w, err := u.Begin(b, force)
	if err != nil {
		return u.refusal(err)
	}
	u.doing("writing version %s to slot %s", b.Manifest().Version, u.Running.Slot.Other())
	defer u.doing("")
	if err := errors.Join(u.write(ctx, w, b, from, rest), w.Close()); err != nil {
		return u.refusal(err)
	}
	slog.Info("an upgrade is written", "version", b.Manifest().Version, "signer", b.Signer())
	return nil
}

// notWhileTrying keeps another version from taking the place of one whose node is drained already.
func (u *upgrades) notWhileTrying(version string) error {
	rec, err := u.Status()
	if err != nil {
		return err
	}
	u.mu.Lock()
	trying := u.trying
	u.mu.Unlock()
	if !trying || rec.Upgrade.Version == version {
		return nil
	}
	return &api.Refusal{Status: http.StatusConflict, Err: fmt.Errorf("refused, nothing was changed: version %s is about to be tried", rec.Upgrade.Version),
		Hint: "wait until it has ended; GET /v1/status tells how far it is", Update: u.describe(rec)}
}

func (u *upgrades) write(ctx context.Context, w *update.Writer, b *bundle.Reader, from int, rest io.Reader) error {
	if from > w.Chunk() {
		return &api.Refusal{Status: http.StatusConflict, Err: fmt.Errorf("the transfer must go on from chunk %d, not from %d", w.Chunk(), from),
			Hint: "send the header and the chunks from there on; what was written before stays"}
	}
	if from > 0 {
		if err := b.Resume(from, rest); err != nil {
			return &api.Refusal{Status: http.StatusBadRequest, Err: err, Hint: "send the header and all chunks"}
		}
	}
	of := b.Manifest().Version
	w.Progress = func(done, chunks int) { u.doing("writing version %s: %d of %d chunks", of, done, chunks) }
	return w.Run(ctx)
}

// refusal gives an error the status that tells a client what it can do.
func (u *upgrades) refusal(err error) error {
	r := &api.Refusal{Err: err}
	switch {
	case has[*api.Refusal](err):
		r, _ = errors.AsType[*api.Refusal](err)
	case has[*update.BusyError](err):
		r.Status, r.Hint = http.StatusConflict, "wait until it has ended; GET /v1/status tells how far it is"
	case has[*update.RefusedError](err):
		refused, _ := errors.AsType[*update.RefusedError](err)
		r.Status, r.Hint, r.Forceable = http.StatusPreconditionFailed, "use a bundle that fits this device", refused.Forceable
		if refused.Forceable {
			r.Hint = "force it if you mean it"
		}
	case has[*bundle.UntrustedError](err):
		r.Status, r.Hint = http.StatusForbidden, "sign the bundle with a key that the device trusts"
	case errors.Is(err, syscall.ENOSPC):
		r.Status, r.Hint = http.StatusInsufficientStorage, "make room on the data partition: remove images or volumes, or reset the device; then send the bundle again"
	case !has[*net.OpError](err) && (has[*os.PathError](err) || has[syscall.Errno](err)):
		return err // a disk's failure, not the client's
	default:
		r.Status, r.Hint = http.StatusBadRequest, "send the bundle again; what was written stays, and the transfer goes on from there"
	}
	if r.Status == http.StatusConflict && r.Update == nil {
		if rec, err := u.Status(); err == nil {
			r.Update = u.describe(rec)
		}
	}
	return r
}

func has[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// Try implements [api.Upgrades]. The work is done in the background, because the client's connection does not live through it.
func (u *upgrades) Try() error {
	rec, err := u.Status()
	if err != nil {
		return err
	}
	if rec.Upgrade.State != update.Written {
		return &api.Refusal{Status: http.StatusConflict, Err: fmt.Errorf("there is nothing to try: %v", rec.Upgrade),
			Hint: "upgrade first", Update: u.describe(rec)}
	}
	if !u.claim() {
		return nil // it is under way
	}
	go u.claimed(context.Background())
	return nil
}

// errTrying is for one who comes second.
var errTrying = errors.New("an upgrade is about to be tried")

// tryNow is Try for those who wait for it: when it returns nil the machine is about to restart.
func (u *upgrades) tryNow(ctx context.Context) error {
	if !u.claim() {
		return errTrying
	}
	return u.claimed(ctx)
}

// claim is true for the only one who may try.
func (u *upgrades) claim() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.trying {
		return false
	}
	u.trying, u.failed = true, nil
	u.setActivity("", "draining the node")
	return true
}

func (u *upgrades) claimed(ctx context.Context) error {
	err := u.try(ctx)
	if err != nil {
		err = fmt.Errorf("the upgrade is written, but not tried: %w", err)
		slog.Error(err.Error())
		u.mu.Lock()
		u.trying, u.failed = false, err
		u.setActivity("", "")
		u.mu.Unlock()
	}
	return err
}

// Fetch implements [api.Upgrades].
func (u *upgrades) Fetch() error {
	if u.asked == nil {
		return &api.Refusal{Status: http.StatusConflict, Err: errors.New("the configuration names no URL to fetch upgrades from"), Hint: "set skerry.update.url, or send a bundle"}
	}
	select {
	case u.asked <- struct{}{}:
	default: // somebody has asked already
	}
	return nil
}

// drainTimeout is how long a drain may take in all, in which pod disruption budgets are respected.
const drainTimeout = 3 * time.Minute

func (u *upgrades) try(ctx context.Context) error {
	draining, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := u.drain(draining); err != nil {
		// The pods that are left are stopped with the machine, in order.
		slog.Warn("the node is not drained entirely", "reason", err)
	}
	u.doing("installing the boot image")
	if err := u.Updater.Try(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		return errors.Join(err, u.undrain(ctx))
	}
	u.doing("restarting")
	return u.reboot()
}

// Commit implements [api.Upgrades].
func (u *upgrades) Commit() error {
	if err := u.Updater.Commit(); err != nil {
		return u.refusal(err)
	}
	return nil
}

// Rollback implements [api.Upgrades].
func (u *upgrades) Rollback(reason string) error {
	if err := u.Updater.Rollback(reason); err != nil {
		return u.refusal(err)
	}
	if err := owe(oweOutcome); err != nil {
		slog.Warn("Kubernetes is not told of the rollback", "reason", err)
	}
	return nil
}
