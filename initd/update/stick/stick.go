// Package stick upgrades the device from a disk that somebody plugs in: the newest bundle for this device in its top folder is
// written and handed over, like one from the network.
//
// It happens once for each disk and bundle, which is remembered across restarts: a disk that is left in would otherwise fight with
// upgrades from elsewhere for ever. What bundles are accepted is for package update to say; the disk itself is trusted with
// nothing. How disks are found and mounted is main's business.
package stick

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/skerryos/skerry/initd/update"
)

// A Volume is a file system on a removable disk.
type Volume struct {
	// ID tells it from all others, also after a restart. Name is for people, such as "/dev/sda1".
	ID, Name string
	// Open makes its files readable, read-only, until close is called.
	Open func() (files fs.FS, close func() error, err error)
}

// A Config is what a Watcher needs.
type Config struct {
	// Volumes lists what is plugged in now. Changed tells that it may be another list; nil or closed is never.
	Volumes func() ([]Volume, error)
	Changed <-chan struct{}
	Updater *update.Updater
	// Memory keeps which bundles were taken from which volumes.
	Memory update.Store
	// Written is called when a bundle is written and may be tried. When it returns nil the machine is about to restart, and
	// Run ends.
	Written func(context.Context) error
	// Report is called with each change of the status, from the goroutine of Run. It may be nil.
	Report func(Status)
	// Sleep is for tests; nil is the real one.
	Sleep func(context.Context, time.Duration) error
}

// A Status is what a watcher does, for people.
type Status struct {
	// Activity is empty while nothing is done.
	Activity string
	// Problem is what is wrong and what to do, as long as the disk is plugged in. Note is what was seen on it and needs nobody.
	Problem, Note string
}

// A Watcher is made by New.
type Watcher struct {
	Config
	status Status
	// looked is what was found on the volumes that are plugged in, by their ID.
	looked map[string]finding
}

// A finding is what is told of a volume as long as it is plugged in.
type finding struct{ problem, note string }

// New makes a Watcher that does nothing yet.
func New(c Config) *Watcher {
	if c.Report == nil {
		c.Report = func(Status) {}
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	return &Watcher{Config: c, looked: map[string]finding{}}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const (
	// settle is how long a disk has to show its partitions after the first of it was seen.
	settle = 2 * time.Second
	// again is when to look again after somebody else was upgrading the device, or a list could not be had.
	again = time.Minute
)

// Run watches until a bundle was handed over, with nil, or ctx is done.
func (w *Watcher) Run(ctx context.Context) error {
	changed := w.Changed
	for {
		handedOver, later := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case handedOver:
			return nil
		case later:
			if err := w.Sleep(ctx, again); err != nil {
				return err
			}
			continue
		}
		select {
		case _, ok := <-changed:
			if !ok {
				changed = nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := w.Sleep(ctx, settle); err != nil {
			return err
		}
	}
}

// look looks at the volumes that are new. later: it must be done again soon.
func (w *Watcher) look(ctx context.Context) (handedOver, later bool) {
	volumes, err := w.Volumes()
	if err != nil {
		w.tell(Status{Problem: fmt.Sprintf("cannot look for removable disks: %v", err)})
		return false, true
	}
	for id := range w.looked {
		if !slices.ContainsFunc(volumes, func(v Volume) bool { return v.ID == id }) {
			delete(w.looked, id)
		}
	}
	for _, v := range volumes {
		if _, done := w.looked[v.ID]; done {
			continue
		}
		w.doing("looking for a bundle on " + v.Name)
		found, handedOver, err := w.take(ctx, v)
		if handedOver || ctx.Err() != nil {
			return handedOver, false
		}
		if _, busy := errors.AsType[*update.BusyError](err); busy {
			later = true
			continue
		}
		if err != nil {
			found.problem = fmt.Sprintf("no upgrade from %s: %v", v.Name, err)
		}
		w.looked[v.ID] = found
	}
	w.doing("")
	return false, later
}

func (w *Watcher) doing(activity string) {
	var problems, notes []string
	ids := make([]string, 0, len(w.looked))
	for id := range w.looked {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if f := w.looked[id]; f.problem != "" {
			problems = append(problems, f.problem)
		}
		if f := w.looked[id]; f.note != "" {
			notes = append(notes, f.note)
		}
	}
	w.tell(Status{activity, strings.Join(problems, "; "), strings.Join(notes, "; ")})
}

func (w *Watcher) tell(s Status) {
	if s != w.status {
		w.status = s
		w.Report(s)
	}
}
