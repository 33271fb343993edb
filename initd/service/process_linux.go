package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// traceSuffix is added to the name of a unit for the log with the trace of a process that hung.
const traceSuffix = "-trace"

const (
	// abortWait is how long a process that hangs gets to write a trace of itself after SIGABRT.
	abortWait = 5 * time.Second
	// killWait is how long to wait for processes after SIGKILL. One that sits in the kernel on broken hardware can live
	// longer; nothing more can be done about it, and waiting would hold up the device's shutdown.
	killWait = 10 * time.Second
	// forever is the time of a limit that is none.
	forever = 365 * 24 * time.Hour
)

// result is how one process of a unit came to its end.
type result struct {
	ending  ending
	reason  string
	ran     time.Duration
	stopped bool // because the unit was to stop
	byHand  bool // because a restart was ordered
	blocked bool // it was not started: a condition does not hold
}

// blocked looks at what must exist before the unit is started.
func (u *Unit) blocked() (result, bool) {
	for _, list := range []struct {
		paths  []Path
		ending ending
	}{{u.Conditions, endedWell}, {u.Asserts, endedWithCode}} {
		for _, p := range list.paths {
			_, err := os.Lstat(p.Path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				// Nobody knows, so it is tried again as after a failure: the disk may come back.
				return result{ending: endedWithCode, reason: fmt.Sprintf("not started, because nobody can tell whether %s exists: %v", p.Path, err)}, true
			}
			if exists := err == nil; exists == p.Absent {
				verb := "does not exist"
				if exists {
					verb = "exists"
				}
				return result{ending: list.ending, reason: fmt.Sprintf("not started, because %s %s", p.Path, verb), blocked: true}, true
			}
		}
	}
	return result{}, false
}

// process is one running incarnation of a unit.
type process struct {
	runner   *runner
	cmd      *exec.Cmd
	group    Group
	oomKills int // of the group before the start
	started  time.Time

	main   mainProcess
	exited <-chan syscall.WaitStatus // of the process that was started
	gone   <-chan struct{}           // of a main process that the unit named itself; nil while there is none
	over   chan struct{}             // closed when this incarnation has come to its end
	output *output
	ready  bool
}

// once runs the unit's process from start to end.
func (r *runner) once() result {
	p, err := r.spawn()
	if err != nil {
		return result{ending: endedWithCode, reason: err.Error()}
	}
	defer func() {
		close(p.over)
		_ = p.cmd.Process.Release()
	}()
	result := p.watch()
	p.sweep(0)
	result.ran = time.Since(p.started)
	if result.ending == endedBySignal && p.group.OOMKills() > p.oomKills {
		result.reason += ": out of memory"
	}
	return result
}

// timer is a time limit that may be off.
type timer struct{ t *time.Timer }

func (t *timer) set(d time.Duration) {
	t.off()
	if d > 0 {
		t.t = time.NewTimer(d)
	}
}

func (t *timer) off() {
	if t.t != nil {
		t.t.Stop()
	}
	t.t = nil
}

func (t *timer) expired() <-chan time.Time {
	if t.t == nil {
		return nil
	}
	return t.t.C
}

