package slot

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
)

// UKIDirectory is where systemd-boot looks for unified kernel images, below the root of its partition.
const UKIDirectory = "EFI/Linux"

// A Directory is the boot partition, as far as a backend needs it. Paths are relative to its root. Changes of folders
// reach the medium in the order in which they were made; Sync returns when all is on the medium.
//
// FAT cannot rename in one step: a cut leaves the old name, or the old name and the new one without content, or two names
// of one file. Removing one of two names takes the content away from the other one, too.
type Directory interface {
	// List returns the sizes of the files of a folder, by name.
	List(dir string) (map[string]int64, error)
	// Create writes a file that did not exist, and returns when its content is on the medium.
	Create(name string, content io.Reader) error
	// Rename replaces only a file that has no content.
	Rename(from, to string) error
	Remove(name string) error
	Sync() error
}

// SystemdBoot is the state as systemd-boot keeps it: in the names of the images, counted down by renaming before each
// attempt (https://uapi-group.org/specifications/specs/boot_loader_specification/#boot-counting).
//
//	skerry-a+3-0.efi     three attempts left, none made
//	skerry-a.efi         good
//	skerry-a+0-3.efi     bad: taken only if there is nothing else
//	skerry-7-b+3-0.efi   installed on the device, as the seventh image; the factory's has no number
//	skerry-b.efi.new     not complete, and not seen by the boot loader
//
// Of the images that are not bad, systemd-boot takes the one with the highest number, which is the one that was installed
// last: docs/decisions/0030-slot-preference.md.
type SystemdBoot struct {
	Dir Directory
}

var ukiName = regexp.MustCompile(`^skerry-(?:(\d{1,9})-)?([ab])(?:\+(\d{1,3})(?:-(\d{1,3}))?)?\.efi$`)

// unfinished is the name of an image that is being written.
func unfinished(n Name) string { return fmt.Sprintf("skerry-%s.efi.new", n) }

// A uki is an image of a slot.
type uki struct {
	file   string
	slot   Name
	number int
	Status
}

// bad: the boot loader takes it only if there is nothing else.
func (u uki) bad() bool { return !u.Good && u.Left == 0 }

// images lists all images. One without content is what a cut in the middle of a rename leaves; the boot loader, too,
// passes over it.
func (s SystemdBoot) images() ([]uki, error) {
	files, err := s.Dir.List(UKIDirectory)
	if err != nil {
		return nil, err
	}
	var all []uki
	for _, f := range slices.Sorted(maps.Keys(files)) {
		m := ukiName.FindStringSubmatch(f)
		if m == nil || files[f] == 0 {
			continue
		}
		u := uki{file: f, slot: Name(m[2]), Status: Status{Present: true, Good: m[3] == ""}}
		u.number, _ = strconv.Atoi(m[1]) // digits, or empty
		u.Left, _ = strconv.Atoi(m[3])
		u.Done, _ = strconv.Atoi(m[4])
		all = append(all, u)
	}
	return all, nil
}

// find returns the image of a slot. More than one are names of one image, which only a cut in the middle of a rename
// leaves; they count as the best of them.
func (s SystemdBoot) find(n Name) (best uki, all []uki, err error) {
	if all, err = s.images(); err != nil {
		return uki{}, nil, err
	}
	all = slices.DeleteFunc(all, func(u uki) bool { return u.slot != n })
	for _, u := range all {
		if !best.Present || u.Good || (!best.Good && u.Left > best.Left) {
			best = u
		}
	}
	return best, all, nil
}

// Status implements [Backend].
func (s SystemdBoot) Status(n Name) (Status, error) {
	u, _, err := s.find(n)
	if err != nil {
		return Status{}, fmt.Errorf("cannot read boot state of slot %s: %w", n, err)
	}
	return u.Status, nil
}

// MarkGood implements [Backend].
func (s SystemdBoot) MarkGood(n Name) error {
	u, _, err := s.find(n)
	switch {
	case err != nil:
	case !u.Present:
		err = errNoImage
	case u.Good:
		return nil
	default:
		if err = s.rename(u, ""); err == nil {
			err = s.Dir.Sync()
		}
	}
	if err != nil {
		return fmt.Errorf("cannot mark slot %s good: %w", n, err)
	}
	return nil
}

