package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KernelLog returns the lines that the kernel logs from now on (or all that it still knows, with all), without their
// prefix, until ctx is done (https://docs.kernel.org/ABI/testing/dev-kmsg).
func KernelLog(ctx context.Context, all bool) (<-chan string, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel's log: %w", err)
	}
	if !all {
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return nil, fmt.Errorf("cannot read the kernel's log: %w", err)
		}
	}
	lines := make(chan string, 64)
	context.AfterFunc(ctx, func() { f.Close() })
	go func() {
		defer close(lines)
		buf := make([]byte, 16<<10)
		for {
			n, err := f.Read(buf)
			if errors.Is(err, unix.EPIPE) {
				continue // lines were overwritten before they were read
			}
			if err != nil {
				return
			}
			select {
			case lines <- recordText(string(buf[:n])):
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines, nil
}

// recordText is the message of a record: behind "priority,sequence,time,flags;", and before lines with further fields.
func recordText(record string) string {
	_, text, _ := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// KernelLogBuffer returns the text of the kernel's log that is still in memory, as dmesg(1) prints it.
func KernelLogBuffer() ([]byte, error) {
	const readAll, size = 3, 10 // syslog(2): SYSLOG_ACTION_READ_ALL, SYSLOG_ACTION_SIZE_BUFFER
	n, err := unix.Klogctl(size, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel's log: %w", err)
	}
	b := make([]byte, n)
	if n, err = unix.Klogctl(readAll, b); err != nil {
		return nil, fmt.Errorf("cannot read the kernel's log: %w", err)
	}
	return b[:n], nil
}

// SetConsoleLevel makes the kernel show messages more important than level on its consoles (1: panics only, 8: all).
func SetConsoleLevel(level int) error {
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte(strconv.Itoa(level)), 0o644); err != nil {
		return fmt.Errorf("cannot set the console's log level: %w", err)
	}
	return nil
}
