package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"
)

// A Line is one line that the guest wrote to its serial console.
type Line struct {
	// Number counts from 0 over the life of the machine, reboots included.
	Number int
	// At is the time since power-on at which the line's first byte arrived.
	At time.Duration
	// Text is the line without its end and without terminal control sequences.
	Text string
	// Groups are the submatches of the pattern that [Console.Wait] was called with; Groups[0] is the whole match.
	Groups []string
}

// ErrPowerOff is in the error of a wait on a machine that ended.
var ErrPowerOff = errors.New("the machine is off")

// A Console is the serial console of a machine. It keeps all lines, so that waiting for a line that has already come does
// not hang; a wait names the line from which it looks.
type Console struct {
	start time.Time
	raw   io.Writer // every byte as it comes; may be nil
	input io.Writer

	mu      sync.Mutex
	lines   []Line
	partial []byte        // the line being written
	partAt  time.Duration // when it began
	closed  bool
	changed chan struct{} // closed and replaced with each change
}

func newConsole(start time.Time, input, raw io.Writer) *Console {
	return &Console{start: start, raw: raw, input: input, changed: make(chan struct{})}
}

// controls matches ECMA-48 control sequences and the two-byte escapes, which firmware and boot loader draw their menus with.
var controls = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|[@-Z\\-_=>78cDEHM])`)

// maximumLine bounds the memory that a guest can take by never ending its line.
const maximumLine = 64 << 10

// pump reads the serial line until its end.
func (c *Console) pump(r io.Reader) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if c.raw != nil {
				// A terminal that is gone does not stop the machine.
				_, _ = c.raw.Write(buffer[:n])
			}
			c.add(buffer[:n])
		}
		if err != nil {
			c.close()
			return
		}
	}
}

func (c *Console) add(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Since(c.start)
	for len(b) > 0 {
		if len(c.partial) == 0 {
			c.partAt = now
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 && len(c.partial)+len(b) < maximumLine {
			c.partial = append(c.partial, b...)
			break
		}
		if end < 0 {
			end = len(b) - 1
		}
		c.partial = append(c.partial, b[:end+1]...)
		b = b[end+1:]
		c.finishLine()
	}
	c.notify()
}

func (c *Console) finishLine() {
	c.lines = append(c.lines, Line{Number: len(c.lines), At: c.partAt, Text: clean(c.partial)})
	c.partial = c.partial[:0]
}

func clean(b []byte) string {
	b = controls.ReplaceAll(b, nil)
	b = bytes.TrimRight(b, "\r\n")
	// What a carriage return leaves of a line is what follows the last one.
	return string(b[bytes.LastIndexByte(b, '\r')+1:])
}

func (c *Console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.finishLine()
	}
	c.closed = true
	c.notify()
}

func (c *Console) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Write types on the console.
func (c *Console) Write(b []byte) (int, error) { return c.input.Write(b) }

// Next is the number of the line that the guest writes next: the place to wait from for the effect of what is done now.
func (c *Console) Next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

// Last is the newest line that is not empty.
func (c *Console) Last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := clean(c.partial); s != "" {
		return s
	}
	for i := len(c.lines) - 1; i >= 0; i-- {
		if c.lines[i].Text != "" {
			return c.lines[i].Text
		}
	}
	return ""
}

// Lines returns a copy of the lines from number on.
func (c *Console) Lines(from int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from > len(c.lines) {
		from = len(c.lines)
	}
	return append([]Line(nil), c.lines[from:]...)
}

// Wait returns the first line, of those numbered from on, that matches the pattern (package regexp; one that does not compile
// panics), and waits for it if need be. Only whole lines count: the guest writes a line in pieces, and the first may match
// where the rest is what the caller wants to read. The error says what was waited for and what the console said last; it
// wraps ctx.Err() or [ErrPowerOff].
func (c *Console) Wait(ctx context.Context, from int, pattern string) (Line, error) {
	re := regexp.MustCompile(pattern)
	for {
		c.mu.Lock()
		for ; from < len(c.lines); from++ {
			if groups := re.FindStringSubmatch(c.lines[from].Text); groups != nil {
				line := c.lines[from]
				c.mu.Unlock()
				line.Groups = groups
				return line, nil
			}
		}
		closed, changed := c.closed, c.changed
		c.mu.Unlock()
		if closed {
			return Line{}, fmt.Errorf("cannot find %q on the console: %w; its last line: %q", pattern, ErrPowerOff, c.Last())
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("cannot find %q on the console: %w; its last line: %q", pattern, ctx.Err(), c.Last())
		}
	}
}
