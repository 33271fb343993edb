package machine

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Reboot restarts the machine at once; PowerOff switches it off. File systems must be unmounted before. They return only
// if the kernel refuses.
//
// The kernel asks each driver to stop its device first, and waits for a stuck one for ever, with the watchdog of most machines
// halted. It is given half a minute for that, and is then made to restart without its drivers
// (https://docs.kernel.org/admin-guide/sysrq.html): a machine that was to be switched off restarts then, too, which is better than one
// that hangs.
func Reboot() error {
	return end(func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }, sysrq, driversTime)
}

func PowerOff() error {
	return end(func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }, sysrq, driversTime)
}

const (
	driversTime = 30 * time.Second
	sysrq       = "/proc/sysrq-trigger"
)

func end(machine func() error, trigger string, wait time.Duration) error {
	// Opened now: later even that may hang.
	if f, err := os.OpenFile(trigger, os.O_WRONLY, 0); err == nil {
		defer f.Close()
		atOnce := time.AfterFunc(wait, func() { _, _ = f.WriteString("b") })
		defer atOnce.Stop()
	}
	return machine()
}

// CatchCtrlAltDel makes the kernel send SIGINT to process 1 for ctrl-alt-del, instead of rebooting at once.
func CatchCtrlAltDel() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) }

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}

// SetClock sets the system's clock.
func SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("cannot set the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// SetHostname sets the kernel's idea of the machine's name.
func SetHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("cannot set the hostname %q: %w", name, err)
	}
	return nil
}

// PowerButton waits until somebody presses the power button of the machine, which the kernel shows as an input device
// (https://docs.kernel.org/input/event-codes.html). It returns when ctx is done, too.
func PowerButton(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := Uevents(ctx)
	if err != nil {
		return err
	}
	pressed := make(chan struct{}, 1)
	watched := map[string]bool{}
	for {
		names, err := filepath.Glob("/sys/class/input/event*/device/capabilities/key")
		if err != nil {
			return err
		}
		for _, name := range names {
			event := strings.Split(name, "/")[4]
			if watched[event] || !hasKey(readLine(name), keyPower) {
				continue
			}
			f, err := os.Open("/dev/input/" + event)
			if err != nil {
				continue // gone again, or its node is not there yet: an event follows
			}
			watched[event] = true
			context.AfterFunc(ctx, func() { f.Close() })
			go watchKey(f, pressed)
		}
		select {
		case <-pressed:
			return nil
		case <-events:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const (
	eventKey = 1
	keyPower = 116
)

// hasKey reads a bitmap of words in hexadecimal, the highest first.
func hasKey(bitmap string, key int) bool {
	words := strings.Fields(bitmap)
	const bits = strconv.IntSize
	i := len(words) - 1 - key/bits
	if i < 0 {
		return false
	}
	w, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && w>>(key%bits)&1 == 1
}

func watchKey(f io.Reader, pressed chan<- struct{}) {
	// struct input_event: a time of two longs, type, code, value
	const longs = 2 * strconv.IntSize / 8
	b := make([]byte, longs+8)
	for {
		if _, err := io.ReadFull(f, b); err != nil {
			return
		}
		le := binary.LittleEndian
		if le.Uint16(b[longs:]) == eventKey && le.Uint16(b[longs+2:]) == keyPower && le.Uint32(b[longs+4:]) == 1 {
			select {
			case pressed <- struct{}{}:
			default:
			}
		}
	}
}

// SlewClock makes the clock run faster or slower until it has moved by the offset (adjtimex(2), ADJ_OFFSET_SINGLESHOT: at
// most half a second, half a millisecond in each second).
func SlewClock(offset time.Duration) error {
	const singleShot = 0x8001
	t := unix.Timex{Modes: singleShot}
	t.Offset = fitLong(offset.Microseconds(), t.Offset)
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("cannot slew the clock by %v: %w", offset, err)
	}
	return nil
}

// fitLong converts to the width that a C long has here.
func fitLong[T int32 | int64](n int64, _ T) T { return T(n) }
