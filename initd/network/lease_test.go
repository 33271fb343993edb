package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeServer answers what its script says, by call ("acquire", "renew", …), for as long as there is something for it; else it
// is silent.
type fakeServer struct {
	script map[string][]string
	log    func(format string, args ...any)
	fails  error // at once, instead of silence
}

func (s *fakeServer) answer(ctx context.Context, call string) (*Lease, error) {
	s.log("%s", call)
	answers := s.script[call]
	if len(answers) == 0 {
		if s.fails != nil {
			return nil, s.fails
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if answers[0] != "always "+strings.TrimPrefix(answers[0], "always ") {
		s.script[call] = answers[1:]
	}
	word := strings.TrimPrefix(answers[0], "always ")
	switch word {
	case "silence":
		<-ctx.Done()
		return nil, ctx.Err()
	case "nak":
		return nil, errRefused
	}
	a := netip.MustParsePrefix(word)
	gateway := a.Masked().Addr().Next()
	l := &Lease{
		Source: DHCP, Address: a, Acquired: time.Now(), DNS: []netip.Addr{gateway}, Search: []string{"example.com"},
		Routes: []Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: gateway}},
	}
	l.setTimes(0, 0, time.Hour)
	return l, nil
}

func (s *fakeServer) Acquire(ctx context.Context) (*Lease, error) { return s.answer(ctx, "acquire") }
func (s *fakeServer) Confirm(ctx context.Context, _ *Lease) (*Lease, error) {
	return s.answer(ctx, "confirm")
}
func (s *fakeServer) Renew(ctx context.Context, _ *Lease) (*Lease, error) {
	return s.answer(ctx, "renew")
}
func (s *fakeServer) Rebind(ctx context.Context, _ *Lease) (*Lease, error) {
	return s.answer(ctx, "rebind")
}