// watch follows the process until it has ended.
func (p *process) watch() result {
	r, u := p.runner, p.runner.unit
	var start, dog timer
	defer start.off()
	defer dog.off()
	p.ready = u.Type == Simple
	state := Starting
	if p.ready {
		state = Ready
	} else {
		start.set(u.TimeoutStartSec)
	}
	r.set(func(s *Status) {
		s.State, s.PID, s.Text, s.NextStart = state, p.main.pid(), "", time.Time{}
		s.attempted = s.attempted || p.ready
	})
	for {
		select {
		case status := <-p.exited:
			p.exited = nil
			if p.gone == nil && !p.handedOver(&start, &dog) {
				return p.ended(status)
			}
		case <-p.gone:
			return result{ending: endedWell, reason: "the main process that the service named has ended"}
		case m := <-r.messages:
			hung := p.handle(m, &start, &dog)
			if hung {
				return p.hung("it reports that it hangs")
			}
		case <-start.expired():
			p.terminate(u.KillSignal, u.TimeoutStopSec)
			return result{ending: endedInTime, reason: fmt.Sprintf("it was not ready after %v", u.TimeoutStartSec)}
		case <-dog.expired():
			reason := fmt.Sprintf("it gave no sign of life for %v", u.WatchdogSec)
			r.set(func(s *Status) {
				if s.Text != "" {
					reason += "; the last that it said: " + s.Text
				}
			})
			return p.hung(reason)
		case <-r.restart:
			r.set(func(s *Status) { s.State = Stopping })
			p.terminate(u.KillSignal, u.TimeoutStopSec)
			return result{byHand: true}
		case <-r.stop:
			r.set(func(s *Status) { s.State = Stopping })
			r.killed = p.terminate(u.KillSignal, u.TimeoutStopSec)
			return result{stopped: true}
		}
	}
}

// handedOver handles what the process said before its end and is still under way, and says whether it has named another main process.
func (p *process) handedOver(start, dog *timer) bool {
	r := p.runner
	if r.socket == nil {
		return false
	}
	marked := make(chan error, 1)
	go func() { marked <- r.socket.mark() }() // it waits while the socket is full
	for {
		select {
		case m := <-r.messages:
			if m.mark {
				return p.gone != nil
			}
			p.handle(m, start, dog)
		case err := <-marked:
			if err != nil {
				r.log().Warn("cannot tell whether the process has said something before its end", "error", err)
				return false
			}
			marked = nil
		case <-r.stop:
			return p.gone != nil
		}
	}
}

func (p *process) ended(status syscall.WaitStatus) result {
	ending, reason := endingOf(status)
	if ending == endedWell && p.runner.unit.Type == Notify && !p.ready {
		ending, reason = endedWithCode, reason+" before it was ready"
	}
	return result{ending: ending, reason: reason}
}

// hung ends a process that does not work any more. SIGABRT lets it write where it stands: Go programs print all goroutines.
func (p *process) hung(reason string) result {
	p.runner.log().Error("unit hangs and is ended", "reason", reason)
	// A trace can be longer than a log, and what the service wrote before tells why it hangs.
	p.output.to(p.runner.supervisor.options.Output(p.runner.unit.Name + traceSuffix))
	p.terminate(syscall.SIGABRT, abortWait)
	return result{ending: endedByDog, reason: reason}
}

// handle applies a message of the unit.
func (p *process) handle(m message, start, dog *timer) (hung bool) {
	r := p.runner
	if m.mark { // of an earlier process
		return false
	}
	if !p.mayReport(m.pid) {
		r.log().Warn("message of a process that is not of the unit was dropped", "pid", m.pid)
		return false
	}
	if m.mainPID != 0 && m.mainPID != p.main.pid() {
		p.follow(m.mainPID)
	}
	if m.extend > 0 && !p.ready {
		start.set(m.extend)
	}
	if m.ready && !p.ready {
		p.ready = true
		start.off()
		dog.set(r.unit.WatchdogSec)
		r.log().Info("unit is ready", "after", time.Since(p.started).Round(time.Millisecond))
	}
	if m.alive && p.ready {
		dog.set(r.unit.WatchdogSec)
	}
	r.set(func(s *Status) {
		s.PID = p.main.pid()
		if m.status != nil {
			s.Text = *m.status
		}
		if p.ready {
			s.State, s.attempted = Ready, true
		}
		if m.stopping {
			s.State = Stopping
		}
	})
	return m.hung
}

