package boot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
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
