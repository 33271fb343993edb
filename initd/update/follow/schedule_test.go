package follow

import (
	"math/rand/v2"
	"testing"
	"time"
)

func clockTime(t *testing.T, text string) time.Duration {
	t.Helper()
	at, err := time.Parse("15:04", text)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
}

func TestWindow(t *testing.T) {
	berlin := time.FixedZone("+01:00", 3600)
	for _, test := range []struct {
		start, end string
		zone       *time.Location
		at         string // UTC, of 1 March
		want       bool
		opens      string
	}{
		{"02:00", "04:00", time.UTC, "01:59", false, "1 02:00"},
		{"02:00", "04:00", time.UTC, "02:00", true, "1 02:00"},
		{"02:00", "04:00", time.UTC, "03:59", true, "2 02:00"},
		{"02:00", "04:00", time.UTC, "04:00", false, "2 02:00"},
		{"02:00", "04:00", berlin, "01:00", true, "1 01:00"},
		{"02:00", "04:00", berlin, "03:00", false, "2 01:00"},
		{"23:00", "01:00", time.UTC, "23:30", true, "2 23:00"},
		{"23:00", "01:00", time.UTC, "00:59", true, "1 23:00"},
		{"23:00", "01:00", time.UTC, "01:00", false, "1 23:00"},
		{"00:30", "02:30", berlin, "23:40", true, "2 23:30"},
		{"00:30", "02:30", berlin, "23:20", false, "1 23:30"},
	} {
		w := Window{clockTime(t, test.start), clockTime(t, test.end), test.zone}
		at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(clockTime(t, test.at))
		if got := w.Contains(at); got != test.want {
			t.Errorf("%+v at %s: open %v", test, at, got)
		}
		if got := w.moment(at, 0).UTC().Format("2 15:04"); got != test.opens {
			t.Errorf("%+v at %s opens at %s", test, at, got)
		}
	}
}

// Each interval has its moment, in the window, and the first comes soon after the start.
func TestSchedule(t *testing.T) {
	for _, test := range []struct {
		name     string
		interval time.Duration
		window   *Window
		first    time.Duration // at most
	}{
		{"daily", 24 * time.Hour, nil, time.Hour},
		{"often", 5 * time.Minute, nil, 5 * time.Minute},
		{"daily by night", 24 * time.Hour, &Window{23 * time.Hour, time.Hour, time.UTC}, 13 * time.Hour},
		{"often by night", time.Hour, &Window{2 * time.Hour, 4 * time.Hour, time.UTC}, 16 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			for range 200 {
				s := schedule{interval: test.interval, window: test.window, random: random.Float64}
				now, days := start, 0
				for i := range 30 {
					at := s.next(now)
					switch {
					case at.Before(now):
						t.Fatalf("asked at %v for a moment in the past: %v", now, at)
					case i == 0 && at.Sub(start) > test.first:
						t.Fatalf("the first question is at %v", at)
					case test.window != nil && !test.window.Contains(at):
						t.Fatalf("%v is outside of the window", at)
					case test.window == nil && at.Sub(now) > 2*test.interval:
						t.Fatalf("after %v nothing until %v", now, at)
					}
					now = at.Add(time.Second)
					days = int(now.Sub(start) / day)
				}
				if most := int(30*test.interval/day) + 30; days > most {
					t.Fatalf("30 questions took %d days", days)
				}
			}
		})
	}
}

// A turn that takes longer than the interval does not leave others to be made up for.
func TestScheduleAfterALongTurn(t *testing.T) {
	s := schedule{interval: time.Hour, random: func() float64 { return 0.5 }}
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s.next(start)
	later := start.Add(100*time.Hour + 10*time.Minute)
	if got, want := s.next(later), start.Add(100*time.Hour+30*time.Minute); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := s.next(later), start.Add(101*time.Hour+30*time.Minute); !got.Equal(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Without a window a clock that is set changes nothing.
func TestScheduleKeepsTheMonotonicClock(t *testing.T) {
	s := schedule{interval: time.Hour, random: func() float64 { return 0.5 }}
	if at := s.next(time.Now()); at == at.Round(0) {
		t.Error("the moment has lost its reading of the monotonic clock")
	}
}
