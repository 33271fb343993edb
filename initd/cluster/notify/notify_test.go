package notify

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// listen stands in for the supervisor and points the environment at itself.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func next(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 256)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestNotifier(t *testing.T) {
	c := listen(t)
	t.Setenv("WATCHDOG_USEC", "30000000")
	n := FromEnvironment()
	for _, v := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC"} {
		if got, there := os.LookupEnv(v); there {
			t.Errorf("%s=%s is still there: the API server would say READY=1 for us", v, got)
		}
	}
	n.Status("step %d", 1)
	n.Status("step 1")
	n.Ready()
	n.Stopping()
	for _, want := range []string{"STATUS=step 1", "READY=1", "STOPPING=1"} {
		if got := next(t, c); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The watchdog is fed in a turn in which the process was alive at last, and not in one in which it never was; then the supervisor is told why.
func TestWatchdog(t *testing.T) {
	c := listen(t)
	t.Setenv("WATCHDOG_USEC", "300000")
	n := FromEnvironment()
	n.Status("running")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun, calls, slow := time.Now(), 0, false
	n.Watchdog(ctx, func(turn context.Context) error {
		calls++
		switch {
		case calls < 3: // the first turn has a bad beginning
			return errors.New("the disk stalls")
		case calls == 3 || slow:
			if slow {
				cancel()
			}
			return nil
		}
		<-turn.Done() // all of the second turn
		slow = true
		return errors.New("the API server\nhangs")
	})
	if took := time.Since(begun); took < 200*time.Millisecond {
		t.Errorf("two turns of 100 ms took %v", took)
	}
	n.Status("after")
	for _, want := range []string{"STATUS=running", "WATCHDOG=1", "STATUS=not well: the API server; hangs", "WATCHDOG=1", "STATUS=running", "STATUS=after"} {
		if got := next(t, c); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWatchdogOfAnotherProcess(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "1000000")
	t.Setenv("WATCHDOG_PID", "1")
	if n := FromEnvironment(); n.watchdog != 0 {
		t.Errorf("took the watchdog of process 1: %v", n.watchdog)
	}
}
