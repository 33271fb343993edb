package slot

import (
	"errors"
	"fmt"
	"io"
	"path"
)

// A Volume is the boot partition of a machine with U-Boot. Paths are relative to its root. Changes of folders reach the
// medium in the order in which they were made; Sync returns when all is on the medium.
type Volume interface {
	// List returns the sizes of the files of a folder, by name; folders in it have any size. The root is "".
	List(dir string) (map[string]int64, error)
	MakeFolder(name string) error
	// Create writes a file that did not exist, and returns when its content is on the medium.
	Create(name string, content io.Reader) error
	// Remove removes a file, or a folder that is empty.
	Remove(name string) error
	Sync() error
}

// StartScript is the file of a slot that the boot script runs to start the slot. It is the last one to be written and the
// first one to go: where it is, all else is complete.
const StartScript = "start.scr"

// UBoot is the state as Skerry's boot script of U-Boot keeps it (docs/boot-state.md): in two copies before the first
// partition, the older of which is replaced at each change. What boots a slot are files in a folder on the boot partition:
//
//	a-0/kernel a-0/initramfs a-0/start.scr …
//
// A slot has two names for it, and its next image goes to the one that no copy of the state speaks of. No name is ever
// changed: a slot has something to boot from the moment on at which a sector says so.
//
// Without a valid copy the folders that are complete count as good slots, a before b; the boot script, too, tries them in
// this order.
type UBoot struct {
	Volume Volume
	Disk   Sectors
}

// ubootFolders are the names of a slot's folder.
func ubootFolders(n Name) []string { return []string{string(n) + "-0", string(n) + "-1"} }

// survey is the state that the boot partition shows.
func (u UBoot) survey() (ubootState, error) {
	s := ubootState{first: B, slots: map[Name]ubootSlot{A: {}, B: {}}}
	for _, n := range []Name{B, A} {
		for _, folder := range ubootFolders(n) {
			complete, err := u.complete(folder)
			if err != nil {
				return s, err
			}
			if complete && s.slots[n].folder == "" {
				s.first, s.slots[n] = n, ubootSlot{folder: folder, good: true}
			}
		}
	}
	return s, nil
}

// files lists a folder that may not exist.
func (u UBoot) files(folder string) (files map[string]int64, exists bool, err error) {
	root, err := u.Volume.List("")
	if err != nil {
		return nil, false, err
	}
	if _, exists = root[folder]; exists {
		files, err = u.Volume.List(folder)
	}
	return files, exists, err
}

func (u UBoot) complete(folder string) (bool, error) {
	files, _, err := u.files(folder)
	return files[StartScript] > 0, err
}

// Status implements [Backend].
func (u UBoot) Status(n Name) (Status, error) {
	c, err := u.read()
	if err != nil {
		return Status{}, fmt.Errorf("cannot read boot state of slot %s: %w", n, err)
	}
	p := c.newest.slots[n]
	if p.folder == "" {
		return Status{}, nil
	}
	switch complete, err := u.complete(p.folder); {
	case err != nil:
		return Status{}, fmt.Errorf("cannot read boot state of slot %s: %w", n, err)
	case !complete:
		return Status{}, nil
	}
	return Status{Present: true, Good: p.good, Left: int(p.left), Done: int(p.done)}, nil
}

// Counted tells whether the boot loader has ever counted a boot, which a device's first boot is: if not, it and this program
// do not see the same state, and an upgrade that fails would not be rolled back. A state that was lost does not tell: see Recount.
func (u UBoot) Counted() (bool, error) {
	c, err := u.read()
	if err != nil {
		return false, fmt.Errorf("cannot read boot state: %w", err)
	}
	return c.newest.counted > 0, nil
}

// Recount puts a good slot on trial with that many tries, so that the boot loader has its next start to count. A slot that is not
// good is left as it is.
func (u UBoot) Recount(n Name, tries int) error {
	never := func(s Status) bool { return !s.Good }
	if err := u.mark(n, never, ubootSlot{left: uint32(tries)}); err != nil {
		return fmt.Errorf("cannot let the next start of slot %s be counted: %w", n, err)
	}
	return nil
}

