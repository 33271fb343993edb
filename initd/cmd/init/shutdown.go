package main

import (
	"context"
	"errors"
	"time"

	"github.com/skerryos/skerry/initd/machine"
)

const (
	// stopTimeout bounds the stop of the services together, podGrace that of the pods, remainderGrace what is left.
	stopTimeout    = 60 * time.Second
	podGrace       = 15 * time.Second
	remainderGrace = 3 * time.Second
	// syncTimeout is how long a disk may take to write what is left, after everything on it was unmounted.
	syncTimeout = 20 * time.Second
	// shutdownTimeout is the end of all patience: then the power goes anyway.
	shutdownTimeout = 3 * time.Minute
)

// teardown is the way down, in order; each row is tried whatever became of those before it. The services stop before the
// pods, or Kubernetes would start those again; pods live on without them until their own turn comes. The data partition is
// unmounted when nobody writes to it any more.
func (r *root) teardown(why ending) []struct {
	name string
	do   func(context.Context) error
} {
	return []struct {
		name string
		do   func(context.Context) error
	}{
		{"stopping services", func(ctx context.Context) error { return r.stopServices(ctx) }},
		{"stopping pods", func(ctx context.Context) error {
			return machine.StopGroup(ctx, cgroupRoot+"/kubepods", podGrace)
		}},
		{"stopping what is left", func(ctx context.Context) error {
			return machine.StopGroup(ctx, cgroupRoot+"/system", remainderGrace)
		}},
		{"saving logs and clock", func(context.Context) error { return errors.Join(r.saveLogs(why), r.saveClock()) }},
		{"unmounting file systems", func(context.Context) error {
			var failed []error
			for _, dir := range []string{"/run/netns", runDir, "/var", bootDir} {
				failed = append(failed, machine.UnmountBelow(dir))
			}
			machine.SyncAll(syncTimeout)
			return errors.Join(failed...)
		}},
	}
}

// An ending says why the machine stops: what it leaves for those who ask later depends on it.
type ending bool

const (
	asked   ending = false
	crashed ending = true
)

// stop carries the way down out as far as it goes.
func (r *root) stop(reason string, why ending) {
	r.state.stopping(reason)
	if r.trial.Load() && why == asked {
		r.leave("the machine was asked to stop before it was healthy")
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	for _, step := range r.teardown(why) {
		r.state.progress(step.name)
		if err := step.do(ctx); err != nil {
			r.logf("%s: %v", step.name, err)
		}
	}
}

// shutdown stops everything in order and then restarts the machine, or switches it off.
func (r *root) shutdown(powerOff bool) {
	// Where a step hangs in the kernel, the power goes all the same.
	time.AfterFunc(shutdownTimeout+remainderGrace, func() { end(powerOff) })
	if powerOff {
		r.stop("powering off", asked)
	} else {
		r.stop("restarting", asked)
	}
	r.logf("the machine is stopped")
	end(powerOff)
	r.fail(errors.New("the kernel did not end the machine"))
}

func end(powerOff bool) {
	if powerOff {
		_ = machine.PowerOff()
	}
	_ = machine.Reboot()
}
