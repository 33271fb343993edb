package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Watchdog resets the machine when it is not fed in time (https://docs.kernel.org/watchdog/watchdog-api.html).
type Watchdog struct {
	f *os.File
	// Identity is the driver's name for it, Timeout how long it waits.
	Identity string
	Timeout  time.Duration
}

// OpenWatchdog starts the first watchdog, asking for a timeout. It is an fs.ErrNotExist where there is none.
func OpenWatchdog(timeout time.Duration) (*Watchdog, error) {
	names, err := watchdogs("/sys")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fs.ErrNotExist
	}
	f, err := os.OpenFile("/dev/"+names[0], os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return newWatchdog(f, timeout)
}

// newWatchdog takes over a watchdog that runs.
func newWatchdog(f *os.File, timeout time.Duration) (*Watchdog, error) {
	w := &Watchdog{f: f, Timeout: timeout}
	// A driver with a fixed timeout refuses this; the one in force is asked for next.
	_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, int(timeout/time.Second))
	if s, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT); err == nil {
		w.Timeout = time.Duration(s) * time.Second
	}
	if info, err := unix.IoctlGetWatchdogInfo(int(f.Fd())); err == nil {
		w.Identity = unix.ByteSliceToString(info.Identity[:])
	}
	if err := w.Feed(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return w, nil
}

// watchdogs are those that can be started, the first one first. sys is /sys.
func watchdogs(sys string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(sys, "class/watchdog/watchdog[0-9]*"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, path := range paths {
		if !resetsAtOnce(sys, path) {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

// resetsAtOnce tells the watchdog of an emulated Raspberry Pi from a real one. QEMU (hw/misc/bcm2835_powermgt.c) has no timer there, and
// resets the machine when it is started. The block that the watchdog belongs to does not identify itself there either, and is refused by
// the driver of its other half.
func resetsAtOnce(sys, watchdog string) bool {
	device, err := filepath.EvalSymlinks(filepath.Join(watchdog, "device"))
	if err != nil || filepath.Base(device) != "bcm2835-wdt" {
		return false
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	power := filepath.Join(filepath.Dir(device), "bcm2835-power")
	return exists(power) && exists(filepath.Join(sys, "bus/platform/drivers/bcm2835-power")) && !exists(filepath.Join(power, "driver"))
}

// AwaitWatchdog opens the first hardware watchdog as soon as its driver has found it, or fails when ctx is done.
func AwaitWatchdog(ctx context.Context, timeout time.Duration) (*Watchdog, error) {
	listening, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := Uevents(listening)
	if err != nil {
		return nil, err
	}
	for {
		w, err := OpenWatchdog(timeout)
		if !errors.Is(err, fs.ErrNotExist) {
			return w, err
		}
		select {
		case <-events:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Bequeath lets the program that this process becomes have the watchdog, by the number that it returns: a watchdog that is closed goes on
// running, but not without complaining.
func (w *Watchdog) Bequeath() (int, error) {
	fd := int(w.f.Fd())
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return 0, fmt.Errorf("cannot keep the watchdog open: %w", err)
	}
	return fd, nil
}

// InheritWatchdog takes over what Bequeath has left.
func InheritWatchdog(fd int, timeout time.Duration) (*Watchdog, error) {
	unix.CloseOnExec(fd)
	return newWatchdog(os.NewFile(uintptr(fd), "watchdog"), timeout)
}

// Feed postpones the reset by the timeout.
func (w *Watchdog) Feed() error {
	if err := unix.IoctlWatchdogKeepalive(int(w.f.Fd())); err != nil {
		return fmt.Errorf("cannot feed the watchdog: %w", err)
	}
	return nil
}
