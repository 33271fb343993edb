package timesync

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/ntp"
)

// ntpServer answers on loopback with a clock that is ahead of ours, until the test ends. stratum 0 is a kiss of death.
func ntpServer(t *testing.T, ahead time.Duration, stratum byte) string {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for {
			request := make([]byte, 128)
			n, from, err := conn.ReadFrom(request)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			// RFC 5905, 7.3.
			now := timestamp(time.Now().Add(ahead))
			answer := make([]byte, 48)
			answer[0] = request[0]&0x38 | 4 // no leap second, the client's version, mode server
			answer[1] = stratum
			answer[2], answer[3] = 6, 0xec // poll 64 s, precision 1 µs
			binary.BigEndian.PutUint64(answer[16:], now-1<<32)
			copy(answer[24:32], request[40:48])
			binary.BigEndian.PutUint64(answer[32:], now)
			binary.BigEndian.PutUint64(answer[40:], now)
			conn.WriteTo(answer, from)
		}
	}()
	return conn.LocalAddr().String()
}

// timestamp is RFC 5905's: seconds since 1900 in 32.32 bits.
func timestamp(t time.Time) uint64 {
	seconds := uint64(t.Unix()) + 2208988800
	return seconds<<32 | uint64(t.Nanosecond())<<32/1_000_000_000
}

// TestServers asks real (fake) servers over UDP: what the clock is told, to a tenth of a second.
func TestServers(t *testing.T) {
	const years = 3 * doubtFrom
	far, farToo, farther := ntpServer(t, years, 2), ntpServer(t, years+agreement/2, 2), ntpServer(t, years+time.Hour, 2)
	good, slightly, death, old := ntpServer(t, time.Hour, 2), ntpServer(t, 200*time.Millisecond, 2), ntpServer(t, time.Hour, 0), ntpServer(t, -48*time.Hour, 2)
	oldToo := ntpServer(t, -48*time.Hour+agreement/2, 2)
	for _, c := range []struct {
		name    string
		o       Options
		network []string
		noSlew  bool
		want    string
	}{
		{"the operator's server", Options{Servers: []string{good}, Default: []string{slightly}}, []string{slightly}, false, "step 3600.0"},
		{"the network's server", Options{Default: []string{good}}, []string{slightly}, false, "slew 0.2"},
		{"the default", Options{Default: []string{slightly}}, nil, false, "slew 0.2"},
		{"a small offset without a way to slew", Options{Default: []string{slightly}}, nil, true, "step 0.2"},
		{"a server that refuses, then one that answers", Options{Servers: []string{death, good}}, nil, false, "step 3600.0"},
		{"the network's server fails, the default answers", Options{Default: []string{good}}, []string{death}, false, "step 3600.0"},
		{"the operator's server fails, and no other is asked", Options{Servers: []string{death}, Default: []string{good}}, []string{good}, false, "kiss of death received"},
		{"a server that is before the floor", Options{Servers: []string{old}, Floor: time.Now().Add(-time.Hour)}, nil, false, "but it is at least"},
		{"a server that is back in time, but not before the floor", Options{Servers: []string{old}, Floor: time.Now().Add(-72 * time.Hour)}, nil, false, "step -172800.0"},
		{"the network's server is back in time, and the default is not", Options{Default: []string{slightly}}, []string{old}, false, "slew 0.2"},
		{"two servers that are back in time", Options{Servers: []string{old, oldToo}}, nil, false, "step -172770.0"},
		{"two servers that are years ahead", Options{Servers: []string{far, farToo}}, nil, false, "step 94608030.0"},
		{"the network's server is years ahead, and the default is not", Options{Default: []string{slightly}}, []string{far}, false, "slew 0.2"},
		{"two that agree, after one that does not", Options{Default: []string{far, farToo}}, []string{farther}, false, "step 94608030.0"},
		{"a server that is years ahead, and the other does not answer", Options{Servers: []string{far, death}}, nil, false, "step 94608000.0"},
		{"no two servers agree on the year", Options{Servers: []string{far, farther}}, nil, false, "and no other server agrees"},
		{"no server", Options{}, nil, false, "no time server is known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got string
			c.o.Step = func(at time.Time) error { got = fmt.Sprintf("step %.1f", time.Until(at).Seconds()); return nil }
			if !c.noSlew {
				c.o.Slew = func(d time.Duration) error { got = fmt.Sprintf("slew %.1f", d.Seconds()); return nil }
			}
			s := New(c.o)
			s.NetworkChanged(c.network)
			_, err := s.sync(t.Context())
			if err != nil {
				got = err.Error()
			}
			if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestRun looks at when servers are asked, in the bubble's time.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var asked, synced []time.Duration
		answers := 0 // how many are to fail first
		s := New(Options{
			Default: []string{"time.example.com"},
			Step:    func(time.Time) error { return nil },
			Synced:  func(Result) { synced = append(synced, time.Since(began)) },
			query: func(context.Context, string) (*ntp.Response, error) {
				asked = append(asked, time.Since(began))
				if answers++; answers <= 8 {
					return nil, errors.New("network is unreachable")
				}
				return &ntp.Response{Version: 4, Stratum: 2, Leap: ntp.LeapNoWarning}, nil
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		go func() {
			time.Sleep(time.Hour) // of the bubble's time
			s.NetworkChanged(nil)
		}()
		s.Run(ctx)
		if len(synced) != len(asked)-8 || len(asked) < 12 {
			t.Fatalf("asked at %v, synchronised at %v", asked, synced)
		}
		told := false
		for i := 1; i < len(asked); i++ {
			wait := asked[i] - asked[i-1]
			most := longest
			if i <= 8 {
				most = min(shortest<<i, retry)
			}
			if asked[i] == time.Hour {
				told = true
				continue
			}
			if least := most - most/4; wait > most || wait < least {
				t.Errorf("waited %s before question %d, want %s to %s", wait, i+1, least, most)
			}
		}
		if !told {
			t.Errorf("a change of the network did not lead to a question: asked at %v", asked)
		}
	})
}

// A clock that cannot be set is no clock that can be relied on.
func TestStepFails(t *testing.T) {
	s := New(Options{Servers: []string{ntpServer(t, time.Hour, 2)}, Step: func(time.Time) error { return errors.New("operation not permitted") }})
	if _, err := s.sync(t.Context()); err == nil || !strings.Contains(err.Error(), "operation not permitted") {
		t.Errorf("got %v", err)
	}
}
