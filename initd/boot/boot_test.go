package boot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	root := false
	for _, s := range Table() {
		if s.Name == "" || s.Doc == "" || strings.HasSuffix(s.Doc, ".") || strings.ToLower(s.Name) != s.Name || strings.ContainsAny(s.Name, " _") {
			t.Errorf("%+v is not a row that a person can read", s)
		}
		if seen[s.Name] {
			t.Errorf("step %s is there twice", s.Name)
		}
		seen[s.Name] = true
		if s.OnFailure != Reboot && s.OnFailure != Degrade {
			t.Errorf("step %s has the policy %q", s.Name, s.OnFailure)
		}
		// The operator says how long a new version may take to become healthy.
		if (s.Limit == Unlimited) != (s.Name == "healthy") {
			t.Errorf("step %s has the limit %v", s.Name, s.Limit)
		}
		switch {
		case s.Stage == Root:
			root = true
		case s.Stage != Initramfs:
			t.Errorf("step %s is in the stage %q", s.Name, s.Stage)
		case root:
			t.Errorf("step %s of the initramfs comes after steps of the root file system", s.Name)
		}
	}
	// A machine that can do without these would run bytes that nobody vouches for, or hide that it lost its data.
	for _, s := range Table() {
		switch s.Name {
		case "verity", "root", "data", "services":
			if s.OnFailure != Reboot {
				t.Errorf("a failure of %s must not be passed over", s.Name)
			}
		}
	}
	for _, name := range []string{"verity", "data", "services", "mark-good"} {
		if !seen[name] {
			t.Errorf("no step %s", name)
		}
	}
}

// TestClockComesFirst: on a machine without a clock battery nothing may look at the time before it is as late as is known.
func TestClockComesFirst(t *testing.T) {
	at := map[string]int{}
	for i, s := range Table() {
		at[s.Name] = i
	}
	for _, order := range [][]string{
		{"clock-floor", "verity", "root", "system-mounts"},
		{"data", "clock", "upgrade"}, // where the time was saved; what looks at times
		{"clock", "config", "network", "time", "services", "healthy"},
	} {
		for i := 1; i < len(order); i++ {
			if at[order[i-1]] >= at[order[i]] {
				t.Errorf("step %s comes after %s", order[i-1], order[i])
			}
		}
	}
}

// steps of a made-up sequence: r reboots on failure, d degrades.
func sequence(spec string) []Step {
	var steps []Step
	for i, p := range strings.Fields(spec) {
		s := Step{Name: fmt.Sprint("s", i+1), Stage: Root, OnFailure: Degrade, Doc: "x"}
		if strings.HasPrefix(p, "r") {
			s.OnFailure = Reboot
		}
		if strings.HasSuffix(p, "i") {
			s.Stage = Initramfs
		}
		steps = append(steps, s)
	}
	return steps
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, steps string
		failing     string
		log, fail   string
	}{
		{"all go well", "r d r", "", "s1+ s2+ s3+", ""},
		{"one without which the machine is of use", "r d r", "s2", "s1+ s2- s3+", ""},
		{"one without which it is not", "r r d", "s2", "s1+ s2-", "boot step s2 failed: s2 is broken"},
		{"the last one", "d r", "s2", "s1+ s2-", "boot step s2 failed"},
		{"both kinds", "d r d", "s1 s2", "s1- s2-", "boot step s2 failed"},
		{"the other stage's steps are not run", "ri d ri r", "", "s2+ s4+", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log []string
			steps := sequence(c.steps)
			now := time.Duration(0)
			r := Runner{
				Actions: map[string]Action{},
				Uptime:  func() time.Duration { now += time.Second; return now },
				Begin:   func(s Step) { log = append(log, s.Name) },
				Done: func(rec Record) {
					if rec.Name != log[len(log)-1] || rec.End-rec.Start != time.Second {
						t.Errorf("after %s comes the record %+v", log[len(log)-1], rec)
					}
					if rec.Err == nil {
						log[len(log)-1] += "+"
					} else {
						log[len(log)-1] += "-"
					}
				},
			}
			for _, s := range steps {
				if s.Stage == Root {
					r.Actions[s.Name] = func(context.Context) error {
						if strings.Contains(c.failing, s.Name) {
							return errors.New(s.Name + " is broken")
						}
						return nil
					}
				}
			}
			err := r.Run(context.Background(), steps, Root)
			if (err == nil) != (c.fail == "") || (err != nil && !strings.Contains(err.Error(), c.fail)) {
				t.Errorf("error %v, want %q", err, c.fail)
			}
			if got := strings.Join(log, " "); got != c.log {
				t.Errorf("ran %s, want %s", got, c.log)
			}
		})
	}
}

