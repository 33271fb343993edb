package slottest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/skerryos/skerry/initd/slot"
)

// A FAT is the folder of boot images, as a [slot.Directory]. It forgets at a power cut as Linux' vfat does when it is
// mounted with dirsync: changes of the folder reach the medium in their order, but late; content reaches it at any time
// before it is synced. Renaming is three changes: an empty file of the new name, its content, the end of the old name. The
// content of a file that has two names is given up with the first of them, and overwritten by what is created next.
type FAT struct {
	now, medium view
	pending     []func(*view)
	onStep      func() error
}

// A view is the folder, either as programs see it or as it is on the medium.
type view struct {
	names map[string]*content
	free  map[*content]bool // given up; overwritten by the next file
}

type content struct {
	data    []byte
	durable bool
}

func (v view) clone() view { return view{maps.Clone(v.names), maps.Clone(v.free)} }

// drop removes a name, and by that the content.
func (v *view) drop(name string) {
	v.free[v.names[name]] = true
	delete(v.names, name)
}

// NewFAT makes a folder of files.
func NewFAT(files map[string]string) *FAT {
	f := &FAT{now: view{map[string]*content{}, map[*content]bool{}}}
	for name, data := range files {
		f.now.names[name] = &content{[]byte(data), true}
	}
	f.medium = f.now.clone()
	return f
}

// OnStep sets a function that is called before each access. When it returns an error the access does nothing.
func (f *FAT) OnStep(do func() error) { f.onStep = do }

func (f *FAT) step() error {
	if f.onStep == nil {
		return nil
	}
	return f.onStep()
}

func (f *FAT) change(do func(*view)) {
	do(&f.now)
	f.pending = append(f.pending, do)
}

// List implements [slot.Directory].
func (f *FAT) List(dir string) (map[string]int64, error) {
	if dir != slot.UKIDirectory {
		return nil, fmt.Errorf("no folder %s", dir)
	}
	files := map[string]int64{}
	for name, c := range f.now.names {
		files[name] = int64(len(c.data))
	}
	return files, f.step()
}

// Create implements [slot.Directory].
func (f *FAT) Create(name string, r io.Reader) error {
	name = path.Base(name)
	if err := f.step(); err != nil {
		return err
	}
	if f.now.names[name] != nil {
		return fmt.Errorf("file %s exists", name)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, v := range []view{f.now, f.medium} {
		for c := range f.now.free {
			if slices.Contains(slices.Collect(maps.Values(v.names)), c) {
				c.data = bytes.Repeat([]byte{'?'}, len(c.data))
			}
		}
	}
	c := &content{data: data}
	f.change(func(v *view) { v.names[name] = c })
	if err := f.step(); err != nil {
		return err
	}
	c.durable = true
	return nil
}

// Rename implements [slot.Directory].
func (f *FAT) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	from, to = path.Base(from), path.Base(to)
	c, old := f.now.names[from], f.now.names[to]
	switch {
	case c == nil:
		return fmt.Errorf("no file %s", from)
	case old == nil:
		empty := &content{durable: true}
		f.change(func(v *view) { v.names[to] = empty })
	case len(old.data) > 0:
		return fmt.Errorf("%s has content, which would be lost", to)
	}
	f.change(func(v *view) { v.names[to] = c })
	f.change(func(v *view) { delete(v.names, from) })
	return nil
}

// Remove implements [slot.Directory].
func (f *FAT) Remove(name string) error {
	if err := f.step(); err != nil {
		return err
	}
	name = path.Base(name)
	if f.now.names[name] == nil {
		return fmt.Errorf("no file %s", name)
	}
	f.change(func(v *view) { v.drop(name) })
	return nil
}

// Sync implements [slot.Directory].
func (f *FAT) Sync() error {
	if err := f.step(); err != nil {
		return err
	}
	f.sync()
	return nil
}

func (f *FAT) sync() {
	f.medium, f.pending = f.now.clone(), nil
	for _, c := range f.now.names {
		c.durable = true
	}
}

// Synced tells whether all is on the medium.
func (f *FAT) Synced() bool { return len(f.pending) == 0 }

// CutFAT is the folder after a power cut now.
func (f *FAT) CutFAT(luck Luck) *FAT {
	left := f.medium.clone()
	for i, change := range f.pending {
		if luck(i, len(f.pending)) != Kept {
			break
		}
		change(&left)
	}
	// The contents are copied: the machine goes on, and so does what it might have become.
	copies := map[*content]*content{}
	after := view{map[string]*content{}, map[*content]bool{}}
	for i, name := range slices.Sorted(maps.Keys(left.names)) {
		c := left.names[name]
		if copies[c] == nil {
			n := &content{bytes.Clone(c.data), true}
			if !c.durable {
				for j := range n.data {
					if fate := luck(i, len(left.names)); fate == Lost || fate == Torn && j >= len(n.data)/2 {
						n.data[j] = '?'
					}
				}
			}
			copies[c] = n
		}
		after.names[name] = copies[c]
		if left.free[c] {
			after.free[copies[c]] = true
		}
	}
	return &FAT{now: after, medium: after.clone()}
}

// String is the whole folder.
func (f *FAT) String() string { return strings.Join(slices.Sorted(maps.Keys(f.now.names)), " ") }

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

// Boot does what systemd-boot does at power-on: it takes the first entry and counts the attempt in its name. It returns the
// image.
func (f *FAT) Boot() ([]byte, error) {
	all := f.entries()
	if len(all) == 0 {
		return nil, errors.New("the boot loader finds nothing to boot")
	}
	e := all[0]
	c := f.now.names[e.file]
	if e.left > 0 {
		delete(f.now.names, e.file)
		f.now.names[fmt.Sprintf("%s+%d-%d.efi", e.id, e.left-1, e.done+1)] = c
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
