package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// Request asks for a snapshot to be put back by the next [Store.Apply]. A former request is replaced.
func (s *Store) Request(name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	if err := s.step("request " + name); err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path(requestFile), []byte(name+"\n"), 0o600); err != nil {
		return fmt.Errorf("cannot ask for snapshot %s: %w", name, err)
	}
	return syncDir(s.Dir)
}

// Release forgets which upgrade a snapshot was taken for.
func (s *Store) Release(name string) error {
	info, err := s.Get(name)
	if err != nil {
		return err
	}
	info.For = ""
	if err := errors.Join(s.step("release "+name), writeInfo(s.path(name), info)); err != nil {
		return fmt.Errorf("cannot change snapshot %s: %w", name, err)
	}
	return nil
}

// Requested is the name of the snapshot that is to be put back; empty when none is.
func (s *Store) Requested() (string, error) {
	text, err := os.ReadFile(s.path(requestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read which snapshot is to be put back: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// Apply does what was requested, and returns the name of the snapshot that is the datastore now; it is empty when nothing was
// requested. The datastore that it takes the place of becomes a snapshot itself, from the version given. Nobody may have
// the datastore open.
//
// A copy is made beside the datastore first; then two renames put it in its place. Whenever the power goes the next Apply
// finds the request, and at worst begins anew.
func (s *Store) Apply(version string) (string, error) {
	if err := s.tidy(); err != nil {
		return "", fmt.Errorf("cannot tidy snapshots: %w", err)
	}
	name, err := s.Requested()
	if err != nil || name == "" {
		return "", err
	}
	if err := s.apply(name, version); err != nil {
		return "", fmt.Errorf("cannot put snapshot %s back: %w", name, err)
	}
	return name, nil
}

func (s *Store) apply(name, version string) error {
	info, err := s.Get(name)
	if errors.Is(err, ErrNotFound) {
		// Somebody has removed it. To ask for ever would be of no use.
		return errors.Join(err, s.settle())
	}
	if err != nil {
		return err
	}
	ready, replaced := s.Datastore+".restored", ""
	_, err = os.Lstat(s.Datastore)
	switch {
	case err == nil:
		if err := errors.Join(s.step("copy"), s.stage(info, ready)); err != nil {
			return err
		}
		if replaced, err = s.setAside(version); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !exists(ready):
		// There never was one.
		if err := errors.Join(s.step("copy"), s.stage(info, ready)); err != nil {
			return err
		}
	default: // it was set aside, and the power went: the copy is whole
	}
	if err := errors.Join(s.step("put in place"), rename(ready, s.Datastore)); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	return s.prune(Replaced, replaced)
}

// stage makes the copy that is to be the datastore, whole or not at all.
func (s *Store) stage(info Info, ready string) error {
	for _, dir := range []string{ready, ready + partial} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(ready+partial, 0o700); err != nil {
		return err
	}
	if err := errors.Join(copyFiles(filepath.Join(s.path(info.Name), dataDir), ready+partial), syncTree(ready+partial)); err != nil {
		return err
	}
	return errors.Join(s.step("copied"), rename(ready+partial, ready))
}

// setAside makes a snapshot of the datastore by moving it.
func (s *Store) setAside(version string) (name string, err error) {
	info := Info{Version: version, Reason: Replaced, Created: s.Now().UTC()}
	if name, err = s.freeName(info); err != nil {
		return "", err
	}
	dir := s.path(name) + partial
	if err := errors.Join(s.step("prepare "+name), os.MkdirAll(dir, 0o700), writeInfo(dir, info)); err != nil {
		return "", err
	}
	if err := errors.Join(s.step("set aside"), rename(s.Datastore, filepath.Join(dir, dataDir))); err != nil {
		return "", err
	}
	return name, errors.Join(s.step("name "+name), rename(dir, s.path(name)))
}

// Withdraw takes a request back that could not be done, as long as the datastore is the one from before: else it would be done at
// some later boot, to whatever the datastore has become by then. It returns what was withdrawn.
func (s *Store) Withdraw() (string, error) {
	name, err := s.Requested()
	if err != nil || name == "" || !exists(s.Datastore) {
		return "", err
	}
	if err := s.settle(); err != nil {
		return "", fmt.Errorf("cannot withdraw that snapshot %s is to be put back: %w", name, err)
	}
	return name, nil
}

// settle ends the request.
func (s *Store) settle() error {
	if err := s.step("settle"); err != nil {
		return err
	}
	if err := os.Remove(s.path(requestFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(s.Dir)
}
