package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/machine"
)

// resetFile says what the next boot is to delete, as a scope of the device API. It goes last of all, so that a reset that was
// cut is done again.
const resetFile = stateDir + "/reset"

func requestReset(scope string) error {
	return stateRoom.use(func() error { return writeDurably(resetFile, []byte(scope)) })
}

// reset does what was asked for before this boot. It runs before anything on the data partition is in use.
func (r *root) reset(ctx context.Context) error {
	scope, err := os.ReadFile(resetFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.logf("resetting the device: %s", scope)
	switch string(scope) {
	case v1.ResetData:
		return resetData("/var", stateDir, resetFile)
	case v1.ResetEverything:
		return r.resetEverything(ctx)
	}
	return errors.Join(fmt.Errorf("cannot reset %q; nothing was deleted", scope), os.Remove(resetFile))
}

// resetData deletes all files but those of one folder, and at last the file that asked for it.
func resetData(top, except, request string) error {
	if err := removeExcept(top, except); err != nil {
		return fmt.Errorf("cannot delete the data; the next boot goes on: %w", err)
	}
	for _, dir := range dataDirs(top) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := machine.SyncFilesystem(top); err != nil {
		return err
	}
	return os.Remove(request)
}

// removeExcept removes what is in a folder, but not one folder in it, at any depth.
func removeExcept(dir, except string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		rest, err := filepath.Rel(path, except)
		switch {
		case path == except:
		case err == nil && filepath.IsLocal(rest): // it is in there
			failed = append(failed, removeExcept(path, except))
		default:
			failed = append(failed, os.RemoveAll(path))
		}
	}
	return errors.Join(failed...)
}

// resetEverything deletes the configuration, and makes the data partition one that never had a file system. When the power
// goes before that, the file that asks for it is still there; after it there is nothing left to delete.
func (r *root) resetEverything(ctx context.Context) error {
	if r.bootErr != nil { // what is at its place is a copy
		return fmt.Errorf("cannot delete the configuration; nothing else was deleted: %w", r.bootErr)
	}
	boot := machine.BootDirectory(bootDir)
	for _, name := range config.BootFiles {
		if err := boot.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot delete the configuration; nothing else was deleted: %w", err)
		}
	}
	if err := boot.Sync(); err != nil {
		return err
	}
	if err := machine.UnmountBelow("/var"); err != nil {
		return fmt.Errorf("cannot delete the data; the next boot tries again: %w", err)
	}
	if err := eraseFilesystem(r.disk.Parts[machine.DataPartition]); err != nil {
		return fmt.Errorf("cannot delete the data; the next boot tries again: %w", err)
	}
	return r.data(ctx)
}

// eraseFilesystem overwrites the ext4 superblock, after the first of its copies: see makeFilesystem, which looks for both.
func eraseFilesystem(device string) (err error) {
	medium, err := machine.OpenPartition(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, medium.Close()) }()
	zeros := make([]byte, 64<<10)
	for _, at := range []int64{backupSuperblock * blockSize, 0} {
		if at+int64(len(zeros)) > medium.Size() {
			continue
		}
		if _, err := medium.WriteAt(zeros, at); err != nil {
			return err
		}
		if err := medium.Sync(); err != nil {
			return err
		}
	}
	return nil
}
