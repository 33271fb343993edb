package service

import (
	"fmt"
	"slices"
	"time"
)

// runner leads one unit through its life, in one goroutine.
type runner struct {
	supervisor *Supervisor
	unit       *Unit
	status     Status // guarded by the supervisor's mutex

	socket   *notifySocket
	messages chan message
	restart  chan struct{}
	stop     chan struct{} // closed: come to an end
	kill     chan struct{} // closed: come to an end at once
	done     chan struct{} // closed: it has ended
	killed   bool          // SIGKILL was needed to stop it; valid when done
}

func newRunner(s *Supervisor, u *Unit) *runner {
	return &runner{
		supervisor: s, unit: u,
		status:   Status{Unit: u.Name, Description: u.Description, State: Waiting, Since: time.Now()},
		messages: make(chan message), restart: make(chan struct{}),
		stop: make(chan struct{}), kill: make(chan struct{}), done: make(chan struct{}),
	}
}

// run returns when the unit was stopped: also a unit that is done or has failed waits for a restart by hand.
func (r *runner) run() {
	defer close(r.done)
	if !r.awaitDependencies() {
		r.set(func(s *Status) { s.State = Stopped })
		return
	}
	var back backoff
	for {
		result, blocked := r.unit.blocked()
		if !blocked {
			result = r.once()
		}
		if result.stopped {
			r.set(func(s *Status) { s.State, s.PID, s.Text, s.NextStart = Stopped, 0, "", time.Time{} })
			return
		}
		if result.byHand {
			back = backoff{}
			continue
		}
		if !r.afterwards(result, &back) {
			r.set(func(s *Status) { s.State, s.NextStart = Stopped, time.Time{} })
			return
		}
	}
}

// afterwards decides what follows the end of a process and returns when it is time to start again; false means stop.
func (r *runner) afterwards(result result, back *backoff) bool {
	var again <-chan time.Time
	if r.restarts(result) {
		delay := back.next(r.unit.RestartSec, result.ran)
		r.log().Warn("unit ended and is started again", "reason", result.reason, "delay", delay)
		timer := time.NewTimer(delay)
		defer timer.Stop()
		again = timer.C
		r.set(func(s *Status) {
			s.State, s.PID, s.Text, s.Reason, s.NextStart, s.attempted = Restarting, 0, "", result.reason, time.Now().Add(delay), true
		})
	} else {
		state := Done
		if result.ending != endedWell {
			state = Failed
			r.log().Error("unit failed", "reason", result.reason)
		}
		r.set(func(s *Status) { s.State, s.PID, s.Text, s.Reason, s.attempted = state, 0, "", result.reason, true })
	}
	for {
		select {
		case <-again:
			r.set(func(s *Status) { s.State, s.NextStart = Starting, time.Time{}; s.Restarts++ })
			return true
		case <-r.restart:
			*back = backoff{}
			return true
		case <-r.messages: // of a process that is no more
		case <-r.stop:
			return false
		}
	}
}

// restarts says whether the unit is started again by itself. Without what it needs, nothing would change; and a oneshot that
// has done its work is not needed again.
func (r *runner) restarts(result result) bool {
	return r.unit.Restart.after(result.ending) && !result.blocked && !(r.unit.Type == Oneshot && result.ending == endedWell)
}

// awaitDependencies returns true when it is time to start, false when the unit is to stop before it ever started.
func (r *runner) awaitDependencies() bool {
	for {
		r.supervisor.mu.Lock()
		missing, broken := r.missing()
		changed := r.supervisor.changed
		r.supervisor.mu.Unlock()
		if len(missing) == 0 {
			return true
		}
		if broken != "" {
			// The required unit may still be restarted by hand, so this one goes on waiting, but it says why.
			r.set(func(s *Status) {
				s.State, s.Reason = Failed, fmt.Sprintf("not started, because unit %s, which it requires, failed", broken)
			})
		}
		select {
		case <-changed:
		case <-r.restart: // an order from outside counts more than the order of the units
			return true
		case <-r.stop:
			return false
		}
	}
}

// missing lists the units that this one still waits for, and the one that makes waiting vain, if any.
func (r *runner) missing() (missing []string, broken string) {
	for _, name := range r.unit.startsAfter() {
		status := r.supervisor.runners[name].status
		required := slices.Contains(r.unit.Requires, name)
		if status.State.up() || !required && status.attempted {
			continue
		}
		missing = append(missing, name)
		if required && status.State == Failed {
			broken = name
		}
	}
	return missing, broken
}

func (r *runner) set(change func(*Status)) { r.supervisor.set(r, change) }
