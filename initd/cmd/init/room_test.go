package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/ci/need"
)

// TestRoomOnAFullDisk fills a small file system, and then writes what must be written.
func TestRoomOnAFullDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		need.Missing(t, "root, who can mount a file system to fill")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4M"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	r := room(filepath.Join(dir, "room"))
	if err := r.keep(); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(dir, "filler"))

	file := filepath.Join(dir, "record")
	write := func() error { return writeDurably(file, make([]byte, 8<<10)) }
	if err := write(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := r.use(write); err != nil {
		t.Fatalf("nothing can be written in the room: %v", err)
	}
	if _, err := os.Stat(string(r)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the room is still there: %v", err)
	}
	// The next boot makes it again, when it can; a file that takes no space would be worse than none.
	fill(t, filepath.Join(dir, "filler2"))
	if err := r.keep(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("room on a full disk: %v", err)
	}
	if _, err := os.Stat(string(r)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty room is left: %v", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "filler")), r.keep()); err != nil {
		t.Error(err)
	}
}

// fill writes a file until there is no space.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	for err = nil; err == nil; {
		_, err = f.Write(make([]byte, 512))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// What fails for another reason is not tried twice, and does not cost the room.
func TestRoomIsForFullDisks(t *testing.T) {
	r := room(filepath.Join(t.TempDir(), "room"))
	if err := errors.Join(r.keep(), r.keep()); err != nil {
		t.Fatal(err)
	}
	calls, broken := 0, errors.New("broken")
	if err := r.use(func() error { calls++; return broken }); !errors.Is(err, broken) || calls != 1 {
		t.Errorf("error %v after %d calls", err, calls)
	}
	if _, err := os.Stat(string(r)); err != nil {
		t.Error(err)
	}
}
