package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/update"
	"github.com/skerryos/skerry/initd/update/updatetest"
)

// onTrial is a machine that has booted version 2 on trial, and is about to be marked good.
func onTrial(t *testing.T) (*root, *updatetest.Device) {
	t.Helper()
	b := newBench(t)
	if err := b.upload(t, updatetest.Bundle(t, "2", updatetest.Owner, nil), 0, false); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Updater.Try(), b.device.PowerOn()); err != nil {
		t.Fatal(err)
	}
	r := processOne(t, b.device)
	if verdict, err := r.updater.AtBoot(""); verdict != update.Trial || err != nil {
		t.Fatal(verdict, err)
	}
	r.trial.Store(true)
	r.leave("booted so far")
	return r, b.device
}

// processOne is process 1 of a device.
func processOne(t *testing.T, d *updatetest.Device) *root {
	t.Helper()
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nowhere.Close() })
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &console{kmsg: nowhere, ttys: []*os.File{nowhere}}
	p := &process{console: c, state: newState(c), disk: &machine.BlockDevice{Path: disk}, cmdline: commandLine{slot: d.Running.Slot, version: d.Running.Version}}
	return &root{process: p, slots: d.Slots, updater: d.Updater()}
}

func TestMarkGood(t *testing.T) {
	sick, full := errors.New("check shop: HTTP 503"), errors.New("no space left")
	for _, c := range []struct {
		name string
		do   func(*root, *updatetest.Device) error
		want string
	}{
		{"healthy", func(*root, *updatetest.Device) error { return nil },
			"<nil>; upgrade to version 2 in slot b: committed; good true, trial false, words false"},
		{"not healthy", func(r *root, _ *updatetest.Device) error { r.unhealthy = sick; return nil },
			"slot b on trial: check shop: HTTP 503; slot a is booted again; upgrade to version 2 in slot b: rolled back, check shop: HTTP 503; good false, trial true, words true"},
		{"not healthy, and a person keeps it", func(r *root, _ *updatetest.Device) error { r.unhealthy = sick; return r.updater.Commit() },
			"<nil>; upgrade to version 2 in slot b: committed; good true, trial false, words false"},
		{"cannot be marked good", func(_ *root, d *updatetest.Device) error { d.Slots.OnStep(func() error { return full }); return nil },
			"slot b on trial: cannot mark slot b good: no space left; it is tried again, 2 times at most, before slot a is; upgrade to version 2 in slot b: rolled back, cannot mark slot b good: no space left; good false, trial true, words true"},
		{"cannot be noted", func(_ *root, d *updatetest.Device) error { d.Store.OnStep = func() error { return full }; return nil },
			"<nil>; upgrade to version 2 in slot b: trying; good true, trial false, words false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, d := onTrial(t)
			if err := c.do(r, d); err != nil {
				t.Fatal(err)
			}
			err := r.markGood(t.Context())
			rec, rerr := r.updater.Status()
			mine, serr := d.Slots.Status("b")
			words, werr := r.lastWords().Read()
			if err := errors.Join(rerr, serr, werr); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%v; %v; good %v, trial %v, words %v", err, rec.Upgrade, mine.Good, r.trial.Load(), words != machine.Words{}); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// A slot that there is no other one for stays up, whatever is wrong with it.
func TestMarkGoodOfTheOnlySlot(t *testing.T) {
	d := updatetest.NewDevice("1")
	if err := d.PowerOn(); err != nil {
		t.Fatal(err)
	}
	r := processOne(t, d)
	r.unhealthy = errors.New("not ready")
	if err := r.markGood(t.Context()); err != nil {
		t.Error(err)
	}
	if mine, err := d.Slots.Status("a"); err != nil || mine.Good {
		t.Errorf("%+v, %v", mine, err)
	}
}

// A first boot that takes longer than it may, because an agent's server is not there yet, is a good one all the same.
func TestMarkGoodLater(t *testing.T) {
	for _, c := range []struct {
		name string
		wait error
		want string
	}{
		{"up at last", nil, "good true, problems []"},
		{"never up", errors.New("services failed"), "good false, problems [healthy: not ready]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := updatetest.NewDevice("1")
			if err := d.PowerOn(); err != nil {
				t.Fatal(err)
			}
			r := processOne(t, d)
			text := stepProblem("healthy", errors.New("not ready"))
			r.problem(text)
			r.markGoodLater(t.Context(), func(context.Context) error { return c.wait }, text)
			mine, err := d.Slots.Status("a")
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("good %v, problems %v", mine.Good, r.state.now.Problems); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// What was said of a slot that was good before is taken back, too, however many lines it had.
func TestHealthyLater(t *testing.T) {
	for _, c := range []struct {
		wait error
		want string
	}{
		{nil, "[]"},
		{errors.New("services failed"), "[healthy: not ready; after 15m]"},
	} {
		d := updatetest.NewDevice("1")
		if err := d.PowerOn(); err != nil {
			t.Fatal(err)
		}
		r := processOne(t, d)
		text := stepProblem("healthy", errors.New("not ready\nafter 15m"))
		r.problem(text)
		r.healthyLater(t.Context(), func(context.Context) error { return c.wait }, text)
		if got := fmt.Sprint(r.state.now.Problems); got != c.want {
			t.Errorf("problems are %s, want %s", got, c.want)
		}
	}
}

// Only what has come to an end is reported; a node that was drained for nothing takes pods again.
func TestReportOf(t *testing.T) {
	for _, c := range []struct {
		up   update.Upgrade
		owed string
		want string
	}{
		{update.Upgrade{State: update.Committed, Version: "2", From: "1"}, oweOutcome, `["report" "--state" "committed" "--version" "2" "--from" "1" "--reason" ""]`},
		{update.Upgrade{State: update.RolledBack, Version: "2", From: "1", Reason: "a\x00b\n\xffé"}, oweOutcome, `["report" "--state" "rolled back" "--version" "2" "--from" "1" "--reason" "a b é"]`},
		{update.Upgrade{State: update.Written, Version: "2", From: "1"}, oweOutcome, `["uncordon"]`},
		{update.Upgrade{State: update.Idle}, oweOutcome, `["uncordon"]`},
		{update.Upgrade{State: update.Committed, Version: "2", From: "1"}, oweUncordon, `["uncordon"]`},
	} {
		if got := fmt.Sprintf("%q", reportOf(c.up, c.owed)); got != c.want {
			t.Errorf("%v: got %s, want %s", c.up, got, c.want)
		}
	}
}
