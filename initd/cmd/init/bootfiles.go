package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/machine"
)

// savedBootFiles are copies of the files on the boot partition that configure the device, as of the last boot that could read them.
const savedBootFiles = stateDir + "/boot-files"

// keepBootFiles makes the copies in saved those of boot. What has not changed is not written.
func keepBootFiles(boot, saved string) error {
	if err := os.MkdirAll(saved, 0o700); err != nil {
		return fmt.Errorf("cannot keep a copy of the configuration: %w", err)
	}
	var failed []error
	for _, name := range config.BootFiles {
		text, err := os.ReadFile(filepath.Join(boot, name))
		file := filepath.Join(saved, name)
		if errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, err)
			}
			continue
		}
		if err != nil || len(text) > config.MaxSize {
			continue // reported by who reads it for its content
		}
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
			continue
		}
		failed = append(failed, writeDurably(file, text))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("cannot keep a copy of the configuration: %w", err)
	}
	return nil
}

// lastBootFiles puts the copies where the boot partition would be. They are in memory: whoever looks for boot entries there finds none, and
// can change nothing.
func lastBootFiles(saved, boot string) error {
	if _, err := os.Stat(saved); err != nil {
		return fmt.Errorf("there is no copy of the configuration: %w", err)
	}
	if err := (machine.Mount{Source: "boot-files", Target: boot, Type: "tmpfs", Flags: nosuid, Data: "mode=700,size=1m"}).Do(); err != nil {
		return err
	}
	if err := os.CopyFS(boot, os.DirFS(saved)); err != nil {
		return fmt.Errorf("cannot use the copy of the configuration: %w", errors.Join(err, unix.Unmount(boot, 0)))
	}
	return nil
}
