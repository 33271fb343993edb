// Package health says whether the machine works: it runs checks, all at once and again and again, until all of them have
// passed for a while, or one says that waiting is in vain, or time is up.
//
// What a trial ends with depends on it, so the rules are strict: a service that comes and goes is not healthy, and a check that
// does not answer has not passed. The package changes nothing on the machine. The checks of the operator are made here
// ([FromConfig]); those that every device has are handed in by process 1.
package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Check is one thing that must work. Run returns nil when it does, else why not, in words that follow "check NAME: ". It should
// return soon after ctx is done; one that does not is not started again before it has returned.
type Check struct {
	Name string
	Run  func(ctx context.Context) error
}

// A neverError says that waiting is in vain.
type neverError struct{ error }

func (e neverError) Unwrap() error { return e.error }

// Never marks an error of a check that no waiting mends, such as that of a test that has failed.
func Never(err error) error { return neverError{err} }

// A Result is the last one of a check.
type Result struct {
	Name   string
	Passed bool
	// Reason says why it has not passed.
	Reason string
}

// A Verdict is what Wait found.
type Verdict struct {
	Healthy bool
	// Reason says in a sentence which checks did not pass and why. Empty when healthy.
	Reason string
	// Results are the last ones, in the order of the checks.
	Results []Result
}

// Options are how checks are run. The zero value of a duration stands for its default.
type Options struct {
	// Interval is between the end of a round and the next one; 5 s.
	Interval time.Duration
	// Timeout is how long a check may take; 10 s.
	Timeout time.Duration
	// Settle is how long all checks must go on passing, round after round; 15 s. Negative: once is enough.
	Settle time.Duration
	// Deadline is how long Wait tries; 0 stands for without end. Spent is how much of it was needed for something else before,
	// which leaves the checks one interval at least.
	Deadline, Spent time.Duration
	// Changed is called with the results of all checks after each round in which one has changed. It may be nil.
	Changed func([]Result)
}

func (o Options) withDefaults() Options {
	if o.Interval == 0 {
		o.Interval = 5 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Settle == 0 {
		o.Settle = 15 * time.Second
	}
	if o.Changed == nil {
		o.Changed = func([]Result) {}
	}
	return o
}

// Wait runs the checks until there is a verdict. It fails only when ctx ends before that. Time is measured by the monotonic clock:
// that the machine's clock is set meanwhile changes nothing.
func Wait(ctx context.Context, checks []Check, o Options) (Verdict, error) {
	o = o.withDefaults()
	e := newEvaluator(checks, o)
	limited, cancel := ctx, func() {}
	if o.Deadline > 0 {
		limited, cancel = context.WithTimeout(ctx, max(o.Deadline-o.Spent, o.Interval))
	}
	defer cancel()
	var since time.Time // all checks have passed in each round from then on; zero when one has not
	for {
		complete := e.round(limited)
		if err := context.Cause(ctx); err != nil {
			return Verdict{}, err
		}
		pause := o.Interval
		switch failed := e.failed(); {
		case e.vain() != "":
			return Verdict{Reason: e.vain(), Results: e.copy()}, nil
		case len(failed) > 0:
			since = time.Time{}
		case !complete:
			// The deadline has cut it off; what was known before holds.
		case since.IsZero():
			since = time.Now()
			fallthrough
		default:
			left := o.Settle - time.Since(since)
			if left <= 0 {
				return Verdict{Healthy: true, Results: e.copy()}, nil
			}
			pause = min(pause, left)
		}
		sleep(limited, pause)
		if err := context.Cause(ctx); err != nil {
			return Verdict{}, err
		}
		if limited.Err() != nil {
			return Verdict{Reason: e.tooLate(since), Results: e.copy()}, nil
		}
	}
}

// Watch runs the checks until ctx ends, for a machine that has been found healthy and is to say when it no longer is: see
// Options.Changed. Settle and Deadline are not used.
func Watch(ctx context.Context, checks []Check, o Options) {
	o = o.withDefaults()
	e := newEvaluator(checks, o)
	for ctx.Err() == nil {
		e.round(ctx)
		sleep(ctx, o.Interval)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// An evaluator has the results of the rounds so far.
type evaluator struct {
	Options
	runs    []*run
	results []Result
	told    []Result // by Changed
	// failures are the last reasons by check, also of those that pass now; never is the one for which waiting is in vain.
	failures []string
	never    []bool
}

func newEvaluator(checks []Check, o Options) *evaluator {
	e := &evaluator{Options: o, failures: make([]string, len(checks)), never: make([]bool, len(checks))}
	for _, c := range checks {
		e.runs = append(e.runs, &run{Check: c})
		e.results = append(e.results, Result{Name: c.Name, Reason: "has not answered yet"})
	}
	return e
}

func (e *evaluator) copy() []Result { return slices.Clone(e.results) }

// round runs each check once. It is not complete when ctx ended before that: a check that was cut off keeps its last result.
func (e *evaluator) round(ctx context.Context) (complete bool) {
	type answer struct {
		check int
		err   error
	}
	answers := make(chan answer)
	for i, r := range e.runs {
		go func() { answers <- answer{i, r.once(ctx, e.Timeout)} }()
	}
	complete = true
	for range e.runs {
		a := <-answers
		if errors.Is(a.err, errCutOff) {
			complete = false
			continue
		}
		r := &e.results[a.check]
		r.Passed, r.Reason = a.err == nil, ""
		var never neverError
		e.never[a.check] = errors.As(a.err, &never)
		if a.err != nil {
			r.Reason = sentence(a.err.Error())
			e.failures[a.check] = r.Reason
		}
	}
	if !slices.Equal(e.told, e.results) || e.told == nil {
		e.told = e.copy()
		e.Changed(e.copy())
	}
	return complete
}

// failed says of each check that has not passed why.
func (e *evaluator) failed() []string {
	var failed []string
	for _, r := range e.results {
		if !r.Passed {
			failed = append(failed, "check "+r.Name+": "+r.Reason)
		}
	}
	return failed
}

// vain names the checks that will never pass; empty if there are none.
func (e *evaluator) vain() string {
	var vain []string
	for i, r := range e.results {
		if e.never[i] {
			vain = append(vain, "check "+r.Name+": "+r.Reason)
		}
	}
	return strings.Join(vain, "; ")
}

// tooLate is the reason when time is up. since is when the checks that pass all at last began to.
func (e *evaluator) tooLate(since time.Time) string {
	if failed := e.failed(); len(failed) > 0 {
		return fmt.Sprintf("not healthy after %s: %s", short(e.Deadline.Round(time.Second)), strings.Join(failed, "; "))
	}
	reason := fmt.Sprintf("not healthy after %s: all checks pass, but must do so for %s on end", short(e.Deadline.Round(time.Second)), short(e.Settle))
	if !since.IsZero() {
		reason += fmt.Sprintf(" and did for %s", short(time.Since(since).Round(time.Second)))
	}
	for i, f := range e.failures {
		if f != "" {
			reason += fmt.Sprintf("; check %s had failed: %s", e.results[i].Name, f)
		}
	}
	return reason
}

// short writes a duration without parts that are zero.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// longest is how many bytes of a reason are kept: it goes into the record of upgrades and onto a console.
const longest = 300

// sentence makes one line of a text from anywhere.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + " …"
	}
	return text
}
