// Package durable writes files of the cluster's state so that a power cut leaves either the old content or the new,
// never a mixture and never an empty file.
package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// WriteFile replaces path by data with the given mode: temporary file, fsync, rename, fsync of the directory. Missing
// parent directories are made with mode 0755, or 0700 when perm gives nothing to others. A file that already has this
// content and mode is left alone, which saves a flash card three writes.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	if same(path, data, perm) {
		return nil
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode(perm)); err != nil {
		return fmt.Errorf("cannot make the folder of %s: %w", path, err)
	}
	if err := replace(path, data, perm); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return SyncDir(dir)
}

func replace(path string, data []byte, perm os.FileMode) error {
	f, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(perm))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace() // with fsync
}

// Link makes path a symbolic link to target. A link is replaced; a regular file or folder there belongs to somebody
// else and is left untouched, which is reported as ErrForeign.
func Link(target, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("cannot look at %s: %w", path, err)
	case info.Mode()&os.ModeSymlink == 0:
		return fmt.Errorf("cannot link %s to %s: %w", path, target, ErrForeign)
	default:
		if old, err := os.Readlink(path); err == nil && old == target {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of %s: %w", path, err)
	}
	if err := renameio.Symlink(target, path); err != nil {
		return fmt.Errorf("cannot link %s to %s: %w", path, target, err)
	}
	return nil
}

// ErrForeign says that a path is taken by a file that this program did not make.
var ErrForeign = errors.New("a file that is not ours is already there; it was left untouched")

// SyncDir makes earlier renames and removals in dir survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open folder %s to sync it: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot sync folder %s: %w", dir, err)
	}
	return nil
}

func same(path string, data []byte, perm os.FileMode) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != perm || info.Size() != int64(len(data)) {
		return false
	}
	old, err := os.ReadFile(path)
	return err == nil && bytes.Equal(old, data)
}

func dirMode(perm os.FileMode) os.FileMode {
	if perm&0o077 == 0 {
		return 0o700
	}
	return 0o755
}