func TestRunStopsWhenAsked(t *testing.T) {
	asked := errors.New("somebody pressed the power button")
	ctx, cancel := context.WithCancelCause(context.Background())
	ran := 0
	r := Runner{
		Actions: map[string]Action{
			"s1": func(context.Context) error { ran++; cancel(asked); return nil },
			"s2": func(context.Context) error { ran++; return nil },
		},
		Uptime: func() time.Duration { return 0 }, Begin: func(Step) {}, Done: func(Record) {},
	}
	if err := r.Run(ctx, sequence("r r"), Root); !errors.Is(err, asked) || ran != 1 {
		t.Errorf("%d steps ran, error %v", ran, err)
	}
}

// A step that is stuck in the kernel ends when it likes; the boot does not wait for it, and does not go on beside it.
func TestRunLeavesAStuckStep(t *testing.T) {
	for _, policy := range []Policy{Reboot, Degrade} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			defer close(release)
			steps := sequence("d d d")
			steps[0].Limit, steps[1].Limit, steps[1].OnFailure = time.Hour, time.Minute, policy
			var log []string
			begun := time.Now()
			r := Runner{
				Actions: map[string]Action{
					"s1": func(context.Context) error { time.Sleep(59 * time.Minute); return nil },
					"s2": func(context.Context) error { <-release; return nil },
					"s3": func(context.Context) error { t.Error("the boot goes on beside a stuck step"); return nil },
				},
				Uptime: func() time.Duration { return time.Since(begun) },
				Begin:  func(Step) {},
				Done:   func(rec Record) { log = append(log, fmt.Sprint(rec.Name, " ", rec.Start, " ", rec.End, " ", rec.Err)) },
			}
			err := r.Run(t.Context(), steps, Root)
			if err == nil || err.Error() != "boot step s2 failed: it has not ended within 1m0s" {
				t.Errorf("error %v", err)
			}
			if got, want := strings.Join(log, "; "), "s1 0s 59m0s <nil>; s2 59m0s 1h0m0s it has not ended within 1m0s"; got != want {
				t.Errorf("ran %s, want %s", got, want)
			}
		})
	}
}

func TestRunStopsAtAPanic(t *testing.T) {
	r := Runner{
		Actions: map[string]Action{
			"s1": func(context.Context) error { panic("no such thing") },
			"s2": func(context.Context) error { t.Error("the boot goes on after a panic"); return nil },
		},
		Uptime: func() time.Duration { return 0 }, Begin: func(Step) {}, Done: func(Record) {},
	}
	err := r.Run(t.Context(), sequence("d d"), Root)
	if err == nil || !strings.HasPrefix(err.Error(), "boot step s1 failed: init panicked: no such thing\n") || !strings.Contains(err.Error(), "boot_test.go") {
		t.Errorf("error %v, want one that says where", err)
	}
}

func TestRunChecksBindings(t *testing.T) {
	nothing := func(context.Context) error { t.Error("a step ran"); return nil }
	for _, c := range []struct {
		name    string
		actions map[string]Action
		fail    string
	}{
		{"a step without an action", map[string]Action{"s1": nothing}, "step s2 has no action"},
		{"an action without a step", map[string]Action{"s1": nothing, "s2": nothing, "s9": nothing}, "s9"},
	} {
		r := Runner{Actions: c.actions, Uptime: func() time.Duration { return 0 }, Begin: func(Step) {}, Done: func(Record) {}}
		if err := r.Run(context.Background(), sequence("r r"), Root); err == nil || !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%s: error %v", c.name, err)
		}
	}
}
