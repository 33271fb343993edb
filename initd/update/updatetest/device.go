// Package updatetest is a device for tests of upgrades: its disks forget at a power cut what was not synced, its boot loader is
// simulated, and its systems say of themselves what they are.
package updatetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
	"github.com/skerryos/skerry/initd/update"
)

// What devices and bundles are for.
const (
	Board        = "x86-64"
	Architecture = "amd64"
)

// A Device is a whole device, switched off at first.
type Device struct {
	Slots   slottest.Machine
	Roots   map[slot.Name]*Disk
	Scratch *Disk
	Store   *File
	Running update.Running
	// Locked: somebody drives an upgrade.
	Locked bool
	Keys   []bundle.PublicKey
}

// NewDevice makes a device as it was flashed: with a version in slot a, and nothing in slot b.
func NewDevice(version string) *Device { return NewDeviceWith(slottest.NewSystemdBoot, version) }

// NewDeviceWith is NewDevice for a boot loader.
func NewDeviceWith(loader func(image string, tries int) slottest.Machine, version string) *Device {
	return &Device{
		Slots:   loader(string(Image(slot.A, version)), update.Tries),
		Roots:   map[slot.Name]*Disk{slot.A: NewDisk(RootFS(version), PartitionSize), slot.B: NewDisk(nil, PartitionSize)},
		Scratch: NewDisk(nil, 2*BootSize), Store: &File{},
		Keys: []bundle.PublicKey{Owner.Public},
	}
}

var errLocked = errors.New("locked")

// Lock is the device's lock.
func (d *Device) Lock() (io.Closer, error) {
	if d.Locked {
		return nil, errLocked
	}
	d.Locked = true
	return closer(func() error { d.Locked = false; return nil }), nil
}

type closer func() error

func (c closer) Close() error { return c() }

// Updater drives upgrades of the device.
func (d *Device) Updater() *update.Updater {
	return update.New(update.Config{
		Running: d.Running, Keys: d.Keys, Slots: d.Slots, Store: d.Store, Lock: d.Lock,
		Root:      func(n slot.Name) (update.Medium, error) { return d.Roots[n], nil },
		Scratch:   func() (update.Medium, error) { return d.Scratch, nil },
		Now:       func() time.Time { return time.Unix(1764100000, 0) },
		SaveEvery: 4 * ChunkSize,
	})
}

// OnStep sets what is called before each change of any medium, see [Disk] and [File].
func (d *Device) OnStep(do func() error) {
	d.Slots.OnStep(do)
	d.Scratch.OnStep, d.Store.OnStep = do, do
	for _, r := range d.Roots {
		r.OnStep = do
	}
}

// Cut is the device after a power cut, switched off.
func (d *Device) Cut(luck slottest.Luck) *Device {
	return &Device{Slots: d.Slots.Cut(luck), Roots: map[slot.Name]*Disk{slot.A: d.Roots[slot.A].Cut(luck), slot.B: d.Roots[slot.B].Cut(luck)},
		Scratch: d.Scratch.Cut(luck), Store: d.Store.Cut(luck), Running: d.Running, Keys: d.Keys}
}

// Dead is the device when the process that drives the upgrade has died, and runs on.
func (d *Device) Dead() *Device {
	return &Device{Slots: d.Slots.Cut(slottest.AllKept), Roots: map[slot.Name]*Disk{slot.A: d.Roots[slot.A].Dead(), slot.B: d.Roots[slot.B].Dead()},
		Scratch: d.Scratch.Dead(), Store: d.Store.Cut(func(int, int) slottest.Fate { return slottest.Lost }), Running: d.Running, Keys: d.Keys}
}

// complete checks that a boot image is what somebody made, and that the root partition of its slot is, too.
func (d *Device) complete(got []byte) (update.Running, error) {
	var n slot.Name
	var version string
	if _, err := fmt.Sscanf(string(got), "%s %s ", &n, &version); err != nil || !bytes.Equal(got, Image(n, version)) {
		return update.Running{}, fmt.Errorf("boot image %.20q is damaged", got)
	}
	if !bytes.Equal(d.Roots[n].Now[:RootSize], RootFS(version)) {
		return update.Running{}, fmt.Errorf("slot %s can be booted, but its root partition is not version %s", n, version)
	}
	return update.Running{Slot: n, Version: version, Board: Board, Architecture: Architecture}, nil
}

// Check is what must be true at any time: whatever the boot loader might take is complete.
func (d *Device) Check() error {
	for _, i := range d.Slots.Images() {
		if _, err := d.complete(i); err != nil {
			return err
		}
	}
	return nil
}

// PowerOn is what firmware and boot loader do.
func (d *Device) PowerOn() error {
	if err := d.Check(); err != nil {
		return err
	}
	got, err := d.Slots.Boot()
	if err != nil {
		return err
	}
	d.Running, err = d.complete(got)
	return err
}
