package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/boot"
	"github.com/skerryos/skerry/initd/health"
	"github.com/skerryos/skerry/initd/service"
)

// A state is what the machine knows about itself: it is shown on the consoles, in a line whenever it changes, and written
// for the device API.
type state struct {
	console *console

	mu       sync.Mutex
	now      v1.State
	timeline v1.Timeline
	done     bool   // the boot sequence
	ready    bool   // all services
	note     string // what a machine that is well has to say
}

func newState(c *console) *state {
	return &state{console: c, now: v1.State{Phase: v1.Starting, Tries: -1,
		Addresses: []string{}, Services: []v1.Service{}, Problems: []string{}}}
}

// change applies f and then shows and writes what has come of it.
func (s *state) change(f func(*v1.State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.now)
	if s.done && (s.now.Phase == v1.Starting || s.now.Phase == v1.Ready || s.now.Phase == v1.Degraded) {
		s.judge()
	}
	if s.now.Version != "" { // before the kernel command line is read there is nothing to say
		s.console.status(s.line())
	}
	writeJSON(v1.StatePath, s.now)
}

// judge derives the phase of a machine that has booted.
func (s *state) judge() {
	var waiting []string
	for _, u := range s.now.Services {
		if u.State != string(service.Ready) && u.State != string(service.Done) {
			text := u.Name + " is " + u.State
			if u.Status != "" {
				text += " (" + u.Status + ")"
			}
			waiting = append(waiting, text)
		}
	}
	s.ready = len(waiting) == 0
	switch {
	case !s.ready:
		s.now.Phase, s.now.Message = v1.Degraded, strings.Join(waiting, ", ")
	case len(s.now.Problems) > 0:
		s.now.Phase, s.now.Message = v1.Degraded, s.now.Problems[len(s.now.Problems)-1]
	default:
		s.now.Phase, s.now.Message = v1.Ready, s.note
		for _, u := range s.now.Services {
			if u.Name == clusterUnit && u.State == string(service.Ready) && u.Status != "" {
				s.now.Message = strings.TrimPrefix(s.note+"; "+u.Status, "; ")
			}
		}
	}
}

// line is the state line: who, where, how, and since when it matters, why.
func (s *state) line() string {
	parts := []string{fmt.Sprintf("skerry %s (%s) slot %s", s.now.Version, s.now.Board, s.now.Slot)}
	if s.now.Trial {
		parts[0] += " on trial"
	}
	if s.now.Hostname != "" {
		parts = append(parts, s.now.Hostname)
	}
	if len(s.now.Addresses) > 0 {
		parts = append(parts, strings.Join(s.now.Addresses, " "))
	}
	how := string(s.now.Phase)
	if s.now.Message != "" {
		how += ": " + s.now.Message
	}
	return strings.Join(append(parts, how), " | ")
}

func (s *state) image(c commandLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Version, s.now.Board, s.now.Slot = c.version, c.board, string(c.slot)
}

func (s *state) identify(hostname string) { s.change(func(n *v1.State) { n.Hostname = hostname }) }

func (s *state) addresses(list []string) { s.change(func(n *v1.State) { n.Addresses = list }) }

func (s *state) synced() { s.change(func(n *v1.State) { n.TimeSynced = true }) }

func (s *state) tries(left int) { s.change(func(n *v1.State) { n.Tries = left }) }

// notice is said beside the state, until the machine restarts.
func (s *state) notice(text string) {
	s.console.log(text)
	s.change(func(*v1.State) { s.note = text })
}

func (s *state) trial() { s.change(func(n *v1.State) { n.Trial = true }) }

// deadline is when a machine on trial is given up.
func (s *state) deadline(at time.Time) { s.change(func(n *v1.State) { n.Deadline = at }) }

func (s *state) committed() {
	s.change(func(n *v1.State) { n.Trial, n.Deadline, n.Tries = false, time.Time{}, -1 })
}

// checks keeps the last results of checks.
func (s *state) checks(results []health.Result) {
	s.change(func(n *v1.State) {
		for _, result := range results {
			c := v1.Check{Name: result.Name, Passed: result.Passed, Reason: result.Reason}
			if i := slices.IndexFunc(n.Checks, func(x v1.Check) bool { return x.Name == c.Name }); i >= 0 {
				n.Checks[i] = c
			} else {
				n.Checks = append(n.Checks, c)
			}
		}
	})
}

// problem adds what a person should know, once, on a line of its own.
func (s *state) problem(text string) {
	text = oneLine(text)
	s.console.log("problem: " + text)
	s.change(func(n *v1.State) {
		if !slices.Contains(n.Problems, text) {
			n.Problems = append(n.Problems, text)
		}
	})
}

// solved takes a problem back that is none any more. What is not known changes nothing.
func (s *state) solved(text string) {
	text = oneLine(text)
	s.change(func(n *v1.State) {
		if i := slices.Index(n.Problems, text); i >= 0 {
			n.Problems = slices.Delete(n.Problems, i, i+1)
			s.console.log("solved: " + text)
		}
	})
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
}

func (s *state) unit(u service.Status) {
	text := u.Text
	if u.Reason != "" && u.State != service.Ready {
		text = u.Reason
	}
	next := v1.Service{Name: u.Unit, State: string(u.State), Status: text, Restarts: u.Restarts}
	s.change(func(n *v1.State) {
		i := slices.IndexFunc(n.Services, func(x v1.Service) bool { return x.Name == u.Unit })
		if i < 0 {
			n.Services = append(n.Services, next)
			slices.SortFunc(n.Services, func(a, b v1.Service) int { return strings.Compare(a.Name, b.Name) })
		} else {
			n.Services[i] = next
		}
		if n.Phase == v1.Starting && u.Unit == clusterUnit && u.State != service.Done && text != "" {
			n.Message = text
		}
	})
}

func (s *state) begin(step boot.Step) {
	s.change(func(n *v1.State) { n.Message = step.Name })
}

func (s *state) record(r boot.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	step := v1.Step{Name: r.Name, Stage: string(r.Stage), Start: r.Start.Seconds(), End: r.End.Seconds()}
	if r.Err != nil {
		step.Error = r.Err.Error()
	}
	s.timeline.Steps = append(s.timeline.Steps, step)
	writeJSON(v1.TimelinePath, s.timeline)
}

func (s *state) saveTimeline() {
	s.mu.Lock()
	defer s.mu.Unlock()
	writeJSON(v1.TimelinePath, s.timeline)
}

// loadTimeline takes over the first stage's part of the timeline.
func (s *state) loadTimeline() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, err := os.ReadFile(v1.TimelinePath); err == nil {
		_ = json.Unmarshal(b, &s.timeline) // our own file; at worst the timeline starts here
	}
}

func (s *state) booted() {
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	s.change(func(*v1.State) {})
}

func (s *state) stopping(reason string) {
	s.change(func(n *v1.State) { n.Phase, n.Message = v1.Stopping, reason })
}

func (s *state) progress(what string) { s.console.log(what) }

func (s *state) failed(err error, delay time.Duration) {
	s.change(func(n *v1.State) {
		n.Phase, n.Message = v1.Failed, fmt.Sprintf("%v; restarting in %v", err, delay)
	})
}

// alive returns only when nobody holds the state for good: the loop that supervises passes through it with each change.
func (s *state) alive() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// writeJSON replaces a file in memory. Before /run is there, and when memory has run out, nothing can be done about it.
func writeJSON(path string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	if os.WriteFile(path+".new", b, 0o644) == nil {
		_ = os.Rename(path+".new", path)
	}
}
