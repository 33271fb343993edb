package machine

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test program be its own child: it acts by this variable.
func TestMain(m *testing.M) {
	switch os.Getenv("MACHINE_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "orphan":
		// Start a child that outlives us, and say its number.
		cmd := exec.Command("/bin/sleep", "0")
		if err := cmd.Start(); err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString(strings.TrimSpace(itoa(cmd.Process.Pid)))
		os.Exit(3)
	}
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

func runReaper(t *testing.T) *Reaper {
	t.Helper()
	// The kernel then gives us orphans, as it gives them to process 1.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := NewReaper()
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func TestReaperGivesEveryChildItsOwnStatus(t *testing.T) {
	r := runReaper(t)
	const children = 40
	ended := make([]<-chan int, children)
	for i := range children {
		status, err := r.Start(exec.Command("/bin/sh", "-c", "exit "+itoa(i+1)))
		if err != nil {
			t.Fatal(err)
		}
		c := make(chan int, 1)
		go func() { s := <-status; c <- s.ExitStatus() }()
		ended[i] = c
	}
	for i, c := range ended {
		select {
		case got := <-c:
			if got != i+1 {
				t.Errorf("child %d ended with %d, want %d", i, got, i+1)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("the status of child %d was lost", i)
		}
	}
}

func TestReaperCollectsOrphans(t *testing.T) {
	r := runReaper(t)
	t.Setenv("MACHINE_TEST_CHILD", "orphan")
	out, status, err := r.Output(t.Context(), os.Args[0])
	if err != nil || status != 3 {
		t.Fatalf("Output = %q, %d, %v; want status 3", out, status, err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		if _, err := os.Stat("/proc/" + string(out)); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("orphan %s is still there", out)
		}
	}
}

func TestOutputEndsWithItsContext(t *testing.T) {
	r := runReaper(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.Output(ctx, "/bin/sleep", "600"); err == nil || !strings.Contains(err.Error(), "sleep") {
		t.Errorf("Output = %v, want an error that names the program", err)
	}
}
