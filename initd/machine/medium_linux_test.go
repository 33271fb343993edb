package machine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	first, err := Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(name); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestMedium(t *testing.T) {
	name := filepath.Join(t.TempDir(), "partition")
	if err := os.WriteFile(name, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := OpenPartition(name)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Size() != 8192 {
		t.Errorf("size %d", p.Size())
	}
	if _, err := p.WriteAt([]byte("written"), 4096); err != nil {
		t.Fatal(err)
	}
	if err := p.Sync(); err != nil {
		t.Error(err)
	}
	got := make([]byte, 7)
	if _, err := p.ReadAt(got, 4096); err != nil || string(got) != "written" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := OpenPartition(name + "x"); err == nil {
		t.Error("opened a partition that does not exist")
	}
	s, err := OpenScratch(name + "x")
	if err != nil || s.Size() <= 0 {
		t.Fatalf("%v, size %d", err, s.Size())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
