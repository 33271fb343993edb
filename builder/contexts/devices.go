package contexts

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"
)

// devicesHead opens a new file of known devices.
const devicesHead = "# Devices and the fingerprints of their keys: ADDRESS SHA256:... [MACHINE-ID]\n"

// A Device is one that was met.
type Device struct {
	// Address is as the command line takes it, with the port only if it is not the usual one.
	Address string
	// Fingerprint is that of its key; see [Fingerprint].
	Fingerprint string
	// MachineID is empty where it is not known.
	MachineID string
}

func (d Device) line() string {
	return strings.TrimSpace(d.Address + " " + d.Fingerprint + " " + d.MachineID)
}

// DevicesFile is the file of known devices, for messages.
func (c Context) DevicesFile() string { return filepath.Join(c.Dir, devicesFile) }

// Devices reads the devices that were met.
func (c Context) Devices() ([]Device, error) {
	data, err := os.ReadFile(c.DevicesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the known devices: %w", err)
	}
	return parseDevices(c.DevicesFile(), data)
}

// parseDevices reads a file of known devices. A line that cannot be read is an error: to pass over it would be to take a
// device's fingerprint on trust that is known.
func parseDevices(name string, data []byte) ([]Device, error) {
	var list []Device
	number := 0
	for line := range bytes.Lines(data) {
		number++
		d, ok, err := parseDevice(string(line))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w; mend or delete the line", name, number, err)
		}
		if ok {
			list = append(list, d)
		}
	}
	return list, nil
}

// parseDevice reads a line; ok is false for an empty one and for a comment.
func parseDevice(line string) (d Device, ok bool, err error) {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return d, false, nil
	}
	if len(fields) < 2 || len(fields) > 3 {
		return d, false, errors.New("a line is: ADDRESS SHA256:... [MACHINE-ID]")
	}
	if err := CheckFingerprint(fields[1]); err != nil {
		return d, false, err
	}
	d = Device{Address: fields[0], Fingerprint: fields[1]}
	if len(fields) == 3 {
		d.MachineID = fields[2]
	}
	return d, true, nil
}

// CheckFingerprint refuses what cannot be a fingerprint.
func CheckFingerprint(text string) error {
	sum, ok := strings.CutPrefix(text, "SHA256:")
	if b, err := base64.RawStdEncoding.DecodeString(sum); !ok || err != nil || len(b) != 32 {
		return fmt.Errorf("%q is not a fingerprint: it is SHA256: and 43 letters, as the device shows it", text)
	}
	return nil
}

// Remember notes a device, in place of what was known of its address. Other lines and comments stay.
func (c Context) Remember(d Device) error {
	// Two commands at the same time, for two devices, must not take each other's line away: that device would be taken on trust
	// once more.
	unlock, err := lockFolder(c.Dir)
	if err != nil {
		return fmt.Errorf("cannot note device %s: %w", d.Address, err)
	}
	defer unlock()
	data, err := os.ReadFile(c.DevicesFile())
	if errors.Is(err, fs.ErrNotExist) {
		data, err = []byte(devicesHead), nil
	}
	if err != nil {
		return fmt.Errorf("cannot note device %s: %w", d.Address, err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		known, ok, err := parseDevice(line)
		if err != nil || !ok || known.Address != d.Address {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	lines = append(lines, d.line())
	if err := renameio.WriteFile(c.DevicesFile(), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("cannot note device %s: %w; what was known before still is", d.Address, err)
	}
	return nil
}

// lockFolder keeps other processes, and other calls, out until it is unlocked.
func lockFolder(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot lock %s: %w", dir, err), f.Close())
	}
	return f.Close, nil
}

// KnownBy finds a device by its address.
func KnownBy(list []Device, address string) (Device, bool) {
	return find(list, func(d Device) bool { return d.Address == address })
}

// KnownAs finds a device by its fingerprint: one whose address has changed.
func KnownAs(list []Device, fingerprint string) (Device, bool) {
	return find(list, func(d Device) bool { return d.Fingerprint == fingerprint })
}

func find(list []Device, is func(Device) bool) (Device, bool) {
	if i := slices.IndexFunc(list, is); i >= 0 {
		return list[i], true
	}
	return Device{}, false
}
