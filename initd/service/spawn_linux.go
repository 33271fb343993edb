package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// spawn starts the unit's process. The error says what could not be done; nothing is left running then.
func (r *runner) spawn() (*process, error) {
	u, options := r.unit, r.supervisor.options
	env, err := u.environ(options.Environ)
	if err != nil {
		return nil, err
	}
	args, err := expand(u.ExecStart, env)
	if err != nil {
		return nil, fmt.Errorf("cannot expand the command line of %s: %w", u.Path, err)
	}
	group, err := options.Groups.Group(u)
	if err != nil {
		return nil, err
	}
	if u.Type == Notify {
		if err := r.listen(); err != nil {
			return nil, err
		}
		env = append(env, "NOTIFY_SOCKET="+r.socket.path)
		if u.WatchdogSec > 0 {
			// WATCHDOG_PID is left out: the number is not known yet, and without it the variable holds for whoever reads it.
			env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(u.WatchdogSec.Microseconds(), 10))
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe for the output: %w", err)
	}
	// Not exec.Command: a path is absolute here, and PATH of this process is none of the unit's business.
	cmd := &exec.Cmd{Path: args[0], Args: args, Env: env, Dir: "/", Stdout: write, Stderr: write, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	release, err := group.Place(cmd)
	if err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	p := &process{runner: r, cmd: cmd, group: group, oomKills: group.OOMKills(), started: time.Now(), over: make(chan struct{})}
	err = withLimit(u.LimitNOFILE, func() (err error) {
		p.exited, err = options.Spawner.Start(cmd)
		return err
	})
	release()
	write.Close()
	if err != nil {
		read.Close()
		return nil, fmt.Errorf("cannot start %s: %w", args[0], err)
	}
	p.main = direct{cmd.Process}
	p.output = &output{}
	p.output.to(options.Output(u.Name))
	go func() {
		defer read.Close()
		// It ends when the last process that holds the other end does, which with KillMode=process can be long after the unit.
		if _, err := io.Copy(p.output, read); err != nil {
			r.log().Error("cannot keep the output of the unit", "error", err)
			_, _ = io.Copy(io.Discard, read) // a full pipe would block the service
		}
	}()
	if u.OOMScoreAdjust != nil {
		path := fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid)
		if err := os.WriteFile(path, []byte(strconv.Itoa(*u.OOMScoreAdjust)), 0o644); err != nil && !errors.Is(err, syscall.ESRCH) && !os.IsNotExist(err) {
			r.log().Warn("cannot set OOMScoreAdjust", "error", err)
		}
	}
	return p, nil
}

// output is where a process writes to, which can change.
type output struct{ w atomic.Pointer[io.Writer] }

func (o *output) to(w io.Writer) { o.w.Store(&w) }

func (o *output) Write(b []byte) (int, error) { return (*o.w.Load()).Write(b) }

// listen makes the unit's notification socket on its first start; it lives as long as the supervisor does.
func (r *runner) listen() error {
	if r.socket != nil {
		return nil
	}
	socket, err := listenNotify(r.supervisor.options.NotifyDir, r.unit.Name)
	if err != nil {
		return err
	}
	r.socket = socket
	go func() {
		<-r.done
		socket.close()
	}()
	go func() {
		for {
			m, err := socket.receive()
			if err != nil {
				return
			}
			select {
			case r.messages <- m:
			case <-r.done:
				return
			}
		}
	}()
	return nil
}

func (r *runner) log() *slog.Logger { return r.supervisor.options.Logger.With("unit", r.unit.Name) }

var limitMu sync.Mutex

// withLimit starts a process with another limit of open files, by changing this process's own for that moment: a child
// inherits it, and there is no time in which it runs with the wrong one. Setting it afterwards (prlimit) would race with
// the runtime of a Go program, which raises its soft limit as it starts.
func withLimit(l *Limit, start func() error) error {
	if l == nil {
		return start()
	}
	limitMu.Lock()
	defer limitMu.Unlock()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		return fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
		return fmt.Errorf("cannot set LimitNOFILE to %d:%d: %w", l.Soft, l.Hard, err)
	}
	err := start()
	// A failure to go back would leave this process with another limit, which does it no harm: what was started counts.
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	return err
}

// mayReport says whether a message may come from the process with this number: the main process, or one of the unit's group.
func (p *process) mayReport(pid int) bool { return pid == p.main.pid() || p.group.Contains(pid) }
