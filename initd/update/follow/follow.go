// Package follow fetches upgrades by itself: it asks a URL for a bundle now and then, and writes what is new.
//
// It asks at a random moment of each interval, so that a fleet that was switched on at once does not ask at once, reads the
// bundle's header, and stops there when the version is the one that runs or one that has failed. The URL decides which version
// is wanted, also an older one; what must not be is refused by package update. What was written is handed over: the restart, and
// what comes before it, are not this package's business.
package follow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/update"
)

// A Config says what is followed.
type Config struct {
	// URL is where the bundle lies: http or https. Interval is how often it is asked for.
	URL      string
	Interval time.Duration
	// Window is when it may be asked for and tried; nil is at any time. A transfer that has begun goes on after it.
	Window *Window
	// Rate is in bytes per second; 0 is as fast as it goes.
	Rate    int64
	Updater *update.Updater
	// Written is called when a bundle is written and may be tried. When it returns nil the machine is about to restart, and
	// Run ends. It must see for itself that nobody else has begun to try.
	Written func(context.Context) error
	// Report is called with each change of the status, from the goroutine of Run. It may be nil.
	Report func(Status)
	// Asked makes it ask at once, whatever interval and window say. It may be nil.
	Asked <-chan struct{}

	// What follows is for tests: the zero value is the real one.

	Client *http.Client
	Now    func() time.Time
	Sleep  func(context.Context, time.Duration) error
	Random func() float64 // from [0, 1)
}

// A Status is what a follower does, for people.
type Status struct {
	// Activity is empty while it waits to ask. Next is when it goes on, as far as that is known.
	Activity string
	Next     time.Time
	// Problem is what is wrong and what to do; it stays until the URL was asked with a better result.
	Problem string
}

// A Follower is made by New.
type Follower struct {
	Config
	schedule schedule
	status   Status // as it was reported
	problem  string
	// etag is that of the answer which is known to hold nothing new.
	etag string
	// idle is how long a connection may be silent.
	idle time.Duration
}

