package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBootSectors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	old := bytes.Repeat([]byte{'.'}, 4*bootSector)
	if err := os.WriteFile(file, old, 0o600); err != nil {
		t.Fatal(err)
	}
	d := BootSectors(file)
	sector := bytes.Repeat([]byte{'x'}, bootSector)
	if n, err := d.WriteAt(sector, 2*bootSector); n != bootSector || err != nil {
		t.Fatalf("wrote %d bytes, %v", n, err)
	}
	want := bytes.Clone(old)
	copy(want[2*bootSector:], sector)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has %q (%v)", got, err)
	}
	got := make([]byte, bootSector)
	if n, err := d.ReadAt(got, 2*bootSector); n != bootSector || err != nil || !bytes.Equal(got, sector) {
		t.Errorf("read %d bytes, %q, %v", n, got, err)
	}
	for _, c := range []struct {
		size int
		at   int64
	}{{bootSector, 1}, {2 * bootSector, 0}, {100, 0}} {
		if _, err := d.WriteAt(make([]byte, c.size), c.at); err == nil || !strings.Contains(err.Error(), "are not a sector") {
			t.Errorf("%d bytes at %d: %v", c.size, c.at, err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what was refused has changed the file (%v)", err)
	}
	if _, err := d.ReadAt(got, 4*bootSector); err == nil {
		t.Error("read behind the end")
	}
}
