// Package snapshot keeps copies of the cluster's datastore, and puts one back.
//
// The datastore is a folder of files that one program writes. Take and Apply copy it, and may be called only while that
// program does not run; a copy of a datastore in use is made by the program itself, and taken in by Adopt. What was asked
// for by Request is done by the next Apply, which process 1 calls at each boot before it starts anything: a power cut at any
// moment leaves the old datastore or the new one, and the request.
package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// A Reason says why a snapshot was taken.
type Reason string

// The reasons.
const (
	// Upgrade: before the first start of a new version.
	Upgrade Reason = "upgrade"
	// Asked: a person wanted it.
	Asked Reason = "asked"
	// Replaced: it was the datastore until another snapshot took its place.
	Replaced Reason = "replaced"
)

// keep is how many snapshots of each reason stay.
const keep = 3

// An Info is what is known of a snapshot.
type Info struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Version is that of the system that the datastore belonged to.
	Version string `json:"version"`
	Reason  Reason `json:"reason"`
	// For is the upgrade that it was taken for, as its caller names it.
	For string `json:"for,omitempty"`
	// Bytes is the size of its files. It is not written down.
	Bytes int64 `json:"-"`
}

// A Store is a folder of snapshots beside the datastore that they are of, on the same file system.
type Store struct {
	// Dir is the folder of snapshots; it is made when missing. Datastore is the folder of the datastore.
	Dir, Datastore string
	Now            func() time.Time

	// cut is called before each step that changes the disk, with what it is: tests let the power go there.
	cut func(step string) error
}

const (
	infoFile    = "snapshot.json"
	requestFile = "restore"
	dataDir     = "data"
	// partial is behind the name of a snapshot that is being made, removed of one that is being removed.
	partial = ".new"
	removed = ".old"
)

// nameForm keeps a name a name of a folder here.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$`)

// ErrNotFound is the error about a snapshot that is not there.
var ErrNotFound = errors.New("there is no such snapshot")

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Store) step(what string) error {
	if s.cut == nil {
		return nil
	}
	return s.cut(what)
}

// List returns the snapshots, newest first. What a power cut left half-made is none, and neither is what a disk has damaged: it
// must not keep the device from taking others.
func (s *Store) List() ([]Info, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list snapshots: %w", err)
	}
	var list []Info
	for _, e := range entries {
		if !e.IsDir() || unfinished(e.Name()) {
			continue
		}
		info, err := s.Get(e.Name())
		if err != nil {
			slog.Warn("a snapshot is left out", "reason", err)
			continue
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b Info) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(b.Name, a.Name)
	})
	return list, nil
}

func unfinished(name string) bool {
	return strings.HasSuffix(name, partial) || strings.HasSuffix(name, removed)
}

