// Package notify tells the supervisor (init, or systemd on an ordinary host) how far this process is, by the protocol
// of sd_notify(3). Without a supervisor the same lines go to the log only.
package notify

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier sends what happens to the supervisor. The zero value is ready; its methods may be called at the same time.
type Notifier struct {
	mu     sync.Mutex
	status string
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
	send("STATUS=" + s)
}

// Ready says that the service does its job.
func (n *Notifier) Ready() { send(daemon.SdNotifyReady) }

// Stopping says that the service is on its way out.
func (n *Notifier) Stopping() { send(daemon.SdNotifyStopping) }

// Watchdog feeds the supervisor's watchdog until ctx ends, each time that alive returns nil. It returns at once when no
// watchdog is set (WATCHDOG_USEC). alive gets a context that ends before the next turn is due.
func (n *Notifier) Watchdog(ctx context.Context, alive func(context.Context) error) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	every /= 3 // one missed turn is not yet a dead process
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, every)
		err := alive(check)
		cancel()
		if err == nil {
			send(daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			slog.Warn("the watchdog was not fed", "reason", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func send(state string) {
	// Errors are not acted upon: a supervisor that went away cannot be told so.
	if _, err := daemon.SdNotify(false, state); err != nil {
		slog.Debug("cannot notify the supervisor", "state", state, "reason", err)
	}
}