// New makes a Follower that does nothing yet.
func New(c Config) *Follower {
	if c.Report == nil {
		c.Report = func(Status) {}
	}
	if c.Client == nil {
		c.Client = newClient()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	return &Follower{Config: c, schedule: schedule{interval: c.Interval, window: c.Window, random: c.Random}, idle: idle}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run follows the URL until a bundle was handed over, with nil, or ctx is done. It may be called again.
func (f *Follower) Run(ctx context.Context) error {
	for {
		next := f.schedule.next(f.Now())
		f.set("", next)
		onTime, err := f.until(ctx, next)
		if err != nil {
			return err
		}
		if !onTime {
			f.schedule.begin = time.Time{}
			continue
		}
		handedOver := f.turn(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if handedOver {
			return nil
		}
	}
}

// slice is the longest single sleep: the clock may be set meanwhile.
const slice = 10 * time.Minute

// until sleeps. Not on time is when a clock that was set has jumped over the moment, or out of the window: what was chosen at
// random is random no longer.
func (f *Follower) until(ctx context.Context, at time.Time) (onTime bool, err error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		left := at.Sub(f.Now())
		if left <= 0 {
			return f.Window == nil || -left < 2*slice && f.Window.Contains(f.Now()), nil
		}
		if asked, err := f.sleep(ctx, min(left, slice)); asked || err != nil {
			return asked, err
		}
	}
}

// sleep ends early when somebody asks.
func (f *Follower) sleep(ctx context.Context, d time.Duration) (asked bool, err error) {
	sleeping, wake := context.WithCancel(ctx)
	defer wake()
	slept := make(chan error, 1)
	go func() { slept <- f.Sleep(sleeping, d) }()
	select {
	case <-f.Asked:
		wake()
		<-slept
		return true, nil
	case err := <-slept:
		return false, err
	}
}

// Answers that are no bundle to write.
var (
	// errNothingNew is about what runs already, or has not changed since it was judged.
	errNothingNew = errors.New("nothing is new")
	// errChanged is about a URL that has another bundle than before.
	errChanged = errors.New("the file has changed while it was fetched")
)

// attempts is how often a turn goes on after the connection was lost and nothing more came than before, with back-off from the
// first pause on, twice as long each time. Nobody else is kept from an upgrade meanwhile.
const (
	attempts   = 6
	firstPause = time.Minute
)

// turn asks once, and writes what is new. It goes on after lost connections.
func (f *Follower) turn(ctx context.Context) (handedOver bool) {
	changed := 0
	for failed := 0; ; {
		f.doing("asking for an upgrade")
		err := f.attempt(ctx)
		lost, isLost := errors.AsType[*lostError](err)
		switch {
		case isLost && lost.progress:
			failed = 0
		case isLost && failed < attempts:
		case errors.Is(err, errChanged) && changed < attempts:
			// Somebody publishes a bundle at this moment.
			changed++
			continue
		default:
			return f.end(ctx, err)
		}
		f.doing("waiting to go on: " + err.Error())
		if f.Sleep(ctx, f.jitter(firstPause<<failed)) != nil {
			return false
		}
		failed++
	}
}

// jitter takes up to a quarter off, so that devices that lost their server together do not come back together.
func (f *Follower) jitter(d time.Duration) time.Duration {
	return d - time.Duration(f.Random()*float64(d)/4)
}

// end judges how a turn has ended.
func (f *Follower) end(ctx context.Context, err error) (handedOver bool) {
	_, busy := errors.AsType[*update.BusyError](err)
	_, failed := errors.AsType[*failedError](err)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		return f.handOver(ctx)
	case errors.Is(err, errUnchanged): // what was said of it holds
	case errors.Is(err, errNothingNew):
		f.problem = ""
	case busy: // the next time
	case failed:
		f.problem = fmt.Sprintf("the bundle at %s is not fetched: %v", f.where(), err)
	default:
		f.problem = fmt.Sprintf("there is no upgrade from %s: %v; it is asked for again by itself", f.where(), err)
	}
	return false
}

// handOver waits for the window and tries what was written, unless somebody has done something else with it meanwhile.
func (f *Follower) handOver(ctx context.Context) bool {
	written, err := f.Updater.Status()
	version := written.Upgrade.Version
	for err == nil && f.Window != nil && !f.Window.Contains(f.Now()) {
		opens := f.Window.moment(f.Now(), f.Random())
		f.set("version "+version+" is written and waits for the time of day when it may be tried", opens)
		if _, err := f.until(ctx, opens); err != nil {
			return false
		}
	}
	now, err2 := f.Updater.Status()
	if err := errors.Join(err, err2); err != nil {
		f.problem = fmt.Sprintf("the upgrade from %s is not tried: %v", f.where(), err)
		return false
	}
	if now.Upgrade.State != update.Written || now.Upgrade.Bundle != written.Upgrade.Bundle {
		return false
	}
	f.doing("trying version " + version)
	if err := f.Written(ctx); err != nil {
		f.problem = fmt.Sprintf("version %s from %s is written and cannot be tried: %v; try it by hand, or wait: it is tried again by itself", version, f.where(), err)
		return false
	}
	return true
}

// A failedError is about a version that is known to be bad here.
type failedError struct{ update.Failure }

func (e *failedError) Error() string {
	return fmt.Sprintf("version %s has failed here before (%s); put another version there, or force this one by hand", e.Version, e.Reason)
}

// known tells whether there is nothing to do about a bundle, by its header.
func (f *Follower) known(m *bundle.Manifest) error {
	run := f.Updater.Running
	if m.Board != run.Board || m.Architecture != run.Architecture {
		return nil // Begin refuses it
	}
	if m.Version == run.Version {
		return errNothingNew
	}
	rec, err := f.Updater.Status()
	if err != nil {
		return err
	}
	for _, failure := range rec.Failed {
		if failure.Version == m.Version {
			return &failedError{failure}
		}
	}
	return nil
}

// where is the URL for people.
func (f *Follower) where() string {
	u, err := url.Parse(f.URL)
	if err != nil {
		return "a URL that cannot be understood"
	}
	return shown(u)
}

func (f *Follower) doing(activity string) { f.set(activity, time.Time{}) }

func (f *Follower) set(activity string, next time.Time) {
	s := Status{Activity: activity, Next: next, Problem: f.problem}
	if s != f.status {
		f.status = s
		f.Report(s)
	}
}
