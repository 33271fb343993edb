package main

import (
	"fmt"
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

func (c *console) write(text string) {
	c.open()
	text = strings.TrimRight(text, "\n")
	if c.kmsg != nil {
		// <14>: facility user, level info, which consoles do not show: it is written to them below. A record holds
		// about a thousand bytes.
		for line := range strings.Lines(text) {
			fmt.Fprintf(c.kmsg, "<14>skerry: %.960s\n", strings.TrimRight(line, "\n"))
		}
	}
	out := fmt.Sprintf("[%8.3f] %s\r\n", machine.Uptime().Seconds(), strings.ReplaceAll(text, "\n", "\r\n"))
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
