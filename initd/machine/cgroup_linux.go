package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// EnableControllers hands all controllers that a control group has on to its children
// (https://docs.kernel.org/admin-guide/cgroup-v2.html, "Controlling Controllers").
func EnableControllers(group string) error {
	have, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cannot read the controllers of %s: %w", group, err)
	}
	enable := "+" + strings.Join(strings.Fields(string(have)), " +")
	if err := os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte(enable), 0o644); err != nil {
		return fmt.Errorf("cannot enable %s below %s: %w", enable, group, err)
	}
	return nil
}

// KillAll sends a signal to every process of the machine but this one.
func KillAll(s unix.Signal) { _ = unix.Kill(-1, s) }

// StopGroup ends all processes in a control group and below it: it asks them with SIGTERM, and those that still live
// after grace are killed. A group that does not exist is empty.
func StopGroup(ctx context.Context, group string, grace time.Duration) error {
	events, err := os.Open(filepath.Join(group, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer events.Close()
	err = filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil // groups come and go
		}
		text, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = unix.Kill(pid, unix.SIGTERM)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if awaitEmpty(ctx, events) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0o644); err != nil {
		return fmt.Errorf("cannot kill what is left in %s: %w", group, err)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if !awaitEmpty(ctx, events) {
		return fmt.Errorf("processes in %s did not end", group)
	}
	return nil
}

// awaitEmpty waits for "populated 0" in a file cgroup.events, whose changes the kernel announces by POLLPRI.
func awaitEmpty(ctx context.Context, events *os.File) bool {
	buf := make([]byte, 256)
	for {
		n, err := events.ReadAt(buf, 0)
		if n == 0 && err != nil {
			return true // the group is gone
		}
		if strings.Contains(string(buf[:n]), "populated 0") {
			return true
		}
		left := time.Second
		if deadline, ok := ctx.Deadline(); ok {
			left = min(left, time.Until(deadline))
		}
		if ctx.Err() != nil || left <= 0 {
			return false
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, int(left.Milliseconds())+1)
	}
}
