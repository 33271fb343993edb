package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
)

// Firmware is a UEFI firmware in two flash images: the code, shared and read-only, and the variables, which a machine
// writes to.
type Firmware struct{ Code, Variables string }

// A descriptor is the part that we use of a firmware descriptor (docs/interop/firmware.json in QEMU's sources): the
// file by which distributions say where a firmware lies and what it is for.
type descriptor struct {
	InterfaceTypes []string `json:"interface-types"`
	Mapping        struct {
		Device     string `json:"device"`
		Executable struct {
			Filename, Format string
		} `json:"executable"`
		Variables struct {
			Filename, Format string
		} `json:"nvram-template"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string   `json:"architecture"`
		Machines     []string `json:"machines"`
	} `json:"targets"`
	Features []string `json:"features"`
}

// fits says whether the firmware boots unsigned images on the machine with nothing set up beforehand.
func (d descriptor) fits(m machine) bool {
	if !slices.Contains(d.InterfaceTypes, "uefi") || d.Mapping.Device != "flash" ||
		d.Mapping.Executable.Format != "raw" || d.Mapping.Variables.Format != "raw" {
		return false
	}
	for _, unwanted := range []string{"requires-smm", "enrolled-keys"} {
		if slices.Contains(d.Features, unwanted) {
			return false
		}
	}
	for _, t := range d.Targets {
		if t.Architecture == m.qemuArch && slices.Contains(t.Machines, m.firmwareMachine) {
			return true
		}
	}
	return false
}

// FindFirmware finds a UEFI firmware for the architecture by the firmware descriptors of the workstation: first those
// beside the emulator (as on macOS, where a package manager has its own prefix), then the system's. Within a folder the
// first in the order of names wins, as QEMU's convention has it. The Variables of the result are a template: give each
// machine its own copy.
func FindFirmware(architecture string) (Firmware, error) {
	m, ok := machines[architecture]
	if !ok {
		return Firmware{}, fmt.Errorf("cannot find firmware: no machine is known for architecture %q", architecture)
	}
	folders := []string{"/etc/qemu/firmware", "/usr/share/qemu/firmware", "/usr/local/share/qemu/firmware"}
	if program, err := exec.LookPath(m.program); err == nil {
		folders = slices.Insert(folders, 0, filepath.Join(filepath.Dir(program), "../share/qemu/firmware"))
	}
	return findFirmware(m, folders)
}

func findFirmware(m machine, folders []string) (Firmware, error) {
	for _, folder := range folders {
		entries, err := os.ReadDir(folder) // sorted by name
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Firmware{}, fmt.Errorf("cannot look for firmware: %w", err)
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) != ".json" {
				continue
			}
			path := filepath.Join(folder, e.Name())
			b, err := os.ReadFile(path)
			if err != nil {
				return Firmware{}, fmt.Errorf("cannot look for firmware: %w", err)
			}
			var d descriptor
			if err := json.Unmarshal(b, &d); err != nil {
				return Firmware{}, fmt.Errorf("cannot read firmware descriptor %s: %w", path, err)
			}
			if !d.fits(m) {
				continue
			}
			f := Firmware{d.Mapping.Executable.Filename, d.Mapping.Variables.Filename}
			// A descriptor can outlive its package's files.
			if exists(f.Code) && exists(f.Variables) {
				return f, nil
			}
		}
	}
	return Firmware{}, fmt.Errorf("cannot find UEFI firmware for %s: no descriptor in %q fits\n%s", m.typ, folders, installHint())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// FindProgram finds the architecture's emulator on PATH.
func FindProgram(architecture string) (string, error) {
	m, ok := machines[architecture]
	if !ok {
		return "", fmt.Errorf("cannot find an emulator: no machine is known for architecture %q", architecture)
	}
	path, err := exec.LookPath(m.program)
	if err != nil {
		return "", fmt.Errorf("cannot find %s on PATH\n%s", m.program, installHint())
	}
	return path, nil
}

func installHint() string {
	if runtime.GOOS == "darwin" {
		return "install QEMU, which brings the firmware along: brew install qemu"
	}
	return "install QEMU and its firmware: apt install qemu-system-x86 ovmf, for ARM qemu-system-arm qemu-efi-aarch64 (Debian, Ubuntu); " +
		"dnf install qemu-system-x86-core edk2-ovmf, for ARM qemu-system-aarch64-core edk2-aarch64 (Fedora)"
}
