package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/initd/boot"
	"github.com/skerryos/skerry/initd/machine"
)

const (
	// diskTimeout is how long a disk may take to appear: USB disks need many seconds.
	diskTimeout = 90 * time.Second
	newRoot     = "/sysroot"
	rootInit    = "/usr/sbin/init"
	modulesList = "/usr/lib/skerry/modules-load"
	// debugLevel shows everything that the kernel says on its consoles.
	debugLevel = 8
	nosuid     = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// initramfs is the first of the two stages: from the kernel's archive to the verified root file system.
type initramfs struct {
	*process
	root string // device that verity protects

	loader   *machine.ModuleLoader
	watchdog atomic.Pointer[machine.Watchdog] // nil until one has appeared
}

func (s *initramfs) actions() map[string]boot.Action {
	return map[string]boot.Action{
		"mounts":      s.mounts,
		"modules":     s.modules,
		"clock-floor": s.clockFloor,
		"slot":        s.slot,
		"disk":        s.findDisk,
		"verity":      s.verity,
		"root":        s.mountRoot,
	}
}

func (s *initramfs) mounts(context.Context) error {
	for _, m := range []machine.Mount{
		{Source: "proc", Target: "/proc", Type: "proc", Flags: nosuid},
		{Source: "sysfs", Target: "/sys", Type: "sysfs", Flags: nosuid},
		{Source: "devtmpfs", Target: "/dev", Type: "devtmpfs", Flags: unix.MS_NOSUID, Data: "mode=755"},
		{Source: "run", Target: "/run", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=755"},
	} {
		if err := m.Do(); err != nil {
			return err
		}
	}
	// From here on there is a console to say more on, if somebody wants to know. What is wrong with the command line is
	// a later step's concern.
	s.cmdline, _ = readCommandLine()
	s.state.image(s.cmdline)
	s.console.debug = s.cmdline.debug
	if s.console.debug {
		if err := machine.SetConsoleLevel(debugLevel); err != nil {
			return err
		}
	}
	return os.MkdirAll(runDir, 0o755)
}

// modules loads what every machine needs, and starts to load drivers for the devices that there are, in the background:
// the disk step goes on as soon as one of them has found the disk.
func (s *initramfs) modules(ctx context.Context) (err error) {
	if s.loader, err = machine.NewModuleLoader(); err != nil {
		return err
	}
	s.earlyWatchdog(ctx)
	events, err := machine.Uevents(ctx)
	if err != nil {
		return err
	}
	go s.loader.Hotplug(ctx, events, s.moduleFailed)
	go func() {
		if err := s.loader.Coldplug(); err != nil {
			s.moduleFailed(err)
		}
	}()
	list, err := os.ReadFile(modulesList)
	if err != nil {
		return err
	}
	return s.loader.LoadAll(strings.Fields(string(list)))
}

// watchdogModules are drivers of watchdogs that are there from the start, and whose device no bus announces.
var watchdogModules = []string{"bcm2835_wdt"}

// earlyLimit is how long the watchdog is fed in this stage: longer than any boot takes to find its disk.
const earlyLimit = 2 * diskTimeout

// watchdogVariable is how the next stage learns which file of its process is the watchdog.
const watchdogVariable = "SKERRY_WATCHDOG"

// earlyWatchdog loads drivers of watchdogs before all others and starts the first watchdog that appears. The next stage takes it over.
func (s *initramfs) earlyWatchdog(ctx context.Context) {
	for _, name := range watchdogModules {
		if err := s.loader.Load(name); err != nil {
			s.moduleFailed(err) // most machines have another one
		}
	}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, earlyLimit)
		defer cancel()
		w, err := machine.AwaitWatchdog(ctx, watchdogTimeout)
		if err != nil {
			return // the next stage says so
		}
		s.watchdog.Store(w)
		tick := time.NewTicker(w.Timeout / 4)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if err := w.Feed(); err != nil {
				s.debugf("%v", err)
				return
			}
		}
	}()
}

// moduleFailed is about a driver. Many refuse to load without their device, which is no problem; whether one was missing
// shows by what does not appear.
func (p *process) moduleFailed(err error) { p.debugf("%v", err) }

func (s *initramfs) clockFloor(context.Context) error {
	return raiseClock("/etc/build-time")
}

// raiseClock sets the clock to the time in a file if it is earlier than that.
func raiseClock(file string) error { return raise(file, time.Now(), machine.SetClock) }

func raise(file string, now time.Time, set func(time.Time) error) error {
	floor, err := readTime(file)
	if err != nil || !now.Before(floor) {
		return err
	}
	return set(floor)
}

// readTime reads a time in Unix seconds.
func readTime(file string) (time.Time, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read the time in %s: %w", file, err)
	}
	return time.Unix(seconds, 0), nil
}

func (s *initramfs) slot(context.Context) (err error) {
	s.cmdline, err = readCommandLine()
	return err
}

func (s *initramfs) findDisk(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	booted := s.cmdline.bootPartition
	if s.cmdline.loader == systemdBoot {
		booted = machine.BootedPartition()
	}
	s.disk, err = machine.FindDisk(ctx, string(s.cmdline.slot), booted)
	if err != nil {
		return err
	}
	// The next stage works on the same disk.
	return os.WriteFile(diskFile, []byte(s.disk.Name), 0o644)
}

func (s *initramfs) verity(context.Context) (err error) {
	s.root, err = s.cmdline.verity.Open("skerry-root", s.disk.Parts[machine.RootPartition(string(s.cmdline.slot))])
	return err
}

func (s *initramfs) mountRoot(context.Context) error {
	err := machine.Mount{Source: s.root, Target: newRoot, Type: "erofs", Flags: unix.MS_RDONLY | unix.MS_NODEV}.Do()
	if err != nil {
		return fmt.Errorf("%w; the root file system of slot %s is damaged or was not written completely", err, s.cmdline.slot)
	}
	// A damaged init is found here, where there is still something to say it with.
	if _, err := os.ReadFile(newRoot + rootInit); err != nil {
		return fmt.Errorf("the root file system of slot %s is damaged: %w", s.cmdline.slot, err)
	}
	return nil
}

// stuckAfter is how long a driver may look for its devices while the boot waits for nothing else.
const stuckAfter = time.Minute

// enter leaves the initramfs for the root file system and starts init anew there. It returns only on failure.
func (s *initramfs) enter() error {
	if err := s.loader.Stop(stuckAfter); err != nil {
		return err
	}
	s.saveTimeline()
	// What the archive holds is memory that nobody will get back otherwise.
	for _, path := range []string{"/usr", "/init", "/etc"} {
		if err := os.RemoveAll(path); err != nil {
			s.debugf("cannot free %s: %v", path, err)
		}
	}
	if err := machine.SwitchRoot(newRoot); err != nil {
		return err
	}
	env := []string{"PATH=/usr/sbin:/usr/bin", "HOME=/root", "TERM=linux"}
	if w := s.watchdog.Load(); w != nil {
		fd, err := w.Bequeath()
		if err != nil {
			return err
		}
		env = append(env, watchdogVariable+"="+strconv.Itoa(fd))
	}
	return fmt.Errorf("cannot start %s: %w", rootInit, syscall.Exec(rootInit, []string{rootInit, "root"}, env))
}
