package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/snapshot"
	"github.com/skerryos/skerry/initd/update"
)

// Where upgrades keep what outlives a boot, and what a bundle leaves until its trial.
const (
	upgradeRecord = stateDir + "/upgrade.json"
	upgradeLock   = runDir + "/upgrade.lock"
	scratchFile   = stateDir + "/boot-image"
	trustedKeys   = "/usr/lib/skerry/keys/*.pub"
	floorFile     = "/usr/lib/skerry/floor"

	datastoreDir = "/var/lib/skerry/server/db"
	snapshotDir  = "/var/lib/skerry/snapshots"
)

// newSlots is the state of the boot loader that has booted this machine.
func newSlots(loader bootLoader, disk *machine.BlockDevice) slot.Backend {
	if loader == uboot {
		return slot.UBoot{Volume: machine.BootDirectory(bootDir), Disk: machine.BootSectors(disk.Path)}
	}
	return slot.SystemdBoot{Dir: machine.BootDirectory(bootDir)}
}

// A counter is a boot loader that shows whether it counts in the state that this program keeps.
type counter interface {
	Counted() (bool, error)
	Recount(n slot.Name, tries int) error
}

// counts is why an upgrade may not be begun: nobody would count its attempts. It is nil when the boot loader has shown that it does.
func counts(slots slot.Backend) error {
	c, ok := slots.(counter)
	if !ok {
		return nil
	}
	counted, err := c.Counted()
	if err == nil && !counted {
		err = errors.New("the boot loader has never counted a start of this device, so that nothing would bring the old version back; " +
			"restart the device; if it says so again, its boot loader cannot write to the disk or boots from another one")
	}
	return err
}

// recountTries are far more than a slot needs that works: it is not to be given up, but to be counted.
const recountTries = 16

// recount lets the next start be counted of a good slot, if none ever was: the state was lost, and with it the proof.
func (r *root) recount() {
	why := counts(r.slots)
	if why == nil {
		return
	}
	r.problem("the device cannot be upgraded: " + message(errors.Join(why, r.slots.(counter).Recount(r.cmdline.slot, recountTries))))
}

func newSnapshots() *snapshot.Store {
	return &snapshot.Store{Dir: snapshotDir, Datastore: datastoreDir, Now: time.Now}
}

// newUpdater is the upgrade of this machine. Process 1 and the device API have one each: they meet in its files.
func newUpdater(c commandLine, disk *machine.BlockDevice, slots slot.Backend) (*update.Updater, error) {
	keys, err := readKeys(trustedKeys)
	if err != nil {
		return nil, err
	}
	floor, err := readFloor(floorFile)
	if err != nil {
		return nil, err
	}
	return update.New(update.Config{
		Running: update.Running{Slot: c.slot, Version: c.version, Board: c.board, Architecture: runtime.GOARCH, Floor: floor},
		Keys:    keys,
		Slots:   slots,
		Store:   recordStore{upgradeRecord},
		Root: func(n slot.Name) (update.Medium, error) {
			return machine.OpenPartition(disk.Parts[machine.RootPartition(string(n))])
		},
		Scratch: func() (update.Medium, error) {
			if err := os.MkdirAll(filepath.Dir(scratchFile), 0o700); err != nil {
				return nil, err
			}
			return machine.OpenScratch(scratchFile)
		},
		Lock: func() (io.Closer, error) { return machine.Lock(upgradeLock) },
		Now:  time.Now,
	}), nil
}

// readFloor reads the security floor of the image; one that has none has 0.
func readFloor(file string) (uint64, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the security floor: %w", err)
	}
	floor, err := strconv.ParseUint(trimmed(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot read the security floor in %s: %w", file, err)
	}
	return floor, nil
}

func readKeys(pattern string) ([]bundle.PublicKey, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var keys []bundle.PublicKey
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the trusted keys: %w", err)
		}
		k, err := bundle.ParsePublicKey(string(text))
		if err != nil {
			return nil, fmt.Errorf("cannot read trusted key %s: %w", file, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// findDisk finds the disk that the first stage has booted from.
func findDisk() (*machine.BlockDevice, error) {
	name, err := os.ReadFile(diskFile)
	if err != nil {
		return nil, err
	}
	disks, err := machine.Disks()
	if err != nil {
		return nil, err
	}
	for _, d := range disks {
		if d.Name == string(name) {
			return &d, nil
		}
	}
	return nil, fmt.Errorf("disk %s has disappeared", name)
}
