package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/update"
)

// TestLastFailure: the reason of a rollback is that of the version that was rolled back, and of no other boot.
func TestLastFailure(t *testing.T) {
	up := update.Upgrade{State: update.Trying, Version: "2", Target: "b"}
	for _, c := range []struct {
		name  string
		words machine.Words
		crash string
		want  string
	}{
		{"it said why", machine.Words{Slot: "b", Version: "2", Text: "root is damaged"}, "", "root is damaged"},
		{"it could not say why", machine.Words{Slot: "b", Version: "2", Text: silent + "services"}, "", silent + "services"},
		{"the kernel could", machine.Words{Slot: "b", Version: "2", Text: silent + "services"}, "the kernel crashed: Oops", "the kernel crashed: Oops, during boot step services"},
		{"it said why before the kernel crashed", machine.Words{Slot: "b", Version: "2", Text: "check shop"}, "the kernel crashed: Oops", "check shop"},
		{"nothing was left", machine.Words{}, "", ""},
		{"the kernel crashed before init", machine.Words{}, "the kernel crashed: no init", "the kernel crashed: no init"},
		{"words of the old version", machine.Words{Slot: "a", Version: "1", Text: "older"}, "", ""},
		{"words of an older version in the slot", machine.Words{Slot: "b", Version: "1", Text: "older"}, "", ""},
	} {
		r := &root{crash: c.crash}
		if got := r.lastFailure(c.words, up); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := (&root{crash: "x"}).lastFailure(machine.Words{}, update.Upgrade{State: update.Committed, Version: "2", Target: "b"}); got != "" {
		t.Errorf("a crash of a committed version is the reason of %q", got)
	}
}

func TestCrashReason(t *testing.T) {
	dir := t.TempDir()
	if got := crashReason(dir); got != "" {
		t.Errorf("a reason from nothing: %q", got)
	}
	for name, text := range map[string]string{
		"dmesg-efi-1": "Panic#1 Part2\n<1>[    8.1] BUG: unable to handle page fault\n<4>[    8.2] Oops: 0002 [#1]\n",
		"dmesg-efi-2": "Panic#1 Part1\n<0>[    8.3] Kernel panic - not syncing: Fatal exception\n<0>[    8.4] Kernel Offset: 0x0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := crashReason(dir), "the kernel crashed: Kernel panic - not syncing: Fatal exception"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A second attempt with the same bundle is another upgrade, or its snapshot would be one of long ago.
func TestUpgradeID(t *testing.T) {
	one := update.Upgrade{Bundle: "abc", Started: time.Unix(1, 0).UTC()}
	two := one
	two.Started = time.Unix(2, 0).UTC()
	if upgradeID(one) == upgradeID(two) {
		t.Errorf("both are %q", upgradeID(one))
	}
}

func TestResetData(t *testing.T) {
	top := t.TempDir()
	state := filepath.Join(top, "lib", "skerry", "machine")
	request := filepath.Join(state, "reset")
	for _, file := range []string{request, filepath.Join(state, "machine-id"), filepath.Join(state, "log", "x"), filepath.Join(top, "lib", "skerry", "server", "db"),
		filepath.Join(top, "lib", "kubelet", "x"), filepath.Join(top, "log", "pods", "x"), filepath.Join(top, "lost+found", "x")} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := resetData(top, state, request); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
		left = append(left, strings.TrimPrefix(path, top))
		return err
	})
	want := " /lib /lib/skerry /lib/skerry/machine /lib/skerry/machine/log /lib/skerry/machine/log/x /lib/skerry/machine/machine-id /log /tmp"
	if got := strings.Join(left, " "); err != nil || got != want {
		t.Errorf("left are %s, %v; want %s", got, err, want)
	}
}

func TestEraseFilesystem(t *testing.T) {
	device := filepath.Join(t.TempDir(), "device")
	size := int64(backupSuperblock*blockSize + 1<<20)
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(device, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{1024 + 0x38, backupSuperblock*blockSize + 0x38} {
		if _, err := f.WriteAt([]byte{0x53, 0xef}, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := eraseFilesystem(device); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1024 + 0x38, backupSuperblock*blockSize + 0x38} {
		b := make([]byte, 2)
		if _, err := f.ReadAt(b, at); err != nil || b[0] != 0 || b[1] != 0 {
			t.Errorf("at %d there is %x, %v", at, b, err)
		}
	}
}

func TestClockSane(t *testing.T) {
	file := filepath.Join(t.TempDir(), "build-time")
	for text, sane := range map[string]bool{"1000000000\n": true, "99999999999\n": false, "never": false} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := clockSane(file); (err == nil) != sane {
			t.Errorf("built at %q: %v", text, err)
		}
	}
}

// TestRaise: without a clock battery the machine starts in 1970.
func TestRaise(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	for _, c := range []struct {
		text string
		now  int64
		want string
	}{
		{"1764000000\n", 0, "set to 1764000000"},
		{"1764000000", 1764000000, "left"},
		{"1764000000", 1900000000, "left"},
		{"today", 0, "cannot read the time in"},
		{"", 0, "cannot read the time in"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := "left"
		err := raise(file, time.Unix(c.now, 0), func(to time.Time) error { got = fmt.Sprint("set to ", to.Unix()); return nil })
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%q at %d: %s, want %s", c.text, c.now, got, c.want)
		}
	}
	if err := raise(file+"2", time.Now(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestReadFloor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "floor")
	if floor, err := readFloor(file); floor != 0 || err != nil {
		t.Errorf("an image without a floor has %d, %v", floor, err)
	}
	for text, want := range map[string]uint64{"7": 7, "7\n": 7} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if floor, err := readFloor(file); floor != want || err != nil {
			t.Errorf("%q is read as %d, %v", text, floor, err)
		}
	}
	if err := os.WriteFile(file, []byte("high"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFloor(file); err == nil {
		t.Error("a floor that is no number was read")
	}
}
