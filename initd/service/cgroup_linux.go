package service

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups are Groups made of control groups (cgroup v2): one below a common parent for each unit. See the kernel's
// Documentation/admin-guide/cgroup-v2.rst.
type Cgroups struct {
	parent string

	mu        sync.Mutex
	memoryMin map[string]uint64 // of each unit
}

// NewCgroups uses parent, such as /sys/fs/cgroup/system, and creates it if needed. The controllers memory, cpu and pids
// must already be enabled for it (cgroup.subtree_control of the group above); those that are there are enabled for the units.
func NewCgroups(parent string) (*Cgroups, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("cannot create the control group of the services: %w", err)
	}
	available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("cannot use %s as a control group: %w", parent, err)
	}
	for _, controller := range strings.Fields(string(available)) {
		switch controller {
		case "memory", "cpu", "pids":
			if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
				return nil, fmt.Errorf("cannot enable the %s controller for the services: %w", controller, err)
			}
		}
	}
	return &Cgroups{parent: parent, memoryMin: map[string]uint64{}}, nil
}

// Group creates the unit's control group and writes its limits.
func (c *Cgroups) Group(u *Unit) (Group, error) {
	dir := filepath.Join(c.parent, u.Name)
	// A group that was killed (cgroup.kill) kills everything that is cloned into it from then on: the kernel compares a
	// count of kills that a new process takes from its parent's group (seen with 6.18, not with a fresh group). So a unit
	// gets a new group for each start. One with processes in it cannot be removed and was not killed either: it stays.
	removeEmpty(dir)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot create control group %s: %w", dir, err)
	}
	for _, limit := range []struct {
		file  string
		value *uint64
	}{
		{"memory.min", u.Resources.MemoryMin}, {"memory.low", u.Resources.MemoryLow}, {"memory.high", u.Resources.MemoryHigh},
		{"memory.max", u.Resources.MemoryMax}, {"cpu.weight", u.Resources.CPUWeight}, {"pids.max", u.Resources.TasksMax},
	} {
		if limit.value == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, limit.file), []byte(limitText(*limit.value)), 0o644); err != nil {
			return nil, fmt.Errorf("cannot set %s of unit %s: %w", limit.file, u.Name, err)
		}
	}
	if err := c.protect(u); err != nil {
		return nil, err
	}
	return &cgroup{dir}, nil
}

// removeEmpty removes a group and those below it, as far as they have no processes.
func removeEmpty(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is none
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeEmpty(filepath.Join(dir, entry.Name()))
		}
	}
	_ = unix.Rmdir(dir) // fails with EBUSY while it has processes
}

// protect gives the parent the memory protection of all its units together: protection counts only up to that of the
// groups above.
func (c *Cgroups) protect(u *Unit) error {
	if u.Resources.MemoryMin == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memoryMin[u.Name] = *u.Resources.MemoryMin
	var sum uint64
	for _, n := range c.memoryMin {
		if n > Unlimited-sum {
			sum = Unlimited
			break
		}
		sum += n
	}
	if err := os.WriteFile(filepath.Join(c.parent, "memory.min"), []byte(limitText(sum)), 0o644); err != nil {
		return fmt.Errorf("cannot set memory.min of the services: %w", err)
	}
	return nil
}

func limitText(n uint64) string {
	if n == Unlimited {
		return "max"
	}
	return strconv.FormatUint(n, 10)
}

type cgroup struct{ dir string }

func (g *cgroup) Place(cmd *exec.Cmd) (func(), error) {
	dir, err := os.Open(g.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open control group: %w", err)
	}
	// The kernel starts the process inside (clone3 with CLONE_INTO_CGROUP): there is no moment in which it, or a child
	// that it forks at once, is elsewhere.
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return func() { dir.Close() }, nil
}

// processes lists the processes of the group and of those below it, which a unit with Delegate=yes may have made.
func (g *cgroup) processes() []int {
	var pids []int
	_ = filepath.WalkDir(g.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil // a group that vanishes while it is read has no process
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, word := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

func (g *cgroup) Contains(pid int) bool {
	for _, p := range g.processes() {
		if p == pid {
			return true
		}
	}
	return false
}

func (g *cgroup) Signal(sig syscall.Signal) error {
	var errs []error
	for _, pid := range g.processes() {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("cannot send %v to process %d: %w", sig, pid, err))
		}
	}
	return errors.Join(errs...)
}

func (g *cgroup) Kill() error {
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0o644); err != nil {
		return fmt.Errorf("cannot kill control group %s: %w", g.dir, err)
	}
	return nil
}

func (g *cgroup) AwaitEmpty(within time.Duration) bool {
	events, err := os.Open(filepath.Join(g.dir, "cgroup.events"))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer events.Close()
	deadline := time.Now().Add(within)
	buf := make([]byte, 256)
	for {
		// The kernel reports a change to those that have read the file since the one before.
		n, err := events.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return false
		}
		if bytes.Contains(buf[:n], []byte("populated 0")) {
			return true
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		// The system call counts milliseconds in 32 bits: long times are waited for in pieces.
		if _, err := unix.Poll(fds, int(min(left, time.Minute)/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

func (g *cgroup) OOMKills() int {
	data, err := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return 0 // no memory controller here: nothing to count
	}
	for line := range strings.Lines(string(data)) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			n, _ := strconv.Atoi(number)
			return n
		}
	}
	return 0
}
