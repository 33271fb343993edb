package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/boot"
	"github.com/skerryos/skerry/initd/journal"
	"github.com/skerryos/skerry/initd/machine"
)

const (
	runDir     = "/run/skerry"
	diskFile   = runDir + "/disk"
	bootDir    = "/boot"
	cgroupRoot = "/sys/fs/cgroup"

	// failureDelay is how long a failed boot shows why before it restarts.
	failureDelay = 10 * time.Second
	// watchdogTimeout must survive a machine that is busy with its disk, and still end a hang within minutes: Intel's (iTCO) resets when it
	// has run out twice.
	watchdogTimeout = 60 * time.Second
	// bootStopTimeout is how long a boot step may need to notice that the machine is going down.
	bootStopTimeout = 10 * time.Second
	// logLimit bounds each of the two log files of a unit, in memory.
	logLimit = 1 << 20
)

// process is what both stages share.
type process struct {
	cmdline commandLine
	reaper  *machine.Reaper
	disk    *machine.BlockDevice
	console *console
	state   *state
	// trial: the slot was written by an upgrade and is not committed yet.
	trial atomic.Bool
	// pulse is received by the loop that supervises, in every turn that it is idle.
	pulse chan struct{}
}

// machineMain is process 1. It never returns: the end of it is a restart or the end of power.
func machineMain() {
	p := &process{reaper: machine.NewReaper(), console: newConsole(), pulse: make(chan struct{})}
	p.state = newState(p.console)
	defer func() {
		// A panic on another goroutine ends process 1, and by that the kernel, which then restarts the machine itself.
		if e := recover(); e != nil {
			p.fail(fmt.Errorf("init panicked: %v\n%s", e, debug.Stack()))
		}
	}()
	ctx := context.Background()
	if len(os.Args) > 1 && os.Args[1] == "root" {
		p.fail(p.runRoot(ctx))
	}
	p.fail(p.runInitramfs(ctx))
}

func (p *process) runInitramfs(ctx context.Context) error {
	s := &initramfs{process: p}
	if err := p.run(ctx, boot.Initramfs, s.actions()); err != nil {
		return err
	}
	return s.enter()
}

func (p *process) runRoot(ctx context.Context) error {
	go p.reaper.Run(ctx)
	if err := p.restore(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 4)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGUSR2, powerSignal)
	if err := machine.CatchCtrlAltDel(); err != nil {
		p.problem("ctrl-alt-del restarts the machine without stopping it in order: " + err.Error())
	}
	j, err := journal.New(v1.LogDir, logLimit, machine.Uptime)
	if err != nil {
		return err
	}
	r := &root{process: p, journal: j, slots: newSlots(p.cmdline.loader, p.disk)}
	booting, cancel := context.WithCancel(ctx)
	defer cancel()
	finished := make(chan error, 1)
	go func() {
		defer func() {
			if e := recover(); e != nil {
				finished <- fmt.Errorf("init panicked: %v\n%s", e, debug.Stack())
			}
		}()
		finished <- p.run(booting, boot.Root, r.actions())
	}()
	// end stops the boot sequence, wherever it is, and then the machine.
	end := func(stop func()) {
		cancel()
		// The way down needs the watchdog to be content, too; it is over before shutdownTimeout, or by it.
		go r.beat(shutdownTimeout)
		r.awaitBoot(finished)
		stop()
	}
	repair := make(chan struct{}, 1)
	go r.watchKernel(booting, func() { repair <- struct{}{} })
	buttons := make(chan struct{}, 1)
	go func() {
		if err := machine.PowerButton(booting); err == nil {
			buttons <- struct{}{}
		}
	}()
	for {
		select {
		case err := <-finished:
			finished = nil
			if err != nil {
				end(func() { r.stop("failed: "+firstLine(err), crashed) })
				return err
			}
			p.state.booted()
			go r.watchHealth(booting)
		case s := <-stop:
			end(func() { r.shutdown(s == unix.SIGUSR2 || s == powerSignal) })
		case <-buttons:
			end(func() { r.shutdown(true) })
		case <-repair:
			p.logf("restarting, because the data file system can only be read, and is repaired by a boot")
			end(func() { r.shutdown(false) })
		case <-p.pulse:
		}
	}
}

