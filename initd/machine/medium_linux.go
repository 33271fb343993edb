package machine

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A Medium is a block device, or a file that stands for one, that is written without a file system.
type Medium struct {
	*os.File
	bytes int64
}

// OpenPartition opens a block device.
func OpenPartition(path string) (*Medium, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open partition: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot ask for the size of %s: %w", path, err), f.Close())
	}
	return &Medium{f, size}, nil
}

// OpenScratch opens a file that takes up to as many bytes as its file system has free, besides those that it has already.
// It is made if it does not exist.
func OpenScratch(path string) (*Medium, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	space, err := FreeSpace(path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Medium{f, info.Size() + int64(space.Free)}, nil
}

// Size is how many bytes it takes.
func (p *Medium) Size() int64 { return p.bytes }

// Sync returns when all that was written is on the disk. What is read after that comes from the disk, not from memory.
func (p *Medium) Sync() error {
	if err := p.File.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(p.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("cannot drop what memory has of %s: %w", p.Name(), err)
	}
	return nil
}

// ErrLocked is the error of a lock that another process, or this one, holds.
var ErrLocked = errors.New("locked")

// Lock takes a lock that ends with the process, whatever becomes of it. The file is made if it does not exist.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(fmt.Errorf("cannot lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
