package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
	"github.com/skerryos/skerry/initd/update/updatetest"
)

// ubootDevice is a device with U-Boot that runs a good slot.
func ubootDevice(t *testing.T) (*updatetest.Device, *slottest.UBoot) {
	t.Helper()
	d := updatetest.NewDeviceWith(slottest.NewUBoot, "1")
	if err := d.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if err := d.Updater().Commit(); err != nil {
		t.Fatal(err)
	}
	return d, d.Slots.(*slottest.UBoot)
}

// TestUpgradesNeedABootLoaderThatCounts: nothing is written before it has shown that it does.
func TestUpgradesNeedABootLoaderThatCounts(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*updatetest.Device, *slottest.UBoot) error
		refuse bool
	}{
		{"it has counted the first start", func(*updatetest.Device, *slottest.UBoot) error { return nil }, false},
		{"the state was lost", lose, true},
		{"the state was lost, and a restart was counted", func(d *updatetest.Device, m *slottest.UBoot) error {
			return errors.Join(lose(d, m), m.Recount("a", recountTries), d.PowerOn(), d.Updater().Commit())
		}, false},
		{"the state was lost, and no restart is counted", func(d *updatetest.Device, m *slottest.UBoot) error {
			err := errors.Join(lose(d, m), m.Recount("a", recountTries))
			m.Sectors.WriteFails = true
			err = errors.Join(err, d.PowerOn())
			m.Sectors.WriteFails = false
			return errors.Join(err, d.Updater().Commit())
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, m := ubootDevice(t)
			if err := c.before(d, m); err != nil {
				t.Fatal(err)
			}
			b := newBench(t)
			b.Updater = d.Updater()
			before := m.String() + string(d.Roots["b"].Now)
			err := b.upload(t, updatetest.Bundle(t, "2", updatetest.Owner, nil), 0, true)
			if !c.refuse {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "bundle refused, nothing was written: the boot loader has never counted a start of this device") {
				t.Errorf("error %v", err)
			}
			if m.String()+string(d.Roots["b"].Now) != before {
				t.Error("refused, and changed")
			}
		})
	}
}

// lose destroys both copies of the state and boots.
func lose(d *updatetest.Device, m *slottest.UBoot) error {
	for i := range slottest.Copies {
		m.Sectors.Rot(i)
	}
	return errors.Join(d.PowerOn(), d.Updater().Commit())
}

// TestRecount: a device that has lost the state asks its boot loader to count the next start, and says so until that has happened.
func TestRecount(t *testing.T) {
	d, m := ubootDevice(t)
	boot := func() (problems string) {
		if err := d.PowerOn(); err != nil {
			t.Fatal(err)
		}
		r := processOne(t, d)
		if _, err := r.updater.AtBoot(""); err != nil {
			t.Fatal(err)
		}
		if err := r.markGood(t.Context()); err != nil {
			t.Fatal(err)
		}
		return strings.Join(r.state.now.Problems, "\n")
	}
	if got := boot(); got != "" {
		t.Fatalf("at first: %s", got)
	}
	m.Sectors.Rot(0)
	m.Sectors.Rot(1)
	if got := boot(); !strings.Contains(got, "the device cannot be upgraded: the boot loader has never counted a start") {
		t.Errorf("when the state is lost: %q", got)
	}
	if got := boot(); got != "" {
		t.Errorf("after a restart: %s", got)
	}
	if status, err := m.Status("a"); err != nil || !status.Good {
		t.Errorf("after a restart slot a is %+v (%v)", status, err)
	}
}

func TestNewSlots(t *testing.T) {
	disk := &machine.BlockDevice{Path: "/dev/mmcblk0"}
	for loader, want := range map[bootLoader]slot.Backend{
		systemdBoot: slot.SystemdBoot{Dir: machine.BootDirectory("/boot")},
		uboot:       slot.UBoot{Volume: machine.BootDirectory("/boot"), Disk: machine.BootSectors("/dev/mmcblk0")},
	} {
		if got := newSlots(loader, disk); got != want {
			t.Errorf("%s: %#v", loader, got)
		}
	}
	if err := counts(newSlots(systemdBoot, disk)); err != nil {
		t.Errorf("systemd-boot: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	const needed = "skerry.slot=a skerry.rootblocks=1 skerry.roothash=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		more, fail string
		loader     bootLoader
		partition  string
	}{
		{"", "", systemdBoot, ""},
		{"skerry.loader=uboot", "", uboot, ""},
		{"skerry.loader=uboot skerry.bootpart=1234abcd-01", "", uboot, "1234abcd-01"},
		{"skerry.loader=uboot skerry.bootpart=unknown", "", uboot, ""},
		{"skerry.loader=grub", `kernel command line: skerry.loader="grub" is neither systemd-boot nor uboot`, "", ""},
	} {
		got, err := parseCommandLine(needed + " " + c.more)
		if c.fail != "" {
			if err == nil || err.Error() != c.fail {
				t.Errorf("%s: error %v", c.more, err)
			}
			continue
		}
		if err != nil || got.loader != c.loader || got.bootPartition != c.partition {
			t.Errorf("%s: %+v, %v", c.more, got, err)
		}
	}
}
