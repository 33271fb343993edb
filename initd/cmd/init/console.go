package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/skerryos/skerry/initd/machine"
)

// A console writes lines for people on every console of the kernel, and into the kernel's log, where they stand in the
// order of what the kernel says and survive in a crash dump.
type console struct {
	debug bool

	mu    sync.Mutex
	ttys  []*os.File
	kmsg  *os.File
	shown string // the last state line
}

func newConsole() *console { return &console{} }

// open opens what there is; before /dev is mounted that is nothing but what the kernel gave process 1.
func (c *console) open() {
	if c.kmsg == nil {
		c.kmsg, _ = os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	}
	if c.ttys != nil {
		return
	}
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return
	}
	for _, name := range strings.Fields(string(active)) {
		if f, err := os.OpenFile("/dev/"+name, os.O_WRONLY, 0); err == nil {
			c.ttys = append(c.ttys, f)
		}
	}
}

// log writes a message with the time since the kernel started.
func (c *console) log(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(text)
}

// record writes a message into the kernel's log only.
func (c *console) record(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeKernelLog(text)
}

// kernelLogPrefix is how init's lines in the kernel's log begin.
const kernelLogPrefix = "skerry: "

func (c *console) writeKernelLog(text string) {
	c.open()
	if c.kmsg == nil {
		return
	}
	// <14>: facility user, level info, which consoles do not show. A record holds about a thousand bytes.
	for line := range strings.Lines(text) {
		fmt.Fprintf(c.kmsg, "<14>"+kernelLogPrefix+"%.960s\n", strings.TrimRight(line, "\n"))
	}
}

func (c *console) write(text string) {
	text = strings.TrimRight(text, "\n")
	c.writeKernelLog(text)
	out := fmt.Sprintf("[%8.3f] %s\n", machine.Uptime().Seconds(), text)
	if len(c.ttys) == 0 {
		_, _ = os.Stdout.WriteString(out)
		return
	}
	for _, tty := range c.ttys {
		// A serial line whose other end is stuck must not stop the machine.
		_ = tty.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = tty.WriteString(out)
	}
}

// status shows the state line if it differs from the last one.
func (c *console) status(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if line != c.shown {
		c.shown = line
		c.write(line)
	}
}

// logger writes what packages log: warnings for people to see, the rest into the kernel's log only; with debug, people
// see all of it.
func (c *console) logger() *slog.Logger {
	shown, kept := slog.LevelWarn, slog.LevelInfo
	if c.debug {
		shown, kept = slog.LevelDebug, slog.LevelDebug
	}
	// The console has its own time, and where a message stands tells its level.
	plain := func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	text := func(to writer, level slog.Level) slog.Handler {
		return slog.NewTextHandler(to, &slog.HandlerOptions{Level: level, ReplaceAttr: plain})
	}
	return slog.New(slog.NewMultiHandler(text(c.log, shown), below{text(c.record, kept), shown}))
}

// A writer hands each message on as a whole: a handler writes one at a time.
type writer func(string)

func (w writer) Write(b []byte) (int, error) {
	w(string(b))
	return len(b), nil
}

// below handles only messages of less importance than limit.
type below struct {
	slog.Handler
	limit slog.Level
}

func (b below) Enabled(ctx context.Context, l slog.Level) bool {
	return l < b.limit && b.Handler.Enabled(ctx, l)
}

func (b below) WithAttrs(attrs []slog.Attr) slog.Handler {
	return below{b.Handler.WithAttrs(attrs), b.limit}
}

func (b below) WithGroup(name string) slog.Handler { return below{b.Handler.WithGroup(name), b.limit} }
