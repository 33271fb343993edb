// Package discovery lets the device be found in the networks that it is wired to: it answers multicast DNS (RFC 6762) for its host
// name in the domain local, and for an instance of [v1.MDNSService] (RFC 6763), whose TXT record says what it is and how
// it is.
//
// What it says is not secret and proves nothing: whoever is in the network hears it, and may say the same. Who a device is
// shows its key.
//
// It speaks on the links that have one of the device's own addresses, so not to pods. It does not say what it has not claimed
// before, answers nothing to machines beyond the link, and nothing more often than RFC 6762 wants: a forged question brings
// nobody more than a few packets a second.
package discovery

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// A State is what the device says of itself.
type State struct {
	// Hostname is the name that the device wants: what comes before the first dot. While it is empty nothing is said.
	Hostname string
	// ID is a [PublicID].
	ID      string
	Version string
	Board   string
	Slot    string
	Phase   v1.Phase
	// Addresses are the device's own on all links. Those that a link has are said on that link.
	Addresses []netip.Addr
}

// PublicID is what stands for a machine identifier in a network, where that itself must not be shown (machine-id(5)): a keyed hash
// of it, from which it cannot be told, and the same for as long as it is the same. It is empty for an empty one.
func PublicID(machineID string) string {
	if machineID == "" {
		return ""
	}
	h := hmac.New(sha256.New, []byte(machineID))
	h.Write([]byte("skerry multicast DNS"))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// StateOf takes from the device's status what others may know. Addresses that cannot be read are left out.
func StateOf(s v1.State) State {
	out := State{Hostname: s.Hostname, ID: PublicID(s.MachineID), Version: s.Version, Board: s.Board, Slot: s.Slot, Phase: s.Phase}
	for _, text := range s.Addresses {
		if a, err := netip.ParseAddr(text); err == nil {
			out.Addresses = append(out.Addresses, a.Unmap().WithZone(""))
		}
	}
	return out
}

// Poll looks at the state in intervals and tells it each time that it has changed, beginning with the first, until ctx is done.
func Poll(ctx context.Context, every time.Duration, look func() State) <-chan State {
	states := make(chan State)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var told State
		for first := true; ; {
			if s := look(); first || !reflect.DeepEqual(s, told) {
				select {
				case states <- s:
					told, first = s, false
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return states
}

// A Responder answers for the device.
type Responder struct {
	// Open opens the network: [Open], or a test's.
	Open func() (Network, error)
	// States tells what is to be said from now on. Nothing is said before the first.
	States <-chan State

	// random returns a duration below its argument; nil is chance.
	random func(time.Duration) time.Duration
}

// lookEvery is how often the links are looked at when nothing is heard of a change: one may have come without an address, or
// again after it was away.
const lookEvery = time.Minute

// Run answers until ctx is done; then it says goodbye and returns nil. It fails when the network cannot be opened or heard, and may
// then be called again, with States that begin again.
func (r *Responder) Run(ctx context.Context) error {
	network, err := r.Open()
	if err != nil {
		return err
	}
	defer network.Close()
	packets := make(chan Packet)
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			p, err := network.Receive()
			if err != nil {
				failed <- err
				return
			}
			select {
			case packets <- p:
			case <-ctx.Done():
				return
			}
		}
	}()

	s := newSpeaker(network)
	if r.random != nil {
		s.random = r.random
	}
	due := time.NewTimer(0)
	defer due.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	states := r.States
	for {
		select {
		case state, more := <-states:
			if !more {
				states = nil // what was said last holds
				break
			}
			s.setState(time.Now(), state)
		case <-look.C:
			s.look(time.Now())
		case p := <-packets:
			s.receive(time.Now(), p)
		case <-due.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			s.goodbye()
			return nil
		}
		s.speak(time.Now())
		if next, ok := s.next(); ok {
			due.Reset(time.Until(next))
		}
	}
}

// A speaker is what Run knows. It has no goroutines, and no time of its own: every call is told what time it is.
type speaker struct {
	network Network
	state   State
	// taken counts the names that others had: 0 is the host name itself.
	taken int
	// conflicts are when names were found to be taken, of late. There were many: names are tried slowly for a while.
	conflicts []time.Time
	slowUntil time.Time
	// own are the addresses of all links: what comes from there is our own voice.
	own map[netip.Addr]bool
	// outlets are sorted by link and family.
	outlets []*outlet
	// random returns a duration below its argument.
	random func(time.Duration) time.Duration
	// complained is the last complaint about the links, which is not repeated.
	complained string
}

func newSpeaker(n Network) *speaker {
	return &speaker{network: n, own: map[netip.Addr]bool{}, random: rand.N[time.Duration]}
}

// names are those that the device has or wants.
func (s *speaker) names() names { return newNames(s.state.Hostname, s.taken) }

func (s *speaker) setState(now time.Time, state State) {
	if newNames(state.Hostname, 0) != newNames(s.state.Hostname, 0) {
		s.goodbye()
		s.taken = 0
		for _, o := range s.outlets {
			o.claim(now.Add(s.random(probeWait)))
		}
	}
	s.state = state
	s.look(now)
}

// look finds the links that are to be spoken on.
func (s *speaker) look(now time.Time) {
	links, err := s.network.Links()
	if err != nil {
		s.complain(err)
		return
	}
	var outlets []*outlet
	var errs []error
	clear(s.own)
	wait := now.Add(s.random(probeWait))
	for _, l := range links {
		for _, p := range l.Addresses {
			s.own[p.Addr()] = true
		}
		if len(ownOf(l, s.state.Addresses)) == 0 {
			continue
		}
		if err := s.network.Join(l); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, group := range l.Groups() {
			o := s.outlet(l.Index, group)
			if o == nil {
				o = newOutlet(group)
				o.claim(wait)
			}
			o.link = l
			outlets = append(outlets, o)
		}
	}
	for _, o := range s.outlets {
		kept := false
		for _, p := range outlets {
			kept = kept || o == p
		}
		if !kept {
			s.bye(o) // in vain if the link is gone
		}
	}
	s.outlets = outlets
	for _, o := range s.outlets {
		o.change(now, s.records(o))
	}
	s.complain(errors.Join(errs...))
}

func (s *speaker) outlet(link int, group netip.AddrPort) *outlet {
	for _, o := range s.outlets {
		if o.link.Index == link && o.group == group {
			return o
		}
	}
	return nil
}

// complain says what is wrong, once.
func (s *speaker) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != s.complained {
		slog.Warn("the device cannot be found on all links", "reason", text)
	}
	s.complained = text
}

// send sends a message through an outlet. What cannot be sent is lost, as packets are.
func (s *speaker) send(o *outlet, to netip.AddrPort, m Message) {
	b, err := m.Pack()
	if err == nil && len(b) > MaxPacket {
		err = fmt.Errorf("a packet of %d bytes is too long", len(b))
	}
	if err == nil {
		err = s.network.Send(o.link.Index, to, b)
	}
	if err != nil {
		slog.Debug("a packet of multicast DNS is lost", "link", o.link.Name, "reason", err)
	}
}