// TestKeeper compares all that is asked and told, with the second in which it is: attempts vary by an eighth, what
// follows from a schedule does not.
func TestKeeper(t *testing.T) {
	for _, c := range []struct {
		name    string
		script  map[string][]string
		fails   error
		held    string
		age     time.Duration // of the held lease, which lasts an hour
		forever bool          // it does not end
		local   bool          // a link-local address is to be had
		during  time.Duration
		want    string
	}{
		{
			name:   "a lease is renewed at half of its time",
			script: map[string][]string{"acquire": {"10.0.0.5/24"}, "renew": {"10.0.0.5/24", "10.0.0.6/24"}},
			during: 80 * time.Minute,
			want:   "0 acquire\n0 = 10.0.0.5/24\n1800 renew\n1800 = 10.0.0.5/24\n3600 renew\n3600 = 10.0.0.6/24\n",
		},
		{
			// RFC 2131, 4.4.5: T1 1800 s, T2 3150 s, end 3600 s; half of what is left between tries, at least a minute.
			name:   "a server that went away",
			script: map[string][]string{"acquire": {"10.0.0.5/24"}},
			during: 3600500 * time.Millisecond,
			want: "0 acquire\n0 = 10.0.0.5/24\n" +
				"1800 renew\n2475 renew\n2812 renew\n2981 renew\n3065 renew\n3125 renew\n" +
				"3150 rebind\n3375 rebind\n3487 rebind\n3547 rebind\n3600 = nothing\n3600 acquire\n",
		},
		{
			name:   "another server takes over",
			script: map[string][]string{"acquire": {"10.0.0.5/24"}, "rebind": {"10.0.0.5/24"}},
			during: 3200 * time.Second,
			want: "0 acquire\n0 = 10.0.0.5/24\n" +
				"1800 renew\n2475 renew\n2812 renew\n2981 renew\n3065 renew\n3125 renew\n3150 rebind\n3150 = 10.0.0.5/24\n",
		},
		{
			name:   "a server that takes the address back",
			script: map[string][]string{"acquire": {"10.0.0.5/24", "10.0.0.9/24"}, "renew": {"nak"}},
			during: 1900 * time.Second,
			want:   "0 acquire\n0 = 10.0.0.5/24\n1800 renew\n1800 = nothing\n1800 acquire\n1800 = 10.0.0.9/24\n",
		},
		{
			name:   "no server, then one",
			script: map[string][]string{"acquire": {"silence", "silence", "silence", "silence", "10.0.0.5/24"}},
			local:  true,
			during: 60 * time.Second,
			want:   "0 acquire\n1 acquire\n3 acquire\n6 = 169.254.7.7/16\n7 acquire\n15 acquire\n15 = 10.0.0.5/24\n",
		},
		{
			name:   "no server and no link-local address",
			during: 200 * time.Second,
			want:   "0 acquire\n1 acquire\n3 acquire\n7 acquire\n15 acquire\n31 acquire\n63 acquire\n127 acquire\n191 acquire\n",
		},
		{
			name:   "attempts that fail at once are not made in a loop",
			fails:  errors.New("network is down"),
			during: 10 * time.Second,
			want:   "0 acquire\n1 acquire\n3 acquire\n7 acquire\n",
		},
		{
			name:   "the cable comes back",
			held:   "10.0.0.5/24",
			script: map[string][]string{"confirm": {"10.0.0.5/24"}},
			during: time.Minute,
			want:   "0 confirm\n0 = 10.0.0.5/24\n",
		},
		{
			name:   "the cable leads to another network",
			held:   "10.0.0.5/24",
			script: map[string][]string{"confirm": {"nak"}, "acquire": {"192.168.1.5/24"}},
			during: time.Minute,
			want:   "0 confirm\n0 = nothing\n0 acquire\n0 = 192.168.1.5/24\n",
		},
		{
			name:   "the cable comes back but the server does not: the lease is used to its end",
			held:   "10.0.0.5/24",
			age:    59*time.Minute + 10*time.Second,
			during: 52 * time.Second,
			want:   "0 confirm\n1 confirm\n3 acquire\n7 confirm\n15 acquire\n31 confirm\n50 = nothing\n50 acquire\n51 acquire\n",
		},
		{
			name:   "the lease ended while there was no cable",
			held:   "10.0.0.5/24",
			age:    2 * time.Hour,
			script: map[string][]string{"acquire": {"10.0.0.5/24"}},
			during: time.Minute,
			want:   "0 = nothing\n0 acquire\n0 = 10.0.0.5/24\n",
		},
		{
			name:   "the cable comes back, and the server later",
			held:   "10.0.0.5/24",
			script: map[string][]string{"confirm": {"silence", "silence", "silence", "silence", "10.0.0.5/24"}},
			during: 10 * time.Minute,
			want:   "0 confirm\n1 confirm\n3 acquire\n7 confirm\n15 acquire\n31 confirm\n63 acquire\n127 confirm\n127 = 10.0.0.5/24\n",
		},
		{
			name:   "the cable leads to another network, whose server is late",
			held:   "10.0.0.5/24",
			script: map[string][]string{"confirm": {"silence", "silence", "silence", "nak"}, "acquire": {"silence", "silence", "192.168.1.5/24"}},
			during: 10 * time.Minute,
			want: "0 confirm\n1 confirm\n3 acquire\n7 confirm\n15 acquire\n31 confirm\n31 = nothing\n" +
				"31 acquire\n31 = 192.168.1.5/24\n",
		},
		{
			// RFC 2131, 4.3.2: a server that has no record of the client is silent.
			name:    "another router, which does not know the lease; it would never end",
			held:    "10.0.0.5/24",
			forever: true,
			script:  map[string][]string{"acquire": {"silence", "silence", "192.168.1.5/24"}},
			during:  10 * time.Minute,
			want:    "0 confirm\n1 confirm\n3 acquire\n7 confirm\n15 acquire\n31 confirm\n63 acquire\n63 = 192.168.1.5/24\n",
		},
		{
			name:    "a server that has no other address says nothing of the one that is held",
			held:    "10.0.0.5/24",
			forever: true,
			script:  map[string][]string{"acquire": {"always nak"}},
			during:  320 * time.Second,
			want: "0 confirm\n1 confirm\n3 acquire\n7 confirm\n15 acquire\n31 confirm\n63 acquire\n127 confirm\n191 acquire\n" +
				"255 confirm\n319 acquire\n",
		},
		{
			name:   "questions about a lease that fail at once are not asked in a loop",
			held:   "10.0.0.5/24",
			fails:  errors.New("cannot assign requested address"),
			during: 10 * time.Second,
			want:   "0 confirm\n1 confirm\n3 acquire\n7 confirm\n",
		},
		{
			name:   "a link-local address is not confirmed",
			held:   "169.254.7.7/16",
			script: map[string][]string{"acquire": {"10.0.0.5/24"}},
			during: time.Minute,
			want:   "0 acquire\n0 = 10.0.0.5/24\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got strings.Builder
				began := time.Now()
				log := func(format string, args ...any) {
					fmt.Fprintf(&got, "%d ", int(time.Since(began).Round(time.Microsecond)/time.Second))
					fmt.Fprintf(&got, format+"\n", args...)
				}
				k := keeper{name: "eth0", exchanger: &fakeServer{script: c.script, log: log, fails: c.fails}}
				k.report = func(l *Lease) {
					if l == nil {
						log("= nothing")
						return
					}
					log("= %s", l.Address)
				}
				k.fallback = func(context.Context) *Lease {
					if !c.local {
						return nil
					}
					return &Lease{Source: LinkLocal, Address: netip.MustParsePrefix("169.254.7.7/16")}
				}
				var held *Lease
				if c.held != "" {
					held = &Lease{Source: DHCP, Address: netip.MustParsePrefix(c.held), Acquired: began.Add(-c.age)}
					if !c.forever {
						held.setTimes(0, 0, time.Hour)
					}
					if held.Address.Addr().IsLinkLocalUnicast() {
						held.Source = LinkLocal
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.during)
				defer cancel()
				k.run(ctx, held)
				if got.String() != c.want {
					t.Errorf("got:\n%s\nwant:\n%s", got.String(), c.want)
				}
			})
		})
	}
}
