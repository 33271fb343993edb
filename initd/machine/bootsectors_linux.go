package machine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MakeFolder makes a folder.
func (d BootDirectory) MakeFolder(name string) error {
	if err := d.writable(); err != nil {
		return err
	}
	return os.Mkdir(d.join(name), 0o700)
}

// BootSectors is the path of a disk whose first sectors hold boot state. What is written goes past the kernel's cache, which
// writes whole pages: a sector beside the one that is written would be written, too, and might not survive a power cut.
type BootSectors string

const (
	bootSector = 512
	// directAlignment is that of memory for O_DIRECT, enough for any disk.
	directAlignment = 4096
)

// transfer opens the disk and calls do with a sector in memory that the disk can read from and write to.
func (d BootSectors) transfer(flags int, p []byte, at int64, do func(f *os.File, sector []byte) error) (err error) {
	if len(p) != bootSector || at%bootSector != 0 {
		return fmt.Errorf("%d bytes at %d of %s are not a sector", len(p), at, string(d))
	}
	info, err := os.Stat(string(d))
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // a file has no sectors, and not every file system lets its cache be passed by
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(string(d), flags, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	memory := make([]byte, directAlignment+bootSector)
	shift := directAlignment - int(uintptr(unsafe.Pointer(&memory[0]))%directAlignment)
	return do(f, memory[shift:][:bootSector])
}

// ReadAt reads a sector.
func (d BootSectors) ReadAt(p []byte, at int64) (int, error) {
	err := d.transfer(os.O_RDONLY, p, at, func(f *os.File, sector []byte) error {
		_, err := f.ReadAt(sector, at)
		copy(p, sector)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAt writes a sector, and returns when it is on the medium.
func (d BootSectors) WriteAt(p []byte, at int64) (int, error) {
	err := d.transfer(os.O_WRONLY|unix.O_DSYNC, p, at, func(f *os.File, sector []byte) error {
		copy(sector, p)
		_, err := f.WriteAt(sector, at)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Sync does nothing: what was written is on the medium.
func (BootSectors) Sync() error { return nil }
