package slottest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/skerryos/skerry/initd/slot"
)

// Images are the contents of all images that the boot loader takes on its own account: those that are good or have
// attempts left.
func (f *FAT) Images() [][]byte {
	var out [][]byte
	for _, e := range f.entries() {
		if e.left != 0 {
			out = append(out, f.now.names[e.file].data)
		}
	}
	return out
}

// An entry is an image as systemd-boot sees it. Good ones have -1 attempts left.
type entry struct {
	file, id   string
	left, done int
}

// entries are systemd-boot's, in the order of its preference (boot_entry_compare in its boot.c). Skerry's images give it
// no sort key (see docs/decisions), so that it compares what is before the counters in their names.
func (f *FAT) entries() []entry {
	var all []entry
	for file, c := range f.now.names {
		e := entry{file: file, left: -1}
		name, isImage := strings.CutSuffix(file, ".efi")
		if !isImage || len(c.data) == 0 {
			continue
		}
		id, counters, counted := strings.Cut(name, "+")
		if e.id = id; counted {
			if n, _ := fmt.Sscanf(counters, "%d-%d", &e.left, &e.done); n < 1 {
				e.id, e.left = name, -1
			}
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b entry) int {
		if (a.left == 0) != (b.left == 0) {
			if a.left == 0 {
				return 1
			}
			return -1
		}
		return cmp.Or(-compareVersions(a.id, b.id), -strings.Compare(a.file, b.file))
	})
	return all
}

// Boot does what systemd-boot does at power-on: it takes the first entry and counts the attempt in its name, also when there was none
// left. It returns the image.
func (f *FAT) Boot() ([]byte, error) {
	all := f.entries()
	if len(all) == 0 {
		return nil, errors.New("the boot loader finds nothing to boot")
	}
	e := all[0]
	c := f.now.names[e.file]
	if e.left >= 0 {
		delete(f.now.names, e.file)
		f.now.names[fmt.Sprintf("%s+%d-%d.efi", e.id, max(e.left-1, 0), e.done+1)] = c
	}
	f.sync()
	return c.data, nil
}

// compareVersions orders names as systemd-boot does (https://uapi-group.org/specifications/specs/version_format_specification/):
// by segments of digits and of letters, digits being newer than letters and a segment with a hyphen or a dot before it
// being older than one without. The names here have no other characters.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		for _, separator := range []string{"-", "."} {
			restA, cutA := strings.CutPrefix(a, separator)
			restB, cutB := strings.CutPrefix(b, separator)
			if cutA != cutB {
				if cutA {
					return -1
				}
				return 1
			}
			a, b = restA, restB
		}
		digit := func(r rune) bool { return r >= '0' && r <= '9' }
		letter := func(r rune) bool { return r >= 'a' && r <= 'z' }
		numA, numB := span(a, digit), span(b, digit)
		if (numA == 0) != (numB == 0) {
			return cmp.Compare(numA, numB)
		}
		if numA > 0 {
			x, y := strings.TrimLeft(a[:numA], "0"), strings.TrimLeft(b[:numB], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[numA:], b[numB:]
			continue
		}
		alphaA, alphaB := span(a, letter), span(b, letter)
		if c := strings.Compare(a[:alphaA], b[:alphaB]); c != 0 {
			return c
		}
		if alphaA == 0 {
			return strings.Compare(a, b)
		}
		a, b = a[alphaA:], b[alphaB:]
	}
	return cmp.Compare(len(a), len(b))
}

// span is the length of the leading part of s that is made of such characters.
func span(s string, is func(rune) bool) int {
	if i := strings.IndexFunc(s, func(r rune) bool { return !is(r) }); i >= 0 {
		return i
	}
	return len(s)
}

// A SystemdBoot is a machine with systemd-boot.
type SystemdBoot struct {
	slot.SystemdBoot
	*FAT
}

// NewSystemdBoot is a machine as the factory makes it.
func NewSystemdBoot(image string, tries int) Machine {
	f := NewFAT(map[string]string{fmt.Sprintf("skerry-a+%d-0.efi", tries): image})
	return SystemdBoot{slot.SystemdBoot{Dir: f}, f}
}

// Cut implements [Machine].
func (s SystemdBoot) Cut(luck Luck) Machine {
	f := s.CutFAT(luck)
	return SystemdBoot{slot.SystemdBoot{Dir: f}, f}
}

// Remove is the backend's, not the folder's.
func (s SystemdBoot) Remove(n slot.Name) error { return s.SystemdBoot.Remove(n) }
