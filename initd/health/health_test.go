package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// script is a check that answers by the time since the test began: with the last answer whose time has come.
type script struct {
	name    string
	answers map[time.Duration]error
	// hangs: it does not return before its context ends; deaf: not even then.
	hangs, deaf bool
}

func (s script) check() Check {
	start := time.Now()
	return Check{s.name, func(ctx context.Context) error {
		switch {
		case s.deaf:
			time.Sleep(time.Hour)
		case s.hangs:
			<-ctx.Done()
			return ctx.Err()
		}
		var last time.Duration = -1
		for at := range s.answers {
			if at <= time.Since(start) && at > last {
				last = at
			}
		}
		return s.answers[last]
	}}
}

func TestWait(t *testing.T) {
	refused, bad := errors.New("connection refused"), errors.New("HTTP 503 from http://a/")
	type answers = map[time.Duration]error
	for _, test := range []struct {
		name   string
		checks []script
		want   string // the moment and the verdict
	}{
		{"nothing to check", nil, "15s: healthy"},
		{"healthy at once", []script{{name: "a", answers: answers{0: nil}}}, "15s: healthy"},
		{"healthy later", []script{{name: "a", answers: answers{0: refused, 12 * time.Second: nil}}, {name: "b", answers: answers{0: nil}}}, "30s: healthy"},
		{"flaps, then stays", []script{{name: "a", answers: answers{0: nil, 7 * time.Second: bad, 11 * time.Second: nil}}}, "30s: healthy"},
		{"never answers well", []script{{name: "a", answers: answers{0: bad}}, {name: "b", answers: answers{0: refused}}},
			"58s: not healthy after 58s: check a: HTTP 503 from http://a/; check b: connection refused"},
		{"well too late", []script{{name: "a", answers: answers{0: bad, 48 * time.Second: nil}}},
			"58s: not healthy after 58s: all checks pass, but must do so for 15s on end and did for 8s; check a had failed: HTTP 503 from http://a/"},
		{"fails in the end", []script{{name: "a", answers: answers{0: refused, 40 * time.Second: nil, 50 * time.Second: bad}}},
			"58s: not healthy after 58s: check a: HTTP 503 from http://a/"},
		{"in vain", []script{{name: "a", answers: answers{0: bad}}, {name: "b", answers: answers{0: refused, 21 * time.Second: Never(errors.New("job x has failed"))}}},
			"25s: check b: job x has failed"},
		{"does not answer", []script{{name: "a", hangs: true}, {name: "b", answers: answers{0: nil}}}, "58s: not healthy after 58s: check a: no answer within 10s"},
		{"ignores its context", []script{{name: "a", deaf: true}}, "58s: not healthy after 58s: check a: no answer within 10s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var checks []Check
				for _, s := range test.checks {
					checks = append(checks, s.check())
				}
				v, err := Wait(t.Context(), checks, Options{Deadline: 58 * time.Second})
				got := fmt.Sprintf("%v: %s", time.Since(start), v.Reason)
				if v.Healthy {
					got += "healthy"
				}
				if err != nil || got != test.want {
					t.Errorf("error %v, got\n%s\nwant\n%s", err, got, test.want)
				}
				time.Sleep(2 * time.Hour) // the deaf
			})
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopping := errors.New("the machine is stopping")
		for _, s := range []script{{name: "a", hangs: true}, {name: "a", answers: map[time.Duration]error{0: nil}}} {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(12*time.Second, func() { cancel(stopping) })
			if v, err := Wait(ctx, []Check{s.check()}, Options{Deadline: time.Minute}); !errors.Is(err, stopping) {
				t.Errorf("got %+v, error %v", v, err)
			}
		}
	})
}

// A check that was cut off by the deadline is judged by what it said before.
func TestDeadlineKeepsTheLastReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		round := 0
		c := Check{"slow", func(ctx context.Context) error {
			if round++; round == 1 {
				return errors.New("HTTP 500")
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		v, err := Wait(t.Context(), []Check{c}, Options{Deadline: 8 * time.Second})
		if want := "not healthy after 8s: check slow: HTTP 500"; err != nil || v.Reason != want {
			t.Errorf("got %q, error %v, want %q", v.Reason, err, want)
		}
	})
}

// The reason names the whole deadline, however much of it was left to the checks.
func TestSpentPartOfTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct{ spent, lasts time.Duration }{{0, time.Minute}, {40 * time.Second, 20 * time.Second}, {2 * time.Minute, 5 * time.Second}} {
			begun := time.Now()
			failing := Check{"a", func(context.Context) error { return errors.New("HTTP 500") }}
			v, err := Wait(t.Context(), []Check{failing}, Options{Deadline: time.Minute, Spent: tt.spent})
			if want := "not healthy after 1m: check a: HTTP 500"; err != nil || v.Reason != want || time.Since(begun) != tt.lasts {
				t.Errorf("with %v spent: after %v %q, error %v; want after %v %q", tt.spent, time.Since(begun), v.Reason, err, tt.lasts, want)
			}
		}
	})
}

// A check that does not return is not started a second time.
func TestOneRunOfACheckAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		c := Check{"deaf", func(context.Context) error { runs.Add(1); time.Sleep(50 * time.Second); return nil }}
		ctx, cancel := context.WithTimeout(t.Context(), 49*time.Second)
		defer cancel()
		Watch(ctx, []Check{c}, Options{})
		if runs.Load() != 1 {
			t.Errorf("it was started %d times", runs.Load())
		}
		time.Sleep(time.Minute)
	})
}

func TestChangedIsCalledOnChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var got []string
		checks := []Check{
			script{name: "a", answers: map[time.Duration]error{0: errors.New("HTTP 503\n\tfrom a"), 10 * time.Second: nil, 30 * time.Second: errors.New("refused")}}.check(),
			script{name: "b", answers: map[time.Duration]error{0: nil}}.check(),
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		Watch(ctx, checks, Options{Changed: func(r []Result) { got = append(got, fmt.Sprintf("%v %v", time.Since(start), r)) }})
		want := "0s [{a false HTTP 503 from a} {b true }]\n10s [{a true } {b true }]\n30s [{a false refused} {b true }]"
		if got := strings.Join(got, "\n"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestLongReasonsAreCut(t *testing.T) {
	if got := sentence(strings.Repeat("ä", 400)); len(got) > longest+len(" …") || !strings.HasSuffix(got, "ä …") {
		t.Errorf("got %q", got)
	}
}
