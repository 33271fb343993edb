package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// The states of an update, as v1.Update has them.
const (
	updateIdle       = "idle"
	updateVerified   = "verified"
	updateWriting    = "writing"
	updateWritten    = "written"
	updateTrying     = "trying"
	updateCommitted  = "committed"
	updateRolledBack = "rolled back"
)

// How often a device is asked, and how long it is left alone after it was not reached: twice as long each time, up to a limit.
const (
	pollInterval = 2 * time.Second
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// A device that was restarted before it tried the new version is asked to try it again: at once if it was seen to be away, or
// after so many looks, and so often.
const (
	mostTries = 3
	mostIdle  = 15
)

// A follower watches a device through an upgrade.
type follower struct {
	client *Client
	// bundle and version are those of the upgrade.
	bundle, version string
	timeout         time.Duration
	report          func(Event)

	last     Event
	progress time.Time // when something moved on last
	away     bool      // the device could not be reached since the last look at it
	tries    int       // how often it was asked to try what is written
	idle     int       // looks in a row at which it had the new version, and did nothing about it
}

func (c *Client) follow(bundle, version string, o UpgradeOptions) follower {
	report := o.Report
	if report == nil {
		report = func(Event) {}
	}
	return follower{client: c, bundle: bundle, version: version, timeout: cmp.Or(o.Timeout, DefaultTimeout), report: report, progress: c.clock.Now()}
}

// TryWritten makes a device try the version that an upgrade has left written, and follows it as [Client.Upgrade] does.
func (c *Client) TryWritten(ctx context.Context, o UpgradeOptions) (Outcome, error) {
	state, err := c.Status(ctx)
	if err != nil {
		return Outcome{}, err
	}
	if _, err := c.Try(ctx); err != nil {
		return Outcome{}, err
	}
	if state.Update == nil {
		return Outcome{}, fmt.Errorf("device %s tries a version that it does not tell; look with: skerry node status --node %s", c.Address(), c.Address())
	}
	f := c.follow(state.Update.Bundle, state.Update.Version, o)
	end, err := f.watch(ctx, state)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Version: end.Version, From: state.Version, State: end.Update.State}, nil
}

// say reports an event unless it is the last one again.
func (f *follower) say(e Event) {
	if e == f.last {
		return
	}
	// Another detail of the same phase is no progress, nor is that the device was not reached, or is again.
	if e.Phase != f.last.Phase && e.Phase != Waiting && f.last.Phase != Waiting {
		f.moved()
	}
	f.last = e
	f.report(e)
}

func (f *follower) moved() { f.progress = f.client.clock.Now() }

// isFinal tells an error that asking again does not mend.
func isFinal(err error) bool {
	if refusal, ok := errors.AsType[*RefusedError](err); ok {
		return refusal.Status < http.StatusInternalServerError // a device that starts has answers of this kind
	}
	_, stranger := errors.AsType[*FingerprintError](err)
	_, shut := errors.AsType[*NotAdmittedError](err)
	return stranger || shut
}

// reach asks for the state until there is an answer.
func (f *follower) reach(ctx context.Context) (v1.State, error) {
	for attempt := 0; ; attempt++ {
		state, err := f.client.Status(ctx)
		if err == nil || isFinal(err) || ctx.Err() != nil {
			return state, err
		}
		if err := f.pause(ctx, attempt, err); err != nil {
			return state, err
		}
	}
}

// pause waits before the next attempt, unless nothing has moved on for too long: then it returns why, around err.
func (f *follower) pause(ctx context.Context, attempt int, err error) error {
	f.say(Event{Phase: Waiting, Detail: err.Error()})
	return f.sleep(ctx, min(firstPause<<min(attempt, 10), longestPause), err)
}

func (f *follower) sleep(ctx context.Context, d time.Duration, last error) error {
	if idle := f.client.clock.Now().Sub(f.progress); idle+d > f.timeout {
		if last == nil {
			last = fmt.Errorf("it is %s: %s", f.last.Phase, f.last.Detail)
		}
		return fmt.Errorf("cannot go on with the upgrade of device %s: nothing has moved on for %v: %w; the device goes on by itself with what it has: "+
			"look with skerry node status --node %s, and give the same command again to go on",
			f.client.Address(), f.timeout, last, f.client.Address())
	}
	return f.client.clock.Sleep(ctx, d)
}

