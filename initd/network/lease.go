package network

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"
)

// A Source says where an address comes from.
type Source string

// The sources of addresses.
const (
	Static    Source = "static" // an operator's configuration
	DHCP      Source = "dhcp"
	LinkLocal Source = "link-local" // made up, because no DHCP server answered (RFC 3927)
)

// A Lease is what a DHCP server gave for a time. It is not changed once made.
type Lease struct {
	Source Source
	// Address is not valid when only the rest was asked for (DHCPv6 without address).
	Address netip.Prefix
	// Routes have a Dst and perhaps a Gateway.
	Routes   []Route
	DNS, NTP []netip.Addr
	Search   []string
	MTU      int // 0: not said

	// Acquired is when the server was asked. The times after it are when the lease should be renewed with its server, when
	// with any server, and when it ends; Expire 0 means never.
	Acquired              time.Time
	Renew, Rebind, Expire time.Duration

	// answer is the packet that gave it, for the client.
	answer any
}

// errRefused is a server's word that the lease is not, or no longer, good (DHCPNAK; RFC 8415, NoBinding).
var errRefused = errors.New("the server refused the lease")

// An exchanger exchanges messages with DHCP servers on one link. Each call is one attempt, that lasts until there is an
// answer or ctx is done.
type exchanger interface {
	// Acquire asks any server for a lease.
	Acquire(ctx context.Context) (*Lease, error)
	// Confirm asks whether a lease is good on the network that the link leads to now.
	Confirm(ctx context.Context, l *Lease) (*Lease, error)
	// Renew asks the lease's server to extend it, Rebind any server.
	Renew(ctx context.Context, l *Lease) (*Lease, error)
	Rebind(ctx context.Context, l *Lease) (*Lease, error)
}

// The waits of RFC 2131, 4.1 and 4.4.5. Attempts begin shorter than the RFC's 4 seconds, because a link often has its
// carrier before the switch forwards.
const (
	firstWait   = time.Second
	longestWait = 64 * time.Second
	leastRetry  = time.Minute
	// patience is how many attempts (7 seconds in all) go unanswered before a link-local address is used, or a held lease
	// is not all that is asked about: some servers look for a user of the address for 3 seconds before they offer it.
	patience = 3
)

// A keeper keeps the lease of a link for one family (the states of RFC 2131, 4.4).
type keeper struct {
	name string // of the link
	exchanger
	// fallback makes a lease for want of a server; nil or a nil lease: there is none.
	fallback func(context.Context) *Lease
	// report is told of each lease, and nil when it is lost.
	report func(*Lease)
}

// run keeps a lease until ctx is done. held is the lease from before the link lost its carrier, or nil.
func (k *keeper) run(ctx context.Context, held *Lease) {
	var lease *Lease
	if held != nil && held.Source == DHCP {
		lease = k.confirm(ctx, held)
	}
	for ctx.Err() == nil {
		if lease == nil {
			lease = k.acquire(ctx)
			continue
		}
		lease = k.keep(ctx, lease)
	}
}

// confirm is the state INIT-REBOOT. It returns a lease, or nil when the held one was lost or ctx is done. Until there is an
// answer the held lease is used for the rest of its time (RFC 2131, 3.2), but asked about: a server may be back later than
// the link. One that never heard of the lease says nothing to that (4.3.2), so that it is asked for a lease of its own, too.
func (k *keeper) confirm(ctx context.Context, held *Lease) *Lease {
	wait := firstWait
	for attempt := 1; ctx.Err() == nil; attempt++ {
		began, length := time.Now(), wait
		if held.Expire > 0 {
			left := held.Expire - time.Since(held.Acquired)
			if left <= 0 {
				k.lost(held)
				return nil
			}
			length = min(wait, left)
		}
		about := attempt < patience || attempt%2 == 0
		ask := k.Acquire
		if about {
			ask = func(ctx context.Context) (*Lease, error) { return k.Confirm(ctx, held) }
		}
		lease, err := within(ctx, length, ask)
		if err == nil {
			k.report(lease)
			return lease
		}
		// Who has no other lease for us has not said that this one is bad.
		if about && errors.Is(err, errRefused) {
			slog.Info("the address is not good here", "link", k.name, "address", held.Address)
			k.report(nil)
			return nil
		}
		if attempt == patience && ctx.Err() == nil {
			slog.Warn("no DHCP server answers; using the address from before and asking on", "link", k.name, "address", held.Address, "reason", err)
		}
		// An attempt that failed at once must not be repeated at once: DHCPv6 fails until the check for duplicates is over.
		if !sleep(ctx, length-time.Since(began)) {
			return nil
		}
		wait = min(2*wait, longestWait)
	}
	return nil
}

