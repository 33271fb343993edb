// Package progress tells a person how far a long piece of work is: bars with bytes and time left on a terminal,
// plain lines elsewhere (CI logs, pipes), nothing when nobody looks.
package progress

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A Reporter is told about work as it begins. Its methods may be called from several goroutines.
type Reporter interface {
	// Start begins a piece of work of that many bytes; total is 0 where nobody can know.
	Start(what string, total int64) Task
	// Note says one line that stays.
	Note(line string)
}

// A Task is one piece of work. Done is called exactly once, and nothing after it.
type Task interface {
	// Add says that n more bytes are done.
	Add(n int64)
	// Done ends the task; err is why it failed, or nil.
	Done(err error)
}

// Discard is a Reporter that nobody looks at.
var Discard Reporter = discard{}

type discard struct{}

func (discard) Start(string, int64) Task { return discard{} }
func (discard) Note(string)              {}
func (discard) Add(int64)                {}
func (discard) Done(error)               {}

// Plain returns a Reporter that writes a line when a task ends. Of a task that takes longer than two seconds it also writes one at every
// tenth part, with the time left, or if nobody knows how much there is to do one that says that it goes on.
func Plain(w io.Writer) Reporter { return &plain{w: w} }

type plain struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *plain) Note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.w, line)
}

func (p *plain) Start(what string, total int64) Task {
	t := &plainTask{p: p, what: what, total: total, begun: time.Now()}
	if total == 0 {
		t.long = time.AfterFunc(2*time.Second, func() { p.Note(what + ": begun") })
	}
	return t
}

type plainTask struct {
	p     *plain
	what  string
	total int64
	begun time.Time
	long  *time.Timer // says that it takes long; nil if there is a total

	mu     sync.Mutex
	done   int64
	tenths int64
}

func (t *plainTask) Add(n int64) {
	t.mu.Lock()
	t.done += n
	var line string
	if t.total > 0 {
		spent := time.Since(t.begun)
		if tenths := t.done * 10 / t.total; tenths > t.tenths && tenths < 10 && spent > 2*time.Second {
			t.tenths = tenths
			left := time.Duration(float64(spent) * float64(t.total-t.done) / float64(t.done))
			line = fmt.Sprintf("%s: %s of %s, about %s left", t.what, Bytes(t.done), Bytes(t.total), left.Round(time.Second))
		}
	}
	t.mu.Unlock()
	if line != "" {
		t.p.Note(line)
	}
}

func (t *plainTask) Done(err error) {
	if t.long != nil {
		t.long.Stop()
	}
	t.mu.Lock()
	line := fmt.Sprintf("%s: done in %s", t.what, time.Since(t.begun).Round(10*time.Millisecond))
	if t.done > 0 {
		line = fmt.Sprintf("%s: %s in %s", t.what, Bytes(t.done), time.Since(t.begun).Round(10*time.Millisecond))
	}
	if err != nil {
		line = t.what + ": failed"
	}
	t.mu.Unlock()
	t.p.Note(line)
}

// Terminal returns a Reporter that draws bars on w, and the function that takes down what is still running, waits
// until all is drawn, and leaves the lines of what is done.
func Terminal(w io.Writer) (Reporter, func()) {
	b := &bars{p: mpb.New(mpb.WithOutput(w), mpb.WithWidth(32), mpb.WithAutoRefresh()), running: map[*bar]bool{}}
	return b, b.stop
}

type bars struct {
	p *mpb.Progress

	mu      sync.Mutex
	running map[*bar]bool
}

func (b *bars) stop() {
	b.mu.Lock()
	for t := range b.running {
		t.b.Abort(true)
	}
	b.mu.Unlock()
	b.p.Wait()
}

func (b *bars) Note(line string) { fmt.Fprintln(b.p, line) }

func (b *bars) Start(what string, total int64) Task {
	t := &bar{bars: b, total: total}
	name := decor.Name(what, decor.WCSyncSpaceR)
	if total > 0 {
		t.b = b.p.New(total, mpb.BarStyle(), mpb.PrependDecorators(name),
			mpb.AppendDecorators(
				decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace),
				decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace), "done"),
			))
	} else {
		t.b = b.p.New(0, mpb.SpinnerStyle().PositionLeft(), mpb.PrependDecorators(name),
			mpb.AppendDecorators(decor.Elapsed(decor.ET_STYLE_GO, decor.WCSyncSpace)))
	}
	b.mu.Lock()
	b.running[t] = true
	b.mu.Unlock()
	return t
}

type bar struct {
	bars  *bars
	total int64
	b     *mpb.Bar
}

func (t *bar) Add(n int64) {
	if t.total > 0 {
		t.b.IncrInt64(n)
	}
}

func (t *bar) Done(err error) {
	t.bars.mu.Lock()
	delete(t.bars.running, t)
	t.bars.mu.Unlock()
	if err != nil {
		t.b.Abort(false)
		return
	}
	t.b.SetTotal(t.b.Current(), true)
}

// Bytes writes a number of bytes as a person reads it, in binary units.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= unit && i < 4 {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[i])
}
