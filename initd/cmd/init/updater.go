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

func newSlots() slot.Backend { return slot.SystemdBoot{Dir: machine.BootDirectory(bootDir)} }

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