// MarkGood implements [Backend].
func (u UBoot) MarkGood(n Name) error {
	if err := u.mark(n, Status.good, ubootSlot{good: true}); err != nil {
		return fmt.Errorf("cannot mark slot %s good: %w", n, err)
	}
	return nil
}

// MarkBad implements [Backend].
func (u UBoot) MarkBad(n Name) error {
	if err := u.mark(n, Status.bad, ubootSlot{}); err != nil {
		return fmt.Errorf("cannot mark slot %s bad: %w", n, err)
	}
	return nil
}

// good and bad: it has that mark.
func (s Status) good() bool { return s.Good }
func (s Status) bad() bool  { return !s.Good && s.Left == 0 }

// mark gives a slot a mark, if it does not have it. Good ones have no attempts to speak of.
func (u UBoot) mark(n Name, has func(Status) bool, mark ubootSlot) error {
	status, err := u.Status(n)
	if err != nil {
		return err
	}
	if !status.Present {
		return errNoImage
	}
	if has(status) {
		return nil
	}
	return u.change(func(s *ubootState) {
		mark.folder = s.slots[n].folder
		if !mark.good {
			mark.done = s.slots[n].done
		}
		s.slots[n] = mark
	})
}

// Remove implements [Backend].
func (u UBoot) Remove(n Name) error {
	err := requireOther(u, n)
	if err == nil {
		err = u.remove(n)
	}
	if err != nil {
		return fmt.Errorf("cannot remove the boot image of slot %s: %w", n, err)
	}
	return nil
}

// remove says first that there is nothing to boot, and makes it so after that.
func (u UBoot) remove(n Name) error {
	c, err := u.read()
	if err != nil {
		return err
	}
	if c.newest.slots[n].folder != "" {
		err := u.change(func(s *ubootState) { s.first, s.slots[n] = n.Other(), ubootSlot{} })
		if err != nil {
			return err
		}
	}
	return u.clear(n)
}

// clear removes the folders of a slot that has nothing to boot.
func (u UBoot) clear(n Name) error {
	removed := false
	for _, folder := range ubootFolders(n) {
		exists, err := u.empty(folder)
		if err == nil && exists {
			removed = true
			err = u.Volume.Remove(folder)
		}
		if err != nil {
			return err
		}
	}
	if !removed {
		return nil
	}
	return u.Volume.Sync()
}

// empty removes the files of a folder, the start script first.
func (u UBoot) empty(folder string) (exists bool, err error) {
	files, exists, err := u.files(folder)
	if err != nil {
		return exists, err
	}
	if _, has := files[StartScript]; has {
		if err := u.Volume.Remove(path.Join(folder, StartScript)); err != nil {
			return exists, err
		}
		delete(files, StartScript)
	}
	for _, f := range sortedNames(files) {
		if err := u.Volume.Remove(path.Join(folder, f)); err != nil {
			return exists, err
		}
	}
	return exists, nil
}

// Install implements [Backend]. The image is an archive: see unpack.
func (u UBoot) Install(n Name, image io.Reader, size int64, tries int) error {
	if err := u.Remove(n); err != nil {
		return err
	}
	if err := u.install(n, image, size, tries); err != nil {
		err = errors.Join(err, u.clear(n)) // what was begun is not left open
		return fmt.Errorf("cannot install the boot image of slot %s, which now has none: %w", n, err)
	}
	return nil
}

func (u UBoot) install(n Name, image io.Reader, size int64, tries int) error {
	c, err := u.read()
	if err != nil {
		return err
	}
	folder := ubootFolders(n)[0]
	if folder == c.other.slots[n].folder {
		folder = ubootFolders(n)[1]
	}
	if err := u.Volume.MakeFolder(folder); err != nil {
		return err
	}
	if err := u.unpack(folder, image, size); err != nil {
		return err
	}
	if err := u.Volume.Sync(); err != nil {
		return err
	}
	// If the last write says that it has failed, it may have happened all the same.
	return u.change(func(s *ubootState) { s.first, s.slots[n] = n, ubootSlot{folder: folder, left: uint32(tries)} })
}
