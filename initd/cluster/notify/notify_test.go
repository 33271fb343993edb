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
	t.Setenv("WATCHDOG_USEC", "30000")
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
	// Fed when alive, not when dead: two good turns around a bad one give two messages, then the marker.
	ctx, cancel := context.WithCancel(t.Context())
	turn := 0
	n.Watchdog(ctx, func(context.Context) error {
		turn++
		switch turn {
		case 2:
			return errors.New("the API server hangs")
		case 3:
			cancel()
		}
		return nil
	})
	n.Status("after")
	for _, want := range []string{"WATCHDOG=1", "WATCHDOG=1", "STATUS=after"} {
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
