package machine

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWatchdogs: that of an emulated Raspberry Pi is left alone, because it resets the machine when it is started.
func TestWatchdogs(t *testing.T) {
	const pi = `devices/pm/bcm2835-wdt/watchdog/watchdog0/identity=Broadcom BCM2835 Watchdog timer
		devices/pm/bcm2835-wdt/watchdog/watchdog0/device>../..
		devices/pm/bcm2835-power/modalias=platform:bcm2835-power
		devices/soft/identity=Software Watchdog
		class/watchdog/placeholder=x
		class/watchdog/watchdog0>../../devices/pm/bcm2835-wdt/watchdog/watchdog0
		class/watchdog/watchdog1>../../devices/soft
		`
	const driver = "bus/platform/drivers/bcm2835-power/uevent=x\n"
	for _, c := range []struct{ name, sys, want string }{
		{"none", "class/watchdog/placeholder=x", "[]"},
		{"emulated", pi + driver, "[watchdog1]"},
		{"real", pi + driver + "devices/pm/bcm2835-power/driver>../../../bus/platform/drivers/bcm2835-power", "[watchdog0 watchdog1]"},
		{"its other half has no driver", pi, "[watchdog0 watchdog1]"},
		{"another one", "class/watchdog/watchdog0/device/name=iTCO_wdt", "[watchdog0]"},
	} {
		got, err := watchdogs(sysfs(t, strings.TrimSpace(c.sys)))
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, %v; want %s", c.name, got, err, c.want)
		}
	}
}

// TestBequeath: the file of a watchdog outlives the program.
func TestBequeath(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := (&Watchdog{f: f}).Bequeath()
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || fd != int(f.Fd()) || flags&unix.FD_CLOEXEC != 0 {
		t.Errorf("bequeathed as %d, flags %d (%v)", fd, flags, err)
	}
	other, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := InheritWatchdog(other, time.Minute); err == nil || !strings.Contains(err.Error(), "cannot feed the watchdog") {
		t.Errorf("what is no watchdog: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(other), unix.F_GETFD, 0); err == nil {
		t.Error("what is no watchdog stays open")
	}
}
