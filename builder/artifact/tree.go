package artifact

import (
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
)

// An Entry is one path of a file tree. Owner and group are always root.
type Entry struct {
	// Path is absolute and clean.
	Path string
	// Mode is the type (directory, symbolic link or regular file) and the permission bits.
	Mode fs.FileMode
	// Target is where a symbolic link points.
	Target string
	// Content is what a regular file holds.
	Content Content
	// Origin says where the entry is from ("package nft 1.1.3-1"), Reason why it is there.
	Origin string
	Reason string
}

func (e Entry) isDir() bool  { return e.Mode.IsDir() }
func (e Entry) isLink() bool { return e.Mode.Type() == fs.ModeSymlink }

// A Tree is a file system in the making. The zero Tree is empty. A path has one origin: adding another entry at
// a path that is taken is an error, except for directories that agree.
type Tree struct {
	entries map[string]*Entry
}

// Add puts e into the tree and makes the directories above it.
func (t *Tree) Add(e Entry) error {
	if t.entries == nil {
		t.entries = map[string]*Entry{"/": {Path: "/", Mode: fs.ModeDir | 0o755, Origin: "builder", Reason: "root directory"}}
	}
	if !path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path {
		return fmt.Errorf("cannot add %q to the file tree: not a clean absolute path (from %s)", e.Path, e.Origin)
	}
	switch e.Mode.Type() {
	case 0, fs.ModeDir, fs.ModeSymlink:
	default:
		return fmt.Errorf("cannot add %s to the file tree: %s is neither file, directory nor link (from %s)", e.Path, e.Mode.Type(), e.Origin)
	}
	if old, taken := t.entries[e.Path]; taken {
		return t.merge(old, e)
	}
	if err := t.addParents(e); err != nil {
		return err
	}
	t.entries[e.Path] = &e
	return nil
}

// merge decides about a path that is taken: two directories are one, an explicit one gives the mode.
func (t *Tree) merge(old *Entry, e Entry) error {
	if !old.isDir() || !e.isDir() {
		return fmt.Errorf("cannot add %s from %s: it is already there from %s; take it from one of them only", e.Path, e.Origin, old.Origin)
	}
	if old.Origin == implied {
		*old = e
		return nil
	}
	if e.Origin != implied && old.Mode != e.Mode && e.Path != "/" {
		return fmt.Errorf("cannot add directory %s with mode %v from %s: %s has it with mode %v", e.Path, e.Mode, e.Origin, old.Origin, old.Mode)
	}
	return nil
}

// implied is the origin of directories that nobody named, but that hold something.
const implied = "builder (holds files)"

func (t *Tree) addParents(e Entry) error {
	for dir := path.Dir(e.Path); dir != "/"; dir = path.Dir(dir) {
		if p, ok := t.entries[dir]; ok {
			if !p.isDir() {
				return fmt.Errorf("cannot add %s from %s: %s is not a directory (from %s)", e.Path, e.Origin, dir, p.Origin)
			}
			return nil
		}
		t.entries[dir] = &Entry{Path: dir, Mode: fs.ModeDir | 0o755, Origin: implied, Reason: e.Reason}
	}
	return nil
}

// Lookup returns the entry at a path; it does not follow links.
func (t *Tree) Lookup(p string) (Entry, bool) {
	e, ok := t.entries[p]
	if !ok {
		return Entry{}, false
	}
	return *e, true
}

// Resolve follows symbolic links, in every element of p, to what is there.
func (t *Tree) Resolve(p string) (Entry, error) {
	const maxLinks = 40 // as Linux has it: path_resolution(7)
	links := 0
	done, rest := "/", strings.Split(strings.TrimPrefix(path.Clean(p), "/"), "/")
	for len(rest) > 0 {
		elem := rest[0]
		rest = rest[1:]
		if elem == "" {
			continue
		}
		next := path.Join(done, elem)
		e, ok := t.entries[next]
		if !ok {
			return Entry{}, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
		}
		if !e.isLink() {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return Entry{}, fmt.Errorf("%s: too many symbolic links", p)
		}
		target := e.Target
		if !path.IsAbs(target) {
			target = path.Join(done, target)
		}
		rest = append(strings.Split(strings.TrimPrefix(path.Clean(target), "/"), "/"), rest...)
		done = "/"
	}
	return *t.entries[done], nil
}

// Entries returns all entries, sorted by path.
func (t *Tree) Entries() []Entry {
	out := make([]Entry, 0, len(t.entries))
	for _, e := range t.entries {
		out = append(out, *e)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

// keyEntry is what of an Entry decides the bytes of a file system made from it.
type keyEntry struct {
	Path   string      `json:"path"`
	Mode   fs.FileMode `json:"mode"`
	Target string      `json:"target,omitempty"`
	SHA256 string      `json:"sha256,omitempty"`
}

// keyEntries returns the tree as an input of a cache key.
func (t *Tree) keyEntries() []keyEntry {
	entries := t.Entries()
	out := make([]keyEntry, len(entries))
	for i, e := range entries {
		out[i] = keyEntry{e.Path, e.Mode, e.Target, e.Content.SHA256}
	}
	return out
}