// follow takes another process of the group as the main process from now on.
func (p *process) follow(pid int) {
	if !p.group.Contains(pid) {
		p.runner.log().Warn("the service named a main process that is not of the unit", "pid", pid)
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		p.runner.log().Warn("cannot follow the main process that the service named", "pid", pid, "error", err)
		return
	}
	gone := make(chan struct{})
	go func() {
		for {
			// A pidfd becomes readable when its process has ended (pidfd_open(2)).
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		close(gone)
		<-p.over // until then, signals go through the descriptor
		_ = unix.Close(fd)
	}()
	p.main, p.gone = named{fd, pid}, gone
}

// terminate ends the unit's processes as its kill mode says and returns when they have ended. forced says that SIGKILL was
// needed, because the time was over or the device shuts down at once.
func (p *process) terminate(sig syscall.Signal, grace time.Duration) (forced bool) {
	u := p.runner.unit
	var err error
	if u.KillMode == KillControlGroup && sig != syscall.SIGABRT {
		err = p.group.Signal(sig)
	} else {
		err = p.main.signal(sig)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.runner.log().Warn("cannot signal the unit", "signal", sig, "error", err)
	}
	begun := time.Now()
	var limit timer
	limit.set(grace)
	defer limit.off()
	if p.awaitMain(&limit, p.runner.kill) {
		switch {
		case u.KillMode != KillControlGroup || sig == syscall.SIGABRT:
			p.sweep(0) // that the rest is killed is what was asked for
			return false
		case grace == 0:
			return p.sweep(forever)
		}
		return p.sweep(max(0, grace-time.Since(begun)))
	}
	if u.KillMode == KillProcess {
		err = p.main.signal(syscall.SIGKILL)
	} else {
		err = p.group.Kill()
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.runner.log().Error("cannot kill the unit", "error", err)
	}
	limit.set(killWait)
	if !p.awaitMain(&limit, nil) {
		p.runner.log().Error("the unit's main process lives on after SIGKILL: it hangs in the kernel", "pid", p.main.pid())
	}
	return true
}

// awaitMain returns true when the main process has ended, false when the time is over or hurry is closed.
func (p *process) awaitMain(limit *timer, hurry <-chan struct{}) bool {
	for {
		select {
		case <-p.exited:
			p.exited = nil
			if p.gone == nil {
				return true
			}
		case <-p.gone:
			return true
		case m := <-p.runner.messages:
			// It may still say what it is doing, and may ask for more time.
			if !p.mayReport(m.pid) {
				continue
			}
			if m.extend > 0 {
				limit.set(m.extend)
			}
			if m.status != nil {
				p.runner.set(func(s *Status) { s.Text = *m.status })
			}
		case <-limit.expired():
			return false
		case <-hurry:
			return false
		}
	}
}

// sweep ends what the main process left behind, after giving it so much time to end by itself; with KillMode=process
// nothing is touched. It returns true when something had to be killed.
func (p *process) sweep(grace time.Duration) (forced bool) {
	if p.runner.unit.KillMode == KillProcess {
		return false
	}
	empty := make(chan bool, 1)
	go func() { empty <- p.group.AwaitEmpty(grace) }()
	select {
	case gone := <-empty:
		if gone {
			return false
		}
	case <-p.runner.kill:
	}
	if err := p.group.Kill(); err != nil {
		p.runner.log().Error("cannot kill what the unit left behind", "error", err)
	}
	if !p.group.AwaitEmpty(killWait) {
		p.runner.log().Error("processes of the unit live on after SIGKILL: they hang in the kernel")
	}
	return true
}

// mainProcess is the process that stands for the unit. Both kinds hold a file descriptor of it, so that a signal can never
// reach another process that got the same number.
type mainProcess interface {
	pid() int
	signal(sig syscall.Signal) error
}

// direct is the process that was started.
type direct struct{ process *os.Process }

func (d direct) pid() int                        { return d.process.Pid }
func (d direct) signal(sig syscall.Signal) error { return d.process.Signal(sig) }

// named is a process that the unit named by MAINPID=.
type named struct{ fd, number int }

func (n named) pid() int { return n.number }

func (n named) signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(n.fd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}
