package service

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Restart says after which ends a unit is started again.
type Restart string

// The policies of systemd.service(5).
const (
	RestartNo         Restart = "no"
	RestartAlways     Restart = "always"
	RestartOnSuccess  Restart = "on-success"
	RestartOnFailure  Restart = "on-failure"
	RestartOnAbnormal Restart = "on-abnormal"
	RestartOnAbort    Restart = "on-abort"
	RestartOnWatchdog Restart = "on-watchdog"
)

// An ending is how a process of a unit came to its end.
type ending int

const (
	endedWell     ending = iota // exit status 0, or one of cleanSignals
	endedWithCode               // another exit status, or never started
	endedBySignal               // another signal, also from the out-of-memory killer
	endedInTime                 // it was killed: start or stop took too long
	endedByDog                  // it was killed: no sign of life
)

// restarts is the table of systemd.service(5): which endings lead to a restart under which policy.
var restarts = map[Restart][]ending{
	RestartNo:         {},
	RestartAlways:     {endedWell, endedWithCode, endedBySignal, endedInTime, endedByDog},
	RestartOnSuccess:  {endedWell},
	RestartOnFailure:  {endedWithCode, endedBySignal, endedInTime, endedByDog},
	RestartOnAbnormal: {endedBySignal, endedInTime, endedByDog},
	RestartOnAbort:    {endedBySignal},
	RestartOnWatchdog: {endedByDog},
}

func (r Restart) after(e ending) bool { return slices.Contains(restarts[r], e) }

// cleanSignals end a service as a person or program would ask it to.
var cleanSignals = []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE}

// endingOf reads a wait status; reason is for people.
func endingOf(status syscall.WaitStatus) (e ending, reason string) {
	switch {
	case status.Signaled():
		reason = fmt.Sprintf("ended by signal %d (%v)", int(status.Signal()), status.Signal())
		if slices.Contains(cleanSignals, status.Signal()) {
			return endedWell, reason
		}
		return endedBySignal, reason
	case status.ExitStatus() == 0:
		return endedWell, "ended with exit status 0"
	}
	return endedWithCode, fmt.Sprintf("ended with exit status %d", status.ExitStatus())
}

const (
	// maxDelay bounds the back-off: a service that depends on something outside comes back within this time.
	maxDelay = 30 * time.Second
	// stableAfter is how long a process must have run for its end not to count as one more failure in a row.
	stableAfter = time.Minute
)

// backoff counts failures in a row.
type backoff struct{ failures int }

// next is the delay before the next start, after a process that ran for so long.
func (b *backoff) next(base, ran time.Duration) time.Duration {
	if ran >= stableAfter {
		b.failures = 0
	}
	delay := max(base, time.Millisecond)
	for range b.failures {
		if delay >= maxDelay {
			break
		}
		delay *= 2
	}
	b.failures++
	// A unit that asks for a longer first delay gets it.
	return min(delay, max(maxDelay, base))
}
