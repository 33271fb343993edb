package slot

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
)

// UKIDirectory is where systemd-boot looks for unified kernel images, below the root of its partition.
const UKIDirectory = "EFI/Linux"

// A Directory is the folder of a FAT file system, as far as a backend needs it. Rename is atomic and replaces; Sync
// returns when all is on the medium.
type Directory interface {
	List(dir string) ([]string, error)
	Rename(from, to string) error
	Sync() error
}

// SystemdBoot is the state as systemd-boot keeps it: in the names of the images, counted down by renaming before each
// attempt (https://uapi-group.org/specifications/specs/boot_loader_specification/#boot-counting).
//
//	skerry-a+3-0.efi   three attempts left, none made
//	skerry-a.efi       good
//	skerry-a+0-3.efi   bad: taken only if there is nothing else
type SystemdBoot struct {
	Dir Directory
}

var ukiName = regexp.MustCompile(`^skerry-([ab])(?:\+(\d{1,3})(?:-(\d{1,3}))?)?\.efi$`)

type uki struct {
	file string
	Status
}

// find returns the image of a slot. More than one, which only a cut between two steps of another tool could leave, count
// as the best of them.
func (s SystemdBoot) find(n Name) (uki, error) {
	files, err := s.Dir.List(UKIDirectory)
	if err != nil {
		return uki{}, fmt.Errorf("cannot read boot state of slot %s: %w", n, err)
	}
	var best uki
	for _, f := range files {
		m := ukiName.FindStringSubmatch(f)
		if m == nil || m[1] != string(n) {
			continue
		}
		u := uki{file: f, Status: Status{Present: true, Good: m[2] == ""}}
		u.Left, _ = strconv.Atoi(m[2]) // digits, or empty
		u.Done, _ = strconv.Atoi(m[3])
		if !best.Present || u.Good || (!best.Good && u.Left > best.Left) {
			best = u
		}
	}
	return best, nil
}

// Status implements [Backend].
func (s SystemdBoot) Status(n Name) (Status, error) {
	u, err := s.find(n)
	return u.Status, err
}

// MarkGood implements [Backend].
func (s SystemdBoot) MarkGood(n Name) error {
	u, err := s.find(n)
	if err != nil {
		return err
	}
	if u.Good {
		return nil
	}
	return s.rename(n, u, fmt.Sprintf("skerry-%s.efi", n))
}

// MarkBad implements [Backend].
func (s SystemdBoot) MarkBad(n Name) error {
	u, err := s.find(n)
	if err != nil {
		return err
	}
	if u.Present && !u.Good && u.Left == 0 {
		return nil
	}
	return s.rename(n, u, fmt.Sprintf("skerry-%s+0-%d.efi", n, max(u.Done, 1)))
}

func (s SystemdBoot) rename(n Name, u uki, to string) error {
	if !u.Present {
		return fmt.Errorf("cannot mark slot %s: %w", n, errNoImage)
	}
	if err := s.Dir.Rename(path.Join(UKIDirectory, u.file), path.Join(UKIDirectory, to)); err != nil {
		return fmt.Errorf("cannot mark slot %s: %w", n, err)
	}
	if err := s.Dir.Sync(); err != nil {
		return fmt.Errorf("cannot mark slot %s: %w", n, err)
	}
	return nil
}

var errNoImage = errors.New("the boot partition has no image for it")
