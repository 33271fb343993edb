package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Spawner starts processes and tells how they ended. PID 1's is the one that also collects orphans.
type Spawner interface {
	// Start starts cmd, whose streams are files, and returns a channel that gets the exit status, once.
	Start(cmd *exec.Cmd) (<-chan syscall.WaitStatus, error)
}

// Options are what the supervisor needs from outside. All fields are required but Changed.
type Options struct {
	Spawner Spawner
	Groups  Groups
	// Output returns where the output of a unit goes. It may be called again for each start of the unit.
	Output func(unit string) io.Writer
	// NotifyDir holds the notification sockets, such as /run/skerry/notify; at most 80 bytes long.
	NotifyDir string
	// Environ is the environment that all units have; it should set PATH.
	Environ []string
	Logger  *slog.Logger
	// Changed is called with each change of a unit, in order, one call at a time. It must return quickly and not call the
	// supervisor.
	Changed func(Status)
}

// A Supervisor runs a set of units. Make it with New; then Start, then Stop, each once.
type Supervisor struct {
	options Options
	runners map[string]*runner
	order   []string // names, sorted

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each change
}

// New prepares the units, which must go together (LoadUnits checks it; New does again).
func New(units []*Unit, options Options) (*Supervisor, error) {
	if err := checkGraph(units); err != nil {
		return nil, err
	}
	s := &Supervisor{options: options, runners: map[string]*runner{}, changed: make(chan struct{})}
	for _, u := range units {
		s.runners[u.Name] = newRunner(s, u)
		s.order = append(s.order, u.Name)
	}
	slices.Sort(s.order)
	return s, nil
}

// Start starts all units, each as soon as those it comes after have started, and returns at once.
func (s *Supervisor) Start() {
	for _, name := range s.order {
		go s.runners[name].run()
	}
}

// Status is a snapshot of all units, sorted by name.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

func (s *Supervisor) snapshot() []Status {
	list := make([]Status, 0, len(s.order))
	for _, name := range s.order {
		list = append(list, s.runners[name].status)
	}
	return list
}

// Wait returns as soon as the condition holds for the units, or when ctx is done.
func (s *Supervisor) Wait(ctx context.Context, condition func([]Status) bool) error {
	for {
		s.mu.Lock()
		holds, changed := condition(s.snapshot()), s.changed
		s.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// WaitUp waits until every unit is ready or done. It fails early when one has failed for good.
func (s *Supervisor) WaitUp(ctx context.Context) error {
	var failed []string
	err := s.Wait(ctx, func(units []Status) bool {
		failed = nil
		for _, u := range units {
			if u.State == Failed {
				failed = append(failed, fmt.Sprintf("%s: %s", u.Unit, u.Reason))
			}
		}
		return failed != nil || !slices.ContainsFunc(units, func(u Status) bool { return !u.State.up() })
	})
	if err == nil && failed != nil {
		return fmt.Errorf("services failed: %s", strings.Join(failed, "; "))
	}
	return err
}

// Restart stops a unit and starts it again without delay. A unit that failed, or was never ready, is started.
func (s *Supervisor) Restart(ctx context.Context, name string) error {
	r, ok := s.runners[name]
	if !ok {
		return fmt.Errorf("cannot restart unit %s: there is no such unit; there are: %s", name, strings.Join(s.order, ", "))
	}
	select {
	case r.restart <- struct{}{}:
		return nil
	case <-r.done:
		return fmt.Errorf("cannot restart unit %s: the services are being stopped", name)
	case <-ctx.Done():
		return fmt.Errorf("cannot restart unit %s: %w", name, context.Cause(ctx))
	}
}

// Stop stops all units, each after those that use it, and waits for them. When ctx is done, all that still live are
// killed at once, and the error names the units that this befell. Units with KillMode=process may leave processes behind.
func (s *Supervisor) Stop(ctx context.Context) error {
	dependents := map[string][]*runner{}
	for _, name := range s.order {
		for _, dependency := range s.runners[name].unit.stopsBefore() {
			dependents[dependency] = append(dependents[dependency], s.runners[name])
		}
	}
	for _, name := range s.order {
		go func() {
			for _, dependent := range dependents[name] {
				select {
				case <-dependent.done:
				case <-ctx.Done():
				}
			}
			close(s.runners[name].stop)
			select {
			case <-s.runners[name].done:
			case <-ctx.Done():
				close(s.runners[name].kill)
			}
		}()
	}
	for _, name := range s.order {
		<-s.runners[name].done
	}
	var killed []error
	for _, name := range s.order {
		if s.runners[name].killed {
			killed = append(killed, fmt.Errorf("unit %s did not stop in time and was killed", name))
		}
	}
	return errors.Join(killed...)
}

// set changes the status of a unit and tells everybody.
func (s *Supervisor) set(r *runner, change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := r.status
	change(&r.status)
	if r.status == before {
		return
	}
	if r.status.State != before.State {
		r.status.Since = time.Now()
	}
	close(s.changed)
	s.changed = make(chan struct{})
	if s.options.Changed != nil {
		s.options.Changed(r.status)
	}
}
