package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/initd/update"
)

// A room is a file that does nothing but take space. On a disk that somebody has filled it makes way for what must be written all
// the same: that an upgrade is rolled back, or that the device is to be reset.
type room string

// stateRoom is the one of the data partition.
const stateRoom = room(stateDir + "/room")

// roomBytes is a hundred times what is written in it.
const roomBytes = 1 << 20

// keep makes the room, if it is not there.
func (r room) keep() error {
	f, err := os.OpenFile(string(r), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, roomBytes), f.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot keep room for what must be written to a full disk: %w", errors.Join(err, r.leave()))
	}
	return nil
}

// leave gives the room up.
func (r room) leave() error {
	if err := os.Remove(string(r)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// use calls write, and once more in the room when there is no other space.
func (r room) use(write func() error) error {
	err := write()
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	if lerr := r.leave(); lerr != nil {
		return errors.Join(err, lerr)
	}
	return write()
}

// A recordStore is where the record of upgrades is, which is written on a full disk, too.
type recordStore struct{ update.FileStore }

// Save implements [update.Store].
func (s recordStore) Save(data []byte) error {
	return stateRoom.use(func() error { return s.FileStore.Save(data) })
}
