package progress

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlainSaysHowFarLongTasksAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		r := Plain(&out)
		short := r.Start("short", 100)
		short.Add(50)
		short.Add(50)
		short.Done(nil)
		long := r.Start("long", 100<<20)
		for range 4 {
			time.Sleep(time.Second) // of the bubble's clock: takes no time
			long.Add(25 << 20)
		}
		long.Done(nil)
		unknown := r.Start("unknown", 0)
		time.Sleep(3 * time.Second)
		unknown.Done(nil)
		r.Start("unknown and short", 0).Done(nil)
		r.Start("bad", 10).Done(errors.New("x"))
		r.Note("a line")
		want := `short: 100 B in 0s
long: 75.0 MiB of 100.0 MiB, about 1s left
long: 100.0 MiB in 4s
unknown: begun
unknown: done in 3s
unknown and short: done in 0s
bad: failed
a line
`
		if out.String() != want {
			t.Errorf("said\n%s\nwant\n%s", out.String(), want)
		}
	})
}

// Whoever stops early (an error, an interrupt) must not wait for tasks that will never be done.
func TestTerminalStopsWithTasksRunning(t *testing.T) {
	var out strings.Builder
	r, stop := Terminal(&out)
	r.Start("never done", 100).Add(1)
	r.Start("spins", 0)
	done := r.Start("done", 10)
	done.Add(10)
	done.Done(nil)
	r.Start("failed", 10).Done(errors.New("x"))
	finished := make(chan struct{})
	go func() { stop(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(10 * time.Second):
		t.Fatal("stop waits for tasks that are not done")
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 62: "4096.0 PiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