// acquire is the states INIT, SELECTING and REQUESTING. It returns a lease, or nil when ctx is done.
func (k *keeper) acquire(ctx context.Context) *Lease {
	wait := firstWait
	for attempt := 1; ; attempt++ {
		began := time.Now()
		lease, err := within(ctx, wait, k.Acquire)
		if err == nil {
			k.report(lease)
			return lease
		}
		if ctx.Err() != nil {
			return nil
		}
		slog.Debug("no lease yet", "link", k.name, "attempt", attempt, "reason", err)
		if attempt == patience && k.fallback != nil {
			slog.Warn("no DHCP server answers; using a link-local address and asking on", "link", k.name, "reason", err)
			if lease := k.fallback(ctx); lease != nil {
				k.report(lease)
			}
		}
		// An attempt that failed at once must not be repeated at once.
		if !sleep(ctx, wait-time.Since(began)) {
			return nil
		}
		wait = min(2*wait, longestWait)
	}
}

// keep is the states BOUND, RENEWING and REBINDING. It returns the extended lease; nil when it was lost or ctx is done.
func (k *keeper) keep(ctx context.Context, l *Lease) *Lease {
	if l.Expire == 0 {
		<-ctx.Done()
		return nil
	}
	phases := []struct {
		ask        func(context.Context, *Lease) (*Lease, error)
		begin, end time.Duration
	}{
		{k.Renew, l.Renew, l.Rebind},
		{k.Rebind, l.Rebind, l.Expire},
	}
	for _, p := range phases {
		if !sleep(ctx, p.begin-time.Since(l.Acquired)) {
			return nil
		}
		for left := p.end - time.Since(l.Acquired); left > 0; left = p.end - time.Since(l.Acquired) {
			again := time.Now().Add(min(left, max(left/2, leastRetry)))
			lease, err := try(ctx, min(left, 4*firstWait), l, p.ask)
			if err == nil {
				k.report(lease)
				return lease
			}
			if errors.Is(err, errRefused) {
				slog.Warn("the DHCP server took the address back", "link", k.name, "address", l.Address)
				k.report(nil)
				return nil
			}
			slog.Debug("the lease was not extended", "link", k.name, "reason", err)
			if !sleep(ctx, time.Until(again)) {
				return nil
			}
		}
	}
	k.lost(l)
	return nil
}

// lost says that a lease is over.
func (k *keeper) lost(l *Lease) {
	slog.Warn("the lease of the address ended", "link", k.name, "address", l.Address)
	k.report(nil)
}

// within makes one attempt that ends after about the time wait. The length varies (RFC 2131, 4.1), so that a rack of machines that were
// switched on together does not ask in step.
func within(ctx context.Context, wait time.Duration, ask func(context.Context) (*Lease, error)) (*Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, wait-time.Duration(rand.Int64N(int64(wait/8)+1)))
	defer cancel()
	return ask(ctx)
}

func try(ctx context.Context, wait time.Duration, l *Lease, ask func(context.Context, *Lease) (*Lease, error)) (*Lease, error) {
	return within(ctx, wait, func(ctx context.Context) (*Lease, error) { return ask(ctx, l) })
}

// sleep reports false when ctx is done first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
