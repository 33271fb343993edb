package follow

import "time"

// A Window is a time of day. Start and End are times since midnight in Zone; it spans midnight when it ends before it starts.
type Window struct {
	Start, End time.Duration
	Zone       *time.Location
}

const day = 24 * time.Hour

// Contains tells whether t is in the window.
func (w *Window) Contains(t time.Time) bool {
	into := t.Sub(w.midnight(t))
	if w.Start < w.End {
		return into >= w.Start && into < w.End
	}
	return into >= w.Start || into < w.End
}

// midnight is that before t. It has no reading of the monotonic clock, which knows nothing of times of day.
func (w *Window) midnight(t time.Time) time.Time {
	y, m, d := t.In(w.Zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, w.Zone)
}

// length is how long it is open.
func (w *Window) length() time.Duration {
	if w.Start < w.End {
		return w.End - w.Start
	}
	return w.End - w.Start + day
}

// moment is a moment of the next window that opens at t or later; random is from [0, 1).
func (w *Window) moment(t time.Time, random float64) time.Time {
	opens := w.midnight(t).Add(w.Start)
	if opens.Before(t.Round(0)) {
		opens = opens.Add(day)
	}
	return opens.Add(time.Duration(random * float64(w.length())))
}

// firstSpan is in which the first question after a start lies, when the interval is longer: a device that restarts each day
// must get to ask.
const firstSpan = time.Hour

// A schedule chooses moments.
type schedule struct {
	interval time.Duration
	window   *Window
	random   func() float64
	// begin is that of the interval to choose a moment of.
	begin time.Time
}

// next is when to ask. Without a window it is measured by the monotonic clock: a device without a clock of its own starts in the
// past, and a fleet of them must not ask at the moment when the time server has told them the time.
func (s *schedule) next(now time.Time) time.Time {
	span := s.interval
	if s.begin.IsZero() {
		s.begin, span = now, min(s.interval, firstSpan)
	}
	for !s.begin.Add(s.interval).After(now) {
		s.begin = s.begin.Add(s.interval) // the last turn took so long
	}
	at := s.begin.Add(time.Duration(s.random() * float64(span)))
	s.begin = s.begin.Add(s.interval)
	if at.Before(now) {
		at = now
	}
	if s.window == nil {
		return at
	}
	if at = at.Round(0); !s.window.Contains(at) {
		at = s.window.moment(at, s.random())
	}
	return at
}
