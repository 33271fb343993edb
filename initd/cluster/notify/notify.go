// Package notify tells the supervisor (init, or systemd on an ordinary host) how far this process is, by the protocol
// of sd_notify(3). Without a supervisor the same lines go to the log only.
package notify

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Notifier sends what happens to the supervisor. Its methods may be called at the same time.
type Notifier struct {
	socket   string        // empty without a supervisor
	watchdog time.Duration // zero when the supervisor has no watchdog

	// AfterReady and OnStopping, when set, are called each time Ready and Stopping are.
	AfterReady, OnStopping func()

	mu     sync.Mutex
	status string
}

// FromEnvironment takes the supervisor's address out of the environment. It must be called before any part of
// Kubernetes starts: API server and kubelet would each announce themselves as the whole service, and feed its watchdog.
func FromEnvironment() *Notifier {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	if name, ok := strings.CutPrefix(n.socket, "@"); ok {
		n.socket = "\x00" + name // abstract namespace, see unix(7)
	}
	pid := os.Getenv("WATCHDOG_PID")
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, v := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(v)
	}
	return n
}

// Status tells in a few words what is going on; the console shows it. A repeated status is sent once.
func (n *Notifier) Status(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	n.mu.Lock()
	same := s == n.status
	n.status = s
	n.mu.Unlock()
	if same {
		return
	}
	slog.Info(s)
	n.send("STATUS=" + s)
}

// Ready says that the service does its job.
func (n *Notifier) Ready() {
	n.send("READY=1")
	if n.AfterReady != nil {
		n.AfterReady()
	}
}

// Stopping says that the service is on its way out.
func (n *Notifier) Stopping() {
	n.send("STOPPING=1")
	if n.OnStopping != nil {
		n.OnStopping()
	}
}

// Watchdog feeds the supervisor's watchdog until ctx ends, in each of its turns as soon as alive returns nil. It returns at once when
// there is none. A machine whose disk stalls or whose processor is busy for a while is not one that hangs: alive is called until the
// turn is over, and gets a context that ends then. Why the watchdog was not fed is told as the status.
func (n *Notifier) Watchdog(ctx context.Context, alive func(context.Context) error) {
	if n.watchdog == 0 {
		return
	}
	every := n.watchdog / 3 // one missed turn is not yet a dead process
	tick := time.NewTicker(every)
	defer tick.Stop()
	hungry := false
	for {
		turn, cancel := context.WithTimeout(ctx, every)
		err := until(turn, every/20, alive)
		cancel()
		switch {
		case err == nil:
			n.send("WATCHDOG=1")
			if hungry {
				n.mu.Lock()
				status := n.status
				n.mu.Unlock()
				n.send("STATUS=" + status)
			}
			hungry = false
		case ctx.Err() == nil:
			slog.Warn("the watchdog was not fed", "reason", err)
			n.send("STATUS=not well: " + strings.ReplaceAll(err.Error(), "\n", "; "))
			hungry = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// until calls f, with pauses, until it returns nil or ctx ends; the error is the last that f gave before.
func until(ctx context.Context, pause time.Duration, f func(context.Context) error) error {
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(pause):
		}
	}
}

func (n *Notifier) send(state string) {
	if n.socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err == nil {
		defer c.Close()
		_, err = c.Write([]byte(state))
	}
	if err != nil {
		// A supervisor that went away cannot be told so; the work goes on.
		slog.Debug("cannot notify the supervisor", "state", state, "reason", err)
	}
}
