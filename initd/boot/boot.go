// Package boot is the boot sequence as data: one table that a person reads whole and `skerry explain --boot` prints, and
// the runner that carries it out and writes the timeline.
//
// The table holds no code. Process 1 binds an [Action] to each step's name, so that the table can be printed on a
// workstation that could not run it.
package boot

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"time"
)

// A Stage says from which root file system a step runs.
type Stage string

const (
	// Initramfs is the kernel's own archive: all that is there before the root file system is.
	Initramfs Stage = "initramfs"
	// Root is the verified root file system.
	Root Stage = "root"
)

// A Policy says what a failed step means.
type Policy string

const (
	// Reboot: without this step the machine is of no use. It says why, waits and restarts; the boot loader counts the
	// attempt and falls back to the other slot when there are no more.
	Reboot Policy = "reboot"
	// Degrade: the machine is of use without it. The problem is shown and the boot goes on.
	Degrade Policy = "go on"
)

// Unlimited is the limit of a step that has a deadline of its own.
const Unlimited time.Duration = 0

// usual is the limit of steps that take seconds: far more than a slow card needs, and still an end.
const usual = 10 * time.Minute

// A Step is one row of the table.
type Step struct {
	Name      string
	Stage     Stage
	OnFailure Policy
	// Limit is how long the step may take. One that takes longer is stuck, most likely in the kernel: the machine restarts whatever
	// the policy, since nobody knows what the step still does. So it does when a step panics.
	Limit time.Duration
	// Doc says what the step does, in a sentence.
	Doc string
}

// Table returns the boot sequence, in order.
func Table() []Step {
	return []Step{
		{"mounts", Initramfs, Reboot, usual, "mount proc, sysfs, devtmpfs and a tmpfs for /run"},
		{"modules", Initramfs, Reboot, usual, "load the watchdog's driver first and start it; load what leads to the root file system, and begin to load drivers of the devices that there are"},
		{"clock-floor", Initramfs, Degrade, usual, "set the clock to the time of the build if it is earlier"},
		{"slot", Initramfs, Reboot, usual, "read from the kernel command line which slot was booted"},
		{"disk", Initramfs, Reboot, usual, "wait for the disk that the firmware booted"},
		{"verity", Initramfs, Reboot, usual, "protect the slot's root partition by its hash tree"},
		{"root", Initramfs, Reboot, usual, "mount the root file system read-only and go on from there"},

		{"system-mounts", Root, Reboot, usual, "mount devpts, shm, cgroup v2 and the other kernel file systems; share mounts with containers"},
		{"kernel-settings", Root, Degrade, usual, "set the sysctls that containers, forwarding and panics need"},
		{"drivers", Root, Degrade, usual, "begin to load modules for Kubernetes and drivers, also for devices that appear later"},
		{"watchdog", Root, Degrade, usual, "start the watchdog, fed only while process 1 supervises: of the hardware, or else the kernel's"},
		{"data", Root, Reboot, 90 * time.Minute, "make the data partition on first boot, grow it to the disk's end, check it, mount it on /var"},
		{"boot-partition", Root, Degrade, usual, "mount the firmware's partition read-only on /boot"},
		{"reset", Root, Degrade, time.Hour, "delete what somebody has asked to delete before the restart"},
		{"etc", Root, Reboot, usual, "lay a writable /etc in memory over the image's"},
		{"identity", Root, Reboot, usual, "read the machine's identity, or make it once"},
		{"clock", Root, Degrade, usual, "set the clock to when the machine last ran if it is earlier"},
		{"upgrade", Root, Reboot, time.Hour, "see whether a new version is on trial or was rolled back; keep or restore the datastore"},
		{"config", Root, Degrade, usual, "read the configuration from boot partition and image; set the hostname"},
		{"network", Root, Degrade, usual, "bring up loopback and wired links; addresses follow while the boot goes on"},
		{"time", Root, Degrade, usual, "keep the clock by NTP, in the background"},
		{"services", Root, Reboot, usual, "when all modules are loaded, start containerd, Kubernetes and the device API"},
		{"healthy", Root, Degrade, Unlimited, "wait until all services are ready"},
		{"mark-good", Root, Reboot, usual, "tell the boot loader that this slot works; a new slot that does not gives way to the other one"},
	}
}

// An Action does the work of a step.
type Action func(ctx context.Context) error

// A Record is a step's line in the timeline. Times are since the kernel started.
type Record struct {
	Step
	Start, End time.Duration
	Err        error
}

// A Runner carries the steps of one stage out.
type Runner struct {
	// Actions are bound by the step's name.
	Actions map[string]Action
	// Uptime is the clock of the timeline.
	Uptime func() time.Duration
	// Begin is told of each step before it runs, Done after.
	Begin func(Step)
	Done  func(Record)
}

// Run runs the steps of stage in order. It stops at the first failure of a step whose policy is Reboot, and returns
// that error; of the others Done has heard. A step without an action, or an action without a step, is an error before
// anything runs.
func (r *Runner) Run(ctx context.Context, steps []Step, stage Stage) error {
	if err := r.check(steps, stage); err != nil {
		return err
	}
	for _, s := range steps {
		if s.Stage != stage {
			continue
		}
		r.Begin(s)
		rec := Record{Step: s, Start: r.Uptime()}
		var lost bool
		rec.Err, lost = r.act(ctx, s)
		rec.End = r.Uptime()
		r.Done(rec)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if rec.Err != nil && (lost || s.OnFailure == Reboot) {
			return fmt.Errorf("boot step %s failed: %w", s.Name, rec.Err)
		}
	}
	return nil
}

// act carries out a step. lost says that it did not come to its own end: it is stuck, or it panicked, and what it has left behind is
// anybody's guess.
func (r *Runner) act(ctx context.Context, s Step) (err error, lost bool) {
	ended := make(chan error, 1) // a stuck action ends some day, or never
	panicked := make(chan error, 1)
	go func() {
		defer func() {
			if e := recover(); e != nil {
				panicked <- fmt.Errorf("init panicked: %v\n%s", e, debug.Stack())
			}
		}()
		ended <- r.Actions[s.Name](ctx)
	}()
	select {
	case err := <-ended:
		return err, false
	case err := <-panicked:
		return err, true
	case <-after(s.Limit):
		return fmt.Errorf("it has not ended within %v", s.Limit), true
	}
}

// after is [time.After], or never for no limit.
func after(limit time.Duration) <-chan time.Time {
	if limit == Unlimited {
		return nil
	}
	return time.After(limit)
}

func (r *Runner) check(steps []Step, stage Stage) error {
	unbound := maps.Clone(r.Actions)
	for _, s := range steps {
		if s.Stage != stage {
			continue
		}
		if r.Actions[s.Name] == nil {
			return fmt.Errorf("boot step %s has no action", s.Name)
		}
		delete(unbound, s.Name)
	}
	for name := range unbound {
		return fmt.Errorf("action %s is bound to no boot step of stage %s", name, stage)
	}
	return nil
}
