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

// completeMark is beside the copies as soon as all of them were made once: before, that one is not there means nothing.
const completeMark = "complete"

// keepBootFiles makes the copies in saved those of boot. What has not changed is not written.
func keepBootFiles(boot, saved string) error {
	if err := os.MkdirAll(saved, 0o700); err != nil {
		return fmt.Errorf("cannot keep a copy of the configuration: %w", err)
	}
	var failed []error
	complete := true
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
			complete = false // why is reported by who reads it for its content
			continue
		}
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
			continue
		}
		failed = append(failed, writeDurably(file, text))
	}
	mark := filepath.Join(saved, completeMark)
	if _, err := os.Stat(mark); err != nil && complete && errors.Join(failed...) == nil {
		failed = append(failed, writeDurably(mark, nil))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("cannot keep a copy of the configuration: %w", err)
	}
	return nil
}

// lastBootFiles puts the copies where the boot partition would be. They are in memory: whoever looks for boot entries there finds none, and
// can change nothing.
func lastBootFiles(saved, boot string) error {
	if _, err := os.Stat(filepath.Join(saved, completeMark)); err != nil {
		return fmt.Errorf("there is no copy of the configuration: %w", err)
	}
	if err := (machine.Mount{Source: "boot-files", Target: boot, Type: "tmpfs", Flags: nosuid, Data: "mode=700,size=1m"}).Do(); err != nil {
		return err
	}
	for _, name := range config.BootFiles {
		text, err := os.ReadFile(filepath.Join(saved, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(boot, name), text, 0o600)
		}
		if err != nil {
			return fmt.Errorf("cannot use the copy of the configuration: %w", errors.Join(err, unix.Unmount(boot, 0)))
		}
	}
	return nil
}
