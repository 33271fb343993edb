package machine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets this program play the part of process 1: as a subreaper it gets the orphans below it. It must be a
// process of its own, because the reaper collects every child, those of the testing package included.
func TestMain(m *testing.M) {
	if os.Getenv("SKERRY_TEST_REAPER") == "" {
		os.Exit(m.Run())
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// asProcess1 runs the calling test again in a process that is a subreaper, and tells whether this is that process.
func asProcess1(t *testing.T) bool {
	t.Helper()
	if os.Getenv("SKERRY_TEST_REAPER") != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), "SKERRY_TEST_REAPER=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

func startReaper(t *testing.T) *Reaper {
	r := NewReaper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go r.Run(ctx)
	return r
}

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not happen", what)
		panic("unreachable")
	}
}

// TestReaperLosesNoStatus starts many children at once that end at once, so that they end before, while and after their
// parent learns their number.
func TestReaperLosesNoStatus(t *testing.T) {
	if !asProcess1(t) {
		return
	}
	r := startReaper(t)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ended, err := r.Start(exec.Command("/bin/sh", "-c", "exit "+strconv.Itoa(i%100)))
			if err != nil {
				t.Error(err)
				return
			}
			if s := await(t, "the end of a child", ended); !s.Exited() || s.ExitStatus() != i%100 {
				t.Errorf("child %d ended with %v", i, s)
			}
		})
	}
	all.Wait()
}

func TestReaperCollectsOrphans(t *testing.T) {
	if !asProcess1(t) {
		return
	}
	r := startReaper(t)
	// The shell ends before its child does, which then is ours; it ends when the pipe is closed.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "cat <&3 >/dev/null 3<&- & echo $!")
	cmd.Stdout, cmd.ExtraFiles = say, []*os.File{read}
	ended, err := r.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	say.Close()
	if s := await(t, "the end of the shell", ended); s.ExitStatus() != 0 {
		t.Fatalf("the shell ended with %v", s)
	}
	b := make([]byte, 32)
	n, err := said.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(orphan) + "/status")
	if err != nil || !strings.Contains(string(status), "PPid:\t"+strconv.Itoa(os.Getpid())+"\n") {
		t.Fatalf("the orphan is not a child of this process: %v\n%s", err, status)
	}
	pidfd, err := unix.PidfdOpen(orphan, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	write.Close()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 20_000); n != 1 {
		t.Fatalf("the orphan does not end: %v", err)
	}
	// It has ended; it is collected when its number is no process's any more.
	deadline := time.Now().Add(20 * time.Second)
	for !errors.Is(unix.PidfdSendSignal(pidfd, 0, nil, 0), unix.ESRCH) {
		if time.Now().After(deadline) {
			t.Fatal("the orphan stays a zombie")
		}
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 1000})
	}
}

func TestReaperReportsSignals(t *testing.T) {
	if !asProcess1(t) {
		return
	}
	r := startReaper(t)
	cmd := exec.Command("/bin/cat")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	cmd.Stdin = read
	ended, err := r.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := await(t, "the end of a killed child", ended); !s.Signaled() || s.Signal() != syscall.SIGKILL {
		t.Errorf("status %v", s)
	}
}

func TestReaperOutput(t *testing.T) {
	if !asProcess1(t) {
		return
	}
	r := startReaper(t)
	ctx := context.Background()
	out, status, err := r.Output(ctx, "/bin/sh", "-c", "echo said; echo complained >&2; exit 5")
	if err != nil || status != 5 || string(out) != "said\ncomplained\n" {
		t.Errorf("%q, status %d, %v", out, status, err)
	}
	out, status, err = r.Output(ctx, "/bin/sh", "-c", "head -c 3000000 /dev/zero")
	if err != nil || status != 0 || len(out) != maxOutput {
		t.Errorf("a talkative program: %d bytes, status %d, %v", len(out), status, err)
	}
	if _, _, err = r.Output(ctx, "/bin/sh", "-c", "kill -9 $$"); err == nil || !strings.Contains(err.Error(), "signal killed") {
		t.Errorf("a program that is killed: %v", err)
	}
	if _, _, err = r.Output(ctx, "/nowhere/program"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is missing: %v", err)
	}
	soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, _, err = r.Output(soon, "/bin/sleep", "600"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a program that does not end: %v", err)
	}
}

// A child that cannot be started must not disturb the others, and must not be waited for.
func TestReaperStartFails(t *testing.T) {
	if !asProcess1(t) {
		return
	}
	r := startReaper(t)
	for range 20 {
		if _, err := r.Start(exec.Command("/nowhere/program")); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if len(r.waiting) != 0 {
		t.Errorf("%d children are waited for", len(r.waiting))
	}
}

func TestReaperStops(t *testing.T) {
	if !asProcess1(t) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r := NewReaper()
	go func() { r.Run(ctx); close(done) }()
	cancel()
	await(t, "the end of the reaper", done)
	if signal.Ignored(unix.SIGCHLD) {
		t.Error("SIGCHLD is ignored")
	}
}