// MarkBad implements [Backend].
func (s SystemdBoot) MarkBad(n Name) error {
	if err := s.markBad(n); err != nil {
		return fmt.Errorf("cannot mark slot %s bad: %w", n, err)
	}
	return nil
}

func (s SystemdBoot) markBad(n Name) error {
	u, all, err := s.find(n)
	if err != nil {
		return err
	}
	if !u.Present {
		return errNoImage
	}
	if u.bad() {
		return nil
	}
	// Every name must go, or the boot loader takes the one that is left. None may replace another one (see Directory).
	done := 0
	for _, u := range all {
		done = max(done, u.Done)
	}
	for _, u := range all {
		if u.bad() {
			continue
		}
		done++
		if err := s.rename(u, fmt.Sprintf("+0-%d", done)); err != nil {
			return err
		}
	}
	return s.Dir.Sync()
}

// rename changes the counter in an image's name.
func (s SystemdBoot) rename(u uki, counter string) error {
	return s.Dir.Rename(path.Join(UKIDirectory, u.file), path.Join(UKIDirectory, fileName(u.number, u.slot, counter)))
}

func fileName(number int, n Name, counter string) string {
	if number == 0 {
		return fmt.Sprintf("skerry-%s%s.efi", n, counter)
	}
	return fmt.Sprintf("skerry-%d-%s%s.efi", number, n, counter)
}

// Remove implements [Backend].
func (s SystemdBoot) Remove(n Name) error {
	err := requireOther(s, n)
	if err == nil {
		err = s.remove(n)
	}
	if err != nil {
		return fmt.Errorf("cannot remove the boot image of slot %s: %w", n, err)
	}
	return nil
}

// remove removes everything of the slot, also what a cut has left. Nothing of the slot may stay: two names may mean one
// content (see Directory), and what is written next may get its place. Nothing of the other slot may go, for that reason.
func (s SystemdBoot) remove(n Name) error {
	files, err := s.Dir.List(UKIDirectory)
	if err != nil {
		return err
	}
	removed := false
	for _, f := range slices.Sorted(maps.Keys(files)) {
		if m := ukiName.FindStringSubmatch(f); f != unfinished(n) && (m == nil || m[2] != string(n)) {
			continue
		}
		if err := s.Dir.Remove(path.Join(UKIDirectory, f)); err != nil {
			return err
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return s.Dir.Sync()
}

// Install implements [Backend].
func (s SystemdBoot) Install(n Name, image io.Reader, size int64, tries int) error {
	if err := s.Remove(n); err != nil {
		return err
	}
	if err := s.install(n, image, size, tries); err != nil {
		err = errors.Join(err, s.Dir.Sync()) // what was begun is not left open
		return fmt.Errorf("cannot install the boot image of slot %s, which now has none: %w", n, err)
	}
	return nil
}

func (s SystemdBoot) install(n Name, image io.Reader, size int64, tries int) error {
	all, err := s.images()
	if err != nil {
		return err
	}
	number := 0
	for _, u := range all {
		number = max(number, u.number)
	}
	number++
	count := &counter{Reader: image}
	temporary := path.Join(UKIDirectory, unfinished(n))
	if err := s.Dir.Create(temporary, io.LimitReader(count, size)); err != nil {
		return err
	}
	if count.n != size {
		return fmt.Errorf("it has %d bytes instead of %d: %w", count.n, size, io.ErrUnexpectedEOF)
	}
	// The name that is seen comes only when the content is on the medium, or it might not be there after a cut.
	if err := s.Dir.Sync(); err != nil {
		return err
	}
	if err := s.Dir.Rename(temporary, path.Join(UKIDirectory, fileName(number, n, fmt.Sprintf("+%d-0", tries)))); err != nil {
		return err
	}
	return s.Dir.Sync()
}

// A counter counts what is read.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

var errNoImage = errors.New("the boot partition has no image for it")
