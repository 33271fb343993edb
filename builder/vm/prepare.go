package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// PrepareFirmware gives a machine its own copy of the firmware's variables in folder, unless it has one there already from
// an earlier start.
func PrepareFirmware(architecture, folder string) (Firmware, error) {
	template, err := FindFirmware(architecture)
	if err != nil {
		return Firmware{}, err
	}
	own := Firmware{Code: template.Code, Variables: filepath.Join(folder, "firmware-variables.fd")}
	if exists(own.Variables) {
		return own, nil
	}
	b, err := os.ReadFile(template.Variables)
	if err != nil {
		return Firmware{}, fmt.Errorf("cannot copy the firmware's variables: %w", err)
	}
	if err := renameio.WriteFile(own.Variables, b, 0o600); err != nil {
		return Firmware{}, fmt.Errorf("cannot copy the firmware's variables: %w", err)
	}
	return own, nil
}

// PrepareSockets makes the folder of a machine's control sockets, with a path short enough for them; remove deletes it.
func PrepareSockets() (folder string, remove func(), err error) {
	// The usual folder of temporary files can have a long path (on macOS it has), so this one is always below /tmp.
	folder, err = os.MkdirTemp("/tmp", "skerry-vm-")
	if err != nil {
		return "", nil, fmt.Errorf("cannot make a folder for the machine's sockets: %w", err)
	}
	return folder, func() { os.RemoveAll(folder) }, nil
}

// ReadKernel returns the kernel in a build's boot folder: vmlinuz, initrd and cmdline.
func ReadKernel(folder string) (*Kernel, error) {
	line, err := os.ReadFile(filepath.Join(folder, "cmdline"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot boot a kernel from %s: there is none; build the image first: make image", folder)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel's command line: %w", err)
	}
	return &Kernel{
		Image:       filepath.Join(folder, "vmlinuz"),
		Initrd:      filepath.Join(folder, "initrd"),
		CommandLine: strings.TrimSpace(string(line)),
	}, nil
}
