package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKeepBootFiles(t *testing.T) {
	boot, saved := t.TempDir(), filepath.Join(t.TempDir(), "saved")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(boot, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep := func(want map[string]string) {
		t.Helper()
		if err := keepBootFiles(boot, saved); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"user-data", "network-config", "meta-data", "vmlinuz"} {
			got, err := os.ReadFile(filepath.Join(saved, name))
			if text, there := want[name]; there != (err == nil) || string(got) != text {
				t.Errorf("%s is %q, %v; want %q", name, got, err, text)
			}
		}
	}
	mark := filepath.Join(saved, completeMark)
	if err := os.Mkdir(filepath.Join(boot, "user-data"), 0o700); err != nil { // which cannot be read
		t.Fatal(err)
	}
	keep(nil)
	if _, err := os.Stat(mark); err == nil {
		t.Error("copies of which one could not be made count as complete")
	}
	if err := os.Remove(filepath.Join(boot, "user-data")); err != nil {
		t.Fatal(err)
	}
	keep(nil)
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("that there was nothing to copy is not known: %v", err)
	}
	write("user-data", "one")
	write("network-config", "two")
	write("vmlinuz", "kernel")
	keep(map[string]string{"user-data": "one", "network-config": "two"})

	before, err := os.Stat(filepath.Join(saved, "network-config"))
	if err != nil {
		t.Fatal(err)
	}
	write("user-data", "three")
	keep(map[string]string{"user-data": "three", "network-config": "two"})
	after, err := os.Stat(filepath.Join(saved, "network-config"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that has not changed was written: %v", err)
	}

	if err := os.Remove(filepath.Join(boot, "user-data")); err != nil {
		t.Fatal(err)
	}
	keep(map[string]string{"network-config": "two"})
}

func TestDataIsReadOnly(t *testing.T) {
	for line, want := range map[string]bool{
		"EXT4-fs (mmcblk0p4): Remounting filesystem read-only": true,
		"EXT4-fs (sda1): Remounting filesystem read-only":      false,
		"EXT4-fs (mmcblk0p4): mounted filesystem r/w":          false,
	} {
		if got := dataIsReadOnly(line, "/dev/mmcblk0"); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}
