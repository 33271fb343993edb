package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/ci/need"
)

// startFirmware starts a machine whose firmware finds nothing to boot.
func startFirmware(t *testing.T, change func(*Config)) (*VM, error) {
	need.Tool(t, machines["amd64"].program)
	firmware, err := FindFirmware("amd64")
	if err != nil {
		need.Missing(t, err.Error())
	}
	dir := t.TempDir()
	sockets, err := os.MkdirTemp("", "vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	b, err := os.ReadFile(firmware.Variables)
	if err != nil {
		t.Fatal(err)
	}
	firmware.Variables = filepath.Join(dir, "variables.fd")
	if err := os.WriteFile(firmware.Variables, b, 0o600); err != nil {
		t.Fatal(err)
	}
	config := Config{Architecture: "amd64", Accelerator: TCG, MemoryMiB: 256, CPUs: 1, Firmware: firmware, Sockets: sockets}
	change(&config)
	v, err := Start(t.Context(), config, nil)
	if err == nil {
		t.Cleanup(v.Kill)
	}
	return v, err
}

func TestMachine(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := startFirmware(t, func(c *Config) { c.Disk = disk })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// OVMF tries the disk first, and says so on the serial line.
	line, err := v.Console.Wait(ctx, 0, `BdsDxe: (failed to load|loading) Boot`)
	if err != nil {
		t.Fatal(err)
	}
	use, err := v.DiskUse(ctx)
	if err != nil || use.ReadBytes == 0 || use.WrittenBytes != 0 {
		t.Errorf("got disk use %+v, %v; want some reads and no writes", use, err)
	}
	picture := filepath.Join(t.TempDir(), "screen.png")
	if err := v.Screenshot(ctx, picture); err != nil {
		t.Error(err)
	} else if b, err := os.ReadFile(picture); err != nil || !strings.HasPrefix(string(b), "\x89PNG") {
		t.Errorf("the screenshot is no PNG (%v)", err)
	}
	if text, err := v.Look(ctx); err != nil || !strings.Contains(text, "VM status: running") || !strings.Contains(text, "RIP=") {
		t.Errorf("QEMU says %q, %v", text, err)
	}
	if err := v.CtrlAltDelete(ctx); err != nil {
		t.Error(err)
	}
	if err := v.PowerButton(ctx); err != nil {
		t.Error(err)
	}
	// The machine starts anew and its console goes on.
	if err := v.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Console.Wait(ctx, line.Number+1, `BdsDxe: (failed to load|loading) Boot`); err != nil {
		t.Fatal(err)
	}
	// The harness can fail: what never comes is an error, while the machine runs and after it is off.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := v.Console.Wait(short, 0, `Kernel panic`); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v from waiting for what never comes", err)
	}
	v.Kill()
	if err := v.Wait(ctx); err != nil {
		t.Errorf("got error %v from a machine that was killed", err)
	}
	if _, err := v.Console.Wait(ctx, 0, `Kernel panic`); !errors.Is(err, ErrPowerOff) {
		t.Errorf("got error %v from waiting on a dead machine", err)
	}
	if err := v.PowerButton(ctx); !errors.Is(err, ErrPowerOff) {
		t.Errorf("got error %v from a button of a dead machine", err)
	}
}

func TestStartFailsWithQEMUsWords(t *testing.T) {
	_, err := startFirmware(t, func(c *Config) { c.Disk = filepath.Join(t.TempDir(), "no-such-disk.img") })
	if err == nil || !strings.Contains(err.Error(), "no-such-disk.img") {
		t.Errorf("got error %v, want one that names the missing disk", err)
	}
}

func TestStartWithoutProgram(t *testing.T) {
	_, err := Start(t.Context(), Config{Architecture: "amd64", Program: "no-such-qemu", Accelerator: TCG}, nil)
	if err == nil || !strings.Contains(err.Error(), "no-such-qemu") {
		t.Errorf("got error %v, want one that names the program", err)
	}
}
