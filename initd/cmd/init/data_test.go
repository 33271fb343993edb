package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/ci/need"
	"github.com/skerryos/skerry/initd/machine"
)

// dataRoot is process 1 as far as the data partition needs it. Until the test ends all children are collected by its reaper.
func dataRoot(t *testing.T) *root {
	t.Helper()
	for _, program := range []string{"/usr/sbin/mke2fs", "/usr/sbin/e2fsck"} {
		if _, err := os.Stat(program); err != nil {
			need.Missing(t, program)
		}
	}
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &console{kmsg: nowhere, ttys: []*os.File{nowhere}}
	reaper, ended := machine.NewReaper(), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(ended)
		reaper.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		nowhere.Close()
	})
	return &root{process: &process{console: c, state: newState(c), disk: &machine.BlockDevice{Path: "/dev/sda"}, reaper: reaper}}
}

const spareAt = backupSuperblock * blockSize

// damage overwrites a part of a partition.
func damage(t *testing.T, device string, at, length int64) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, length), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// filesystemID is the UUID in the first superblock.
func filesystemID(t *testing.T, device string) string {
	t.Helper()
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id := make([]byte, 16)
	if _, err := f.ReadAt(id, 1024+0x68); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", id)
}

// TestDataFilesystem does to a real file system what bad cards do, and boots.
func TestDataFilesystem(t *testing.T) {
	const checksum = 1024 + 0x3fc // in the first block
	for _, c := range []struct {
		name   string
		bytes  int64
		damage func(t *testing.T, device string)
		want   string
	}{
		{"nothing", 192 << 20, func(*testing.T, string) {}, "kept"},
		{"the first block", 192 << 20, func(t *testing.T, device string) { damage(t, device, 0, blockSize) }, "kept, repaired"},
		{"the checksum of the superblock", 192 << 20, func(t *testing.T, device string) { damage(t, device, checksum, 4) }, "kept, repaired"},
		{"the first block, and the journal", 192 << 20, func(t *testing.T, device string) { damage(t, device, 0, spareAt) }, "kept, repaired"},
		{"the copy of the superblock", 192 << 20, func(t *testing.T, device string) { damage(t, device, spareAt, blockSize) }, "kept"},
		{"both superblocks, as a reset does", 192 << 20, func(t *testing.T, device string) {
			if err := eraseFilesystem(device); err != nil {
				t.Fatal(err)
			}
		}, "made anew"},
		{"the first block of a partition that is too small for a copy", 64 << 20, func(t *testing.T, device string) { damage(t, device, 0, blockSize) }, "made anew"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := dataRoot(t)
			device := filepath.Join(t.TempDir(), "partition")
			if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, c.bytes)); err != nil {
				t.Fatal(err)
			}
			if err := r.makeFilesystem(t.Context(), device); err != nil {
				t.Fatal(err)
			}
			id := filesystemID(t, device)
			c.damage(t, device)
			if err := errors.Join(r.makeFilesystem(t.Context(), device), r.checkFilesystem(t.Context(), device)); err != nil {
				t.Fatal(err)
			}
			got := "kept"
			if filesystemID(t, device) != id {
				got = "made anew"
			}
			for _, p := range r.state.now.Problems {
				if strings.Contains(p, "has been repaired") {
					got += ", repaired"
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s; problems: %q", got, c.want, r.state.now.Problems)
			}
			if out, status, err := r.reaper.Output(t.Context(), "/usr/sbin/e2fsck", "-f", "-n", device); err != nil || status != 0 {
				t.Errorf("it is not clean: %d, %v\n%s", status, err, out)
			}
		})
	}
}

// A check that did not come to its end says nothing about the file system: no other is tried, and nothing is made anew.
func TestCheckDoesNotEnd(t *testing.T) {
	r := dataRoot(t)
	device := filepath.Join(t.TempDir(), "partition")
	if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, 192<<20)); err != nil {
		t.Fatal(err)
	}
	if err := r.makeFilesystem(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	damage(t, device, 0, blockSize)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.makeFilesystem(ctx, device); err != nil {
		t.Error(err)
	}
	if err := r.checkFilesystem(ctx, device); !errors.Is(err, context.Canceled) || len(r.state.now.Problems) > 0 {
		t.Errorf("%v; problems: %q", err, r.state.now.Problems)
	}
}

// badSector is a medium that cannot be read.
type badSector struct{}

func (badSector) ReadAt([]byte, int64) (int, error) { return 0, unix.EIO }

func TestIsSuperblock(t *testing.T) {
	if is, err := isSuperblock(badSector{}, spareAt); is || !errors.Is(err, unix.EIO) {
		t.Errorf("a medium that cannot be read: %v, %v", is, err)
	}
	for text, want := range map[string]bool{"\x53\xef": true, "\x53": false, "": false, "\xef\x53": false} {
		medium := strings.NewReader(strings.Repeat("\x00", 7+magicOffset) + text)
		if is, err := isSuperblock(medium, 7); is != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", text, is, err, want)
		}
	}
}
