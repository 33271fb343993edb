package update_test

import (
	"context"
	"errors"
	"io"

	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
	. "github.com/skerryos/skerry/initd/update"
	. "github.com/skerryos/skerry/initd/update/updatetest"
)

// A machine is a device with its process 1.
type machine struct {
	*Device
	up bool // process 1 has come as far as AtBoot
	// keepImage is a planted mistake: what boots the target stays while its root is overwritten.
	keepImage bool
}

// factory is a machine as it was flashed.
func factory(version string) *machine { return &machine{Device: NewDevice(version)} }

// loaders are the boot loaders that there are.
var loaders = map[string]func(image string, tries int) slottest.Machine{"systemd-boot": slottest.NewSystemdBoot, "uboot": slottest.NewUBoot}

// forgetful is a backend that forgets to remove.
type forgetful struct{ slot.Backend }

func (forgetful) Remove(slot.Name) error { return nil }

func (m *machine) updater() *Updater {
	u := m.Updater()
	if m.keepImage {
		u.Slots = forgetful{u.Slots}
	}
	return u
}

// cut is the machine after a power cut, switched off.
func (m *machine) cut(luck slottest.Luck) *machine {
	return &machine{Device: m.Cut(luck), keepImage: m.keepImage}
}

// dead is the machine when the process that drives the upgrade has died, and runs on.
func (m *machine) dead() *machine {
	return &machine{Device: m.Dead(), up: m.up, keepImage: m.keepImage}
}

// write writes a bundle, to its end.
func write(u *Updater, stream io.Reader, force bool) (err error) {
	b, err := u.Open(stream)
	if err != nil {
		return err
	}
	w, err := u.Begin(b, force)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return w.Run(context.Background())
}