// powerSignal is SIGRTMIN+4, by which systemd's process 1 is asked to power off; the C library's SIGRTMIN is 34.
const powerSignal = syscall.Signal(38)

// restore takes over what the first stage found out.
func (p *process) restore() (err error) {
	if p.cmdline, err = readCommandLine(); err != nil {
		return err
	}
	p.state.image(p.cmdline)
	p.console.debug = p.cmdline.debug
	slog.SetDefault(p.console.logger())
	p.state.loadTimeline()
	p.disk, err = findDisk()
	return err
}

func (p *process) run(ctx context.Context, stage boot.Stage, actions map[string]boot.Action) error {
	runner := boot.Runner{
		Actions: actions,
		Uptime:  machine.Uptime,
		Begin: func(s boot.Step) {
			p.state.begin(s)
			p.follow(s)
		},
		Done: func(rec boot.Record) {
			p.state.record(rec)
			if rec.Err != nil && rec.OnFailure == boot.Degrade && ctx.Err() == nil {
				p.problem(stepProblem(rec.Name, rec.Err))
			}
		},
	}
	return runner.Run(ctx, boot.Table(), stage)
}

// stepProblem is what is said of a step that failed.
func stepProblem(name string, err error) string { return fmt.Sprintf("%s: %v", name, err) }

func (p *process) saveTimeline()                { p.state.saveTimeline() }
func (p *process) logf(format string, a ...any) { p.console.log(fmt.Sprintf(format, a...)) }
func (p *process) debugf(format string, a ...any) {
	if p.console.debug {
		p.logf(format, a...)
	}
}

// problem keeps something that a person should know, and shows it.
func (p *process) problem(text string) { p.state.problem(text) }

// fail is the end of a boot that cannot go on: it says why, waits long enough to be read, and restarts. The boot loader
// has counted the attempt, so that a slot that never works gives way to the other one.
func (p *process) fail(err error) {
	p.state.failed(err, failureDelay)
	restart := time.After(failureDelay)
	p.leave(lastWordsOf(err))
	machine.SyncAll(failureDelay)
	<-restart
	if err := machine.Reboot(); err != nil {
		panic(err) // ends process 1: the kernel panics and restarts by itself
	}
	select {}
}

// lastWordsOf is what the next boot is to know of a failure.
func lastWordsOf(err error) string {
	if e, ok := errors.AsType[*unhealthyError](err); ok {
		return firstLine(e.reason)
	}
	return firstLine(err)
}

// feed keeps the watchdog content from now on, as long as the loop that supervises gives signs of life and nobody holds
// the state or the supervisor for good. A process 1 that only seems to live is reset.
func (r *root) feed(w *machine.Watchdog) {
	r.logf("watchdog %s resets a machine that hangs for %v", w.Identity, w.Timeout)
	tick := time.NewTicker(w.Timeout / 4)
	defer tick.Stop()
	for range tick.C {
		r.pulse <- struct{}{}
		r.state.alive()
		if s := r.supervisor(); s != nil {
			s.Status()
		}
		if err := w.Feed(); err != nil {
			r.problem(err.Error())
			return
		}
	}
}

// beat gives signs of life for a time, in place of the loop that supervises.
func (p *process) beat(limit time.Duration) {
	over := time.After(limit)
	for {
		select {
		case <-p.pulse:
		case <-over:
			return
		}
	}
}

// awaitBoot waits until the boot sequence has heard that it is over: what it is about to start must not be missed by the
// way down. finished is nil when it has ended before.
func (r *root) awaitBoot(finished <-chan error) {
	if finished == nil {
		return
	}
	select {
	case <-finished:
	case <-time.After(bootStopTimeout):
		r.logf("the boot sequence does not stop; going on without it")
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