// Get returns one snapshot; its error is an [ErrNotFound] when there is none of that name.
func (s *Store) Get(name string) (Info, error) {
	if !nameForm.MatchString(name) || unfinished(name) {
		return Info{}, fmt.Errorf("snapshot %q: %w", name, ErrNotFound)
	}
	text, err := os.ReadFile(filepath.Join(s.path(name), infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, fmt.Errorf("snapshot %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return Info{}, fmt.Errorf("cannot read snapshot %s: %w", name, err)
	}
	var info Info
	if err := json.Unmarshal(text, &info); err != nil {
		return Info{}, fmt.Errorf("cannot read snapshot %s: %w", name, err)
	}
	info.Name = name
	files, err := os.ReadDir(filepath.Join(s.path(name), dataDir))
	if err != nil {
		return Info{}, fmt.Errorf("cannot read snapshot %s: %w", name, err)
	}
	for _, f := range files {
		if i, err := f.Info(); err == nil {
			info.Bytes += i.Size()
		}
	}
	return info, nil
}

// Find returns the snapshot that was taken for an upgrade.
func (s *Store) Find(upgrade string) (Info, bool, error) {
	list, err := s.List()
	i := slices.IndexFunc(list, func(i Info) bool { return i.Reason == Upgrade && i.For == upgrade })
	if err != nil || i < 0 {
		return Info{}, false, err
	}
	return list[i], true, nil
}

// Take copies the datastore, which nobody may have open. Without a datastore there is nothing to take, and ok is false. Older
// snapshots of the same reason are removed when there are too many.
func (s *Store) Take(info Info) (taken Info, ok bool, err error) {
	if _, err := os.Stat(s.Datastore); errors.Is(err, fs.ErrNotExist) {
		return Info{}, false, nil
	}
	taken, err = s.make(info, func(dir string) error { return copyFiles(s.Datastore, dir) })
	return taken, err == nil, err
}

// Adopt takes a snapshot in that fill writes, as files in an empty folder.
func (s *Store) Adopt(info Info, fill func(dir string) error) (Info, error) {
	return s.make(info, fill)
}

func (s *Store) make(info Info, fill func(dir string) error) (Info, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return Info{}, fmt.Errorf("cannot take a snapshot: %w", err)
	}
	info.Created = s.Now().UTC().Truncate(time.Second)
	name, err := s.freeName(info)
	if err != nil {
		return Info{}, err
	}
	dir := s.path(name)
	if err := errors.Join(s.step("fill "+name), s.fill(dir+partial, info, fill)); err != nil {
		return Info{}, fmt.Errorf("cannot take a snapshot: %w", errors.Join(err, os.RemoveAll(dir+partial)))
	}
	if err := errors.Join(s.step("name "+name), rename(dir+partial, dir)); err != nil {
		return Info{}, fmt.Errorf("cannot take a snapshot: %w", err)
	}
	if err := s.prune(info.Reason, name); err != nil {
		return Info{}, err
	}
	return s.Get(name)
}

// freeName is the time, and why. Clocks of devices are set back now and then: a name that is taken gets a number.
func (s *Store) freeName(info Info) (string, error) {
	base := fmt.Sprintf("%s-%s", info.Created.Format("20060102-150405"), info.Reason)
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		if _, err := os.Lstat(s.path(name)); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
			return "", fmt.Errorf("cannot take a snapshot: %w", err)
		}
	}
}

func (s *Store) fill(dir string, info Info, fill func(dir string) error) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	data := filepath.Join(dir, dataDir)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	if err := errors.Join(fill(data), syncTree(data)); err != nil {
		return err
	}
	return writeInfo(dir, info)
}

// writeInfo is the last thing that is written: with it a snapshot is whole.
func writeInfo(dir string, info Info) error {
	text, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return errors.Join(renameio.WriteFile(filepath.Join(dir, infoFile), text, 0o600), syncDir(dir))
}

// tidy finishes what a power cut has left: what is whole gets its name, what is not goes.
func (s *Store) tidy() error {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !unfinished(e.Name()) {
			continue
		}
		path := s.path(e.Name())
		name, isPartial := strings.CutSuffix(path, partial)
		if isPartial && exists(filepath.Join(path, infoFile)) && exists(filepath.Join(path, dataDir)) {
			err = errors.Join(s.step("finish "+e.Name()), rename(path, name))
		} else {
			err = errors.Join(s.step("tidy "+e.Name()), os.RemoveAll(path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// prune removes the oldest of a reason, but not the one that was just made: after a clock that was wrong others may be
// of later than now.
func (s *Store) prune(of Reason, made string) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	requested, err := s.Requested()
	if err != nil {
		return err
	}
	kept := 1 // made
	for _, i := range list {
		if i.Reason != of || i.Name == made {
			continue
		}
		if kept++; kept <= keep || i.Name == requested {
			continue
		}
		if err := errors.Join(s.step("remove "+i.Name), s.remove(i.Name)); err != nil {
			return fmt.Errorf("cannot remove the old snapshot %s: %w", i.Name, err)
		}
	}
	return nil
}

// remove takes the name away first, so that a power cut leaves no snapshot that lacks files.
func (s *Store) remove(name string) error {
	if err := rename(s.path(name), s.path(name)+removed); err != nil {
		return err
	}
	return os.RemoveAll(s.path(name) + removed)
}

// copyFiles copies the files of a folder, not deeper.
func copyFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// syncTree brings the files of a folder, and their names, to the disk.
func syncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncDir(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncDir(dir)
}

// syncDir works for files, too.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// rename is durable when it returns.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if a, b := filepath.Dir(from), filepath.Dir(to); a != b {
		if err := syncDir(a); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(to))
}
