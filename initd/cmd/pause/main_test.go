package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process under test: pause, or the child that leaves an orphan behind.
func TestMain(m *testing.M) {
	switch os.Getenv("PAUSE_TEST") {
	case "pause":
		// A subreaper gets orphans, as process 1 of a process namespace does.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		signals := watch()
		child := exec.Command(os.Args[0])
		child.Env = []string{"PAUSE_TEST=parent"}
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			panic(err)
		}
		hold(signals)
		os.Exit(0)
	case "parent":
		orphan := exec.Command(os.Args[0])
		orphan.Env = []string{"PAUSE_TEST=orphan"}
		orphan.Stdout = os.Stdout
		if err := orphan.Start(); err != nil {
			panic(err)
		}
		os.Exit(0)
	case "orphan":
		os.Stdout.WriteString(strconv.Itoa(os.Getpid()) + "\n")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func startPause(t *testing.T) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"PAUSE_TEST=pause"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return cmd, pid
}

func TestReapsOrphans(t *testing.T) {
	_, orphan := startPause(t)
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := syscall.Kill(orphan, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			status, _ := os.ReadFile("/proc/" + strconv.Itoa(orphan) + "/stat")
			t.Fatalf("orphan %d is still there: %s", orphan, status)
		}
	}
}

func TestEndsOnSignal(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			cmd, _ := startPause(t)
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
}
