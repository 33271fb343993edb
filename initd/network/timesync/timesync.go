// Package timesync keeps the clock by NTP (RFC 5905): it asks until a server answers, sets the clock, and goes on asking,
// seldom, for as long as the machine runs.
//
// It needs no more than a network that comes up at some time; no order of steps has to be kept. The clock itself is moved
// by functions of the caller.
package timesync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/beevik/ntp"
)

// Options are what a Syncer is made of.
type Options struct {
	// Servers are asked before all others: the operator's choice. If there are any, no others are asked.
	Servers []string
	// Default is asked when neither the operator nor the network names a server.
	Default []string
	// Floor is a time that has surely passed: the build. A server that says it is earlier is wrong, and not believed. What
	// the clock says at the start is no floor: a clock that was ahead would never be put right.
	Floor time.Time
	// Step sets the clock.
	Step func(time.Time) error
	// Slew lets the clock run faster or slower until it has moved by the offset. Nil: the clock is stepped.
	Slew func(time.Duration) error
	// Synced is called, from the goroutine of Run, each time that the clock was held against a server's; the first call
	// means that the time can be relied on. It may be nil.
	Synced func(Result)

	query func(ctx context.Context, server string) (*ntp.Response, error)
}

// A Result is what was found out about the clock and done.
type Result struct {
	Server string
	// Offset is what the clock was behind; Stepped says that it was set at once.
	Offset  time.Duration
	Stepped bool
}

const (
	// stepFrom is the offset from which the clock is set at once. Below, programs see no jump. (RFC 5905 has 128 ms, for
	// clocks that are much better disciplined.)
	stepFrom = 500 * time.Millisecond
	// After a success the next question comes after longest; before the first, after shortest, then twice as much each
	// time, up to retry. RFC 5905, 7.3, has 1024 s for a good association and warns of less than 64 s.
	longest  = 1024 * time.Second
	shortest = 2 * time.Second
	retry    = 64 * time.Second
	// jitter is the part of a wait that varies, so that devices that were switched on together do not ask in step.
	jitter = 0.25
	// timeout is how long a server may take.
	timeout = 3 * time.Second
	// A step of more than doubtFrom, or back by more than agreement, is made when two servers agree on it, within agreement, or when only one answers: a
	// device that lay in a drawer is off by that much, and so is a router that has just been started. To a time that the device has seen
	// already it is seldom right to go back.
	doubtFrom = 365 * 24 * time.Hour
	agreement = time.Minute
)

// A Syncer keeps the clock. Make it with New; its methods may be called at the same time as Run.
type Syncer struct {
	Options
	mu      sync.Mutex
	network []string
	changed chan struct{}
}

// New makes a Syncer that does nothing yet.
func New(o Options) *Syncer {
	if o.query == nil {
		o.query = query
	}
	if o.Synced == nil {
		o.Synced = func(Result) {}
	}
	return &Syncer{Options: o, changed: make(chan struct{}, 1)}
}

// NetworkChanged tells of the servers that the network names now (DHCP option 42; perhaps none). The clock is asked about at once,
// because a network that just came up is what was missing.
func (s *Syncer) NetworkChanged(servers []string) {
	s.mu.Lock()
	s.network = slices.Clone(servers)
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // told already
	}
}

// servers are whom to ask, in this order.
func (s *Syncer) servers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.Servers) > 0:
		return s.Servers
	case len(s.network) > 0:
		// The network's servers may be anyone's, and down: the default is the way out.
		return append(slices.Clone(s.network), s.Default...)
	default:
		return s.Default
	}
}

// Run keeps the clock until ctx is done.
func (s *Syncer) Run(ctx context.Context) {
	wait, warned := shortest, false
	for {
		result, err := s.sync(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			wait, warned = longest, false
			s.Synced(result)
		default:
			// Only what lasts is a warning, and one is enough: the first attempts are made before the network is there.
			level := slog.LevelDebug
			if wait >= retry && !warned {
				level, warned = slog.LevelWarn, true
			}
			slog.Log(ctx, level, "cannot tell the time from the network; asking on", "reason", err)
			wait = min(2*wait, retry)
		}
		if !s.pause(ctx, wait) {
			return
		}
	}
}

// pause waits for about d or until the network changed; it reports false when ctx is done.
func (s *Syncer) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d - time.Duration(rand.Float64()*jitter*float64(d)))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.changed:
		return true
	case <-ctx.Done():
		return false
	}
}

// sync asks the servers in turn until one can be believed, and moves the clock.
func (s *Syncer) sync(ctx context.Context) (Result, error) {
	var errs []error
	var doubted []Result
	for _, server := range s.servers() {
		response, err := s.query(ctx, server)
		if err == nil {
			err = s.believable(response)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", server, err))
			continue
		}
		offset := response.ClockOffset
		agrees := func(r Result) bool { return (r.Offset - offset).Abs() <= agreement }
		if (offset > doubtFrom || offset < -agreement) && !slices.ContainsFunc(doubted, agrees) {
			doubted = append(doubted, Result{Server: server, Offset: offset})
			continue
		}
		return s.adjust(server, offset)
	}
	if len(doubted) == 1 && ctx.Err() == nil {
		return s.adjust(doubted[0].Server, doubted[0].Offset)
	}
	for _, r := range doubted {
		errs = append(errs, fmt.Errorf("%s: it would set the clock by %s, and no other server agrees", r.Server, r.Offset))
	}
	return Result{}, cmp.Or(errors.Join(errs...), errors.New("no time server is known"))
}

// believable holds an answer against RFC 5905 (stratum, leap, distance) and the floor.
func (s *Syncer) believable(r *ntp.Response) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if at := time.Now().Add(r.ClockOffset); at.Before(s.Floor) {
		return fmt.Errorf("it says %s, but it is at least %s", at.UTC().Format(time.RFC3339), s.Floor.UTC().Format(time.RFC3339))
	}
	return nil
}

func (s *Syncer) adjust(server string, offset time.Duration) (Result, error) {
	result := Result{Server: server, Offset: offset, Stepped: s.Slew == nil || offset.Abs() > stepFrom}
	if !result.Stepped {
		if err := s.Slew(offset); err != nil {
			return result, fmt.Errorf("cannot adjust the clock by %s: %w", offset, err)
		}
		return result, nil
	}
	if err := s.Step(time.Now().Add(offset)); err != nil {
		return result, fmt.Errorf("cannot set the clock by %s: %w", offset, err)
	}
	slog.Info("the clock was set", "by", offset, "server", server)
	return result, nil
}

// query asks one server. A name that cannot be resolved is an error that the next turn tries again.
func query(ctx context.Context, server string) (*ntp.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: timeout})
}
