package slottest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/skerryos/skerry/initd/slot"
)

// A FAT is the folder of boot images, as a [slot.Directory], or a whole boot partition, as a [slot.Volume]. It forgets at a power cut as Linux' vfat does when it is
// mounted with dirsync: changes of the folder reach the medium in their order, but late; content reaches it at any time
// before it is synced. Renaming is three changes: an empty file of the new name, its content, the end of the old name. The
// content of a file that has two names is given up with the first of them, and overwritten by what is created next.
type FAT struct {
	top         string // the folder whose content this is; "" is the root
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
	folder  bool
}

func (v view) clone() view { return view{maps.Clone(v.names), maps.Clone(v.free)} }

// drop removes a name, and by that the content.
func (v *view) drop(name string) {
	v.free[v.names[name]] = true
	delete(v.names, name)
}

// NewFAT makes a folder of boot images.
func NewFAT(files map[string]string) *FAT { return newFAT(slot.UKIDirectory, files) }

func newFAT(top string, files map[string]string) *FAT {
	f := &FAT{top: top, now: view{map[string]*content{}, map[*content]bool{}}}
	for name, data := range files {
		f.now.names[name] = &content{data: []byte(data), durable: true}
		if dir := path.Dir(name); dir != "." {
			f.now.names[dir] = &content{durable: true, folder: true}
		}
	}
	f.medium = f.now.clone()
	return f
}

// below is a path's part below the folder.
func (f *FAT) below(name string) string {
	if name == f.top {
		return "."
	}
	return strings.TrimPrefix(name, f.top+"/")
}

// OnStep sets a function that is called before each change, and before it is made durable. When it returns an error nothing is
// done.
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
	dir = f.below(dir)
	if c := f.now.names[dir]; dir != "." && (c == nil || !c.folder) {
		return nil, fmt.Errorf("no folder %s", dir)
	}
	files := map[string]int64{}
	for name, c := range f.now.names {
		if path.Dir(name) == dir {
			files[path.Base(name)] = int64(len(c.data))
		}
	}
	return files, nil
}

// MakeFolder implements [slot.Volume].
func (f *FAT) MakeFolder(name string) error {
	if err := f.step(); err != nil {
		return err
	}
	if f.now.names[name] != nil {
		return fmt.Errorf("folder %s exists", name)
	}
	c := &content{durable: true, folder: true}
	f.change(func(v *view) { v.names[name] = c })
	return nil
}

// Create implements [slot.Directory].
func (f *FAT) Create(name string, r io.Reader) error {
	name = f.below(name)
	if err := f.step(); err != nil {
		return err
	}
	if f.now.names[name] != nil {
		return fmt.Errorf("file %s exists", name)
	}
	if dir := path.Dir(name); dir != "." && f.now.names[dir] == nil {
		return fmt.Errorf("no folder %s", dir)
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
	from, to = f.below(from), f.below(to)
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
	name = f.below(name)
	if f.now.names[name] == nil {
		return fmt.Errorf("no file %s", name)
	}
	for other := range f.now.names {
		if path.Dir(other) == name {
			return fmt.Errorf("folder %s is not empty", name)
		}
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
			n := &content{bytes.Clone(c.data), true, c.folder}
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
	return &FAT{top: f.top, now: after, medium: after.clone()}
}

// String is the whole folder.
func (f *FAT) String() string { return strings.Join(slices.Sorted(maps.Keys(f.now.names)), " ") }