// watch looks at the device until the upgrade has ended, from the given state on.
func (f *follower) watch(ctx context.Context, state v1.State) (v1.State, error) {
	var err error
	for attempt := 0; ; {
		if err == nil {
			attempt = 0
			ended, err := f.judge(ctx, state)
			if ended || err != nil {
				return state, err
			}
			f.away = false
			if err := f.sleep(ctx, pollInterval, nil); err != nil {
				return state, err
			}
		} else {
			if isFinal(err) || ctx.Err() != nil {
				return state, f.lastSeen(err)
			}
			f.away = true
			// Being away is what a restart looks like from here.
			f.say(Event{Phase: Restarting, Detail: "the device is away"})
			if err := f.sleep(ctx, min(firstPause<<min(attempt, 10), longestPause), err); err != nil {
				return state, err
			}
			attempt++
		}
		var next v1.State
		if next, err = f.client.Status(ctx); err == nil {
			state = next
		}
	}
}

// lastSeen says how far the upgrade was when the device was lost for good.
func (f *follower) lastSeen(err error) error {
	return fmt.Errorf("the upgrade of device %s to version %s cannot be followed to its end, it was %s at last: %w",
		f.client.Address(), f.version, f.last.Phase, err)
}

// judge says which phase a state is, and whether it is the end.
func (f *follower) judge(ctx context.Context, s v1.State) (ended bool, err error) {
	up := s.Update
	if up == nil {
		f.say(Event{Phase: Restarting, Detail: s.Message}) // the API answers before it knows of upgrades
		return false, nil
	}
	// A rollback that an operator asks for may forget which bundle it was.
	ours := up.Bundle == f.bundle || up.State == updateRolledBack && up.Version == f.version
	if !ours {
		return false, fmt.Errorf("the upgrade of device %s to version %s has ended: somebody has begun another one, to version %s (%s)",
			f.client.Address(), f.version, up.Version, up.State)
	}
	onTarget := s.Slot == up.Target
	switch up.State {
	case updateVerified, updateWriting:
		f.say(Event{Phase: Waiting, Detail: cmp.Or(up.Activity, fmt.Sprintf("the device has %d of %d chunks", up.Chunk, up.Chunks))})
	case updateWritten:
		return false, f.judgeWritten(ctx, s)
	case updateTrying:
		if !onTarget || s.Phase == v1.Stopping {
			f.say(Event{Phase: Restarting, Detail: "into version " + f.version})
		} else {
			f.say(Event{Phase: Trial, Detail: trialDetail(s)})
		}
	case updateCommitted:
		f.say(Event{Phase: Committed, Detail: "version " + s.Version + " in slot " + s.Slot})
		return true, nil
	case updateRolledBack:
		if onTarget {
			f.say(Event{Phase: Restarting, Detail: "back to the other slot: " + up.Reason})
			return false, nil
		}
		f.say(Event{Phase: RolledBack, Detail: up.Reason})
		return true, &RolledBackError{Address: f.client.Address(), Version: f.version, Running: s.Version, Reason: cmp.Or(up.Reason, "it does not say why")}
	default:
		return false, fmt.Errorf("the upgrade of device %s to version %s has ended: its state is %q; was the device reset?",
			f.client.Address(), f.version, up.State)
	}
	return false, nil
}

// judgeWritten is for a device that has the new version and has not tried it yet: it drains the node, or was interrupted in that.
func (f *follower) judgeWritten(ctx context.Context, s v1.State) error {
	up := s.Update
	f.idle++
	switch {
	case s.Phase == v1.Stopping:
		f.idle = 0
		f.say(Event{Phase: Restarting, Detail: "into version " + f.version})
	case up.Activity != "":
		f.idle = 0
		f.say(Event{Phase: Draining, Detail: up.Activity})
	case up.Reason == "" && (f.away || f.idle > mostIdle) && f.tries < mostTries:
		f.tries++
		f.idle = 0
		f.say(Event{Phase: Written, Detail: "the device was restarted before it tried the new version: asking it to"})
		if _, err := f.client.Try(ctx); err != nil && isFinal(err) {
			return err
		}
	case up.Reason != "":
		return fmt.Errorf("device %s has version %s written and cannot try it: %s; it runs version %s as before; "+
			"try again with: skerry node try --node %s",
			f.client.Address(), f.version, up.Reason, s.Version, f.client.Address())
	default:
		f.say(Event{Phase: Written, Detail: "slot " + up.Target})
	}
	return nil
}

// trialDetail says what the new version still lacks.
func trialDetail(s v1.State) string {
	var missing []string
	for _, c := range s.Checks {
		if !c.Passed {
			missing = append(missing, strings.TrimSuffix(c.Name+": "+c.Reason, ": "))
		}
	}
	text := fmt.Sprintf("version %s runs in slot %s", s.Version, s.Slot)
	if up := s.Update; up.Attempts > 1 {
		text += fmt.Sprintf(", attempt %d", up.Attempts)
		if up.Reason != "" {
			text += " (before: " + up.Reason + ")"
		}
	}
	switch {
	case len(missing) > 0:
		text += ", not healthy yet: " + strings.Join(missing, "; ")
	case len(s.Checks) > 0:
		text += ", all checks are passed"
	}
	return text
}
