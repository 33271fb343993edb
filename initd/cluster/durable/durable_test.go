package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	tests := []struct {
		name    string
		before  func(path string) error
		perm    os.FileMode
		content string
	}{
		{"new file in a new folder", func(string) error { return nil }, 0o600, "a"},
		{"replaces content", func(p string) error { return WriteFile(p, []byte("old and longer"), 0o600) }, 0o600, "new"},
		{"same content, wider mode is narrowed", func(p string) error { return WriteFile(p, []byte("x"), 0o644) }, 0o600, "x"},
		{"replaces a link, not what it points to", func(p string) error {
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				return err
			}
			return os.Symlink("/nowhere", p)
		}, 0o644, "y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sub", "file")
			if err := tt.before(path); err != nil {
				t.Fatal(err)
			}
			if err := WriteFile(path, []byte(tt.content), tt.perm); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tt.content {
				t.Errorf("content %q, %v; want %q", got, err, tt.content)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != tt.perm {
				t.Errorf("mode %v, %v; want %v", info.Mode(), err, tt.perm)
			}
		})
	}
}

func TestWriteFileLeavesAnEqualFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteFile(path, []byte("same"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if err := WriteFile(path, []byte("same"), 0o600); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) {
		t.Error("an unchanged file was written again: every such write wears the flash card")
	}
}

func TestLinkNeverReplacesAForeignFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "k3s.yaml")
	if err := Link("/a", path); err != nil {
		t.Fatal(err)
	}
	if err := Link("/b", path); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.Readlink(path); got != "/b" {
		t.Errorf("link points to %q, want /b", got)
	}
	foreign := filepath.Join(dir, "theirs")
	if err := os.WriteFile(foreign, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Link("/a", foreign); !errors.Is(err, ErrForeign) {
		t.Errorf("error %v, want ErrForeign", err)
	}
	if got, _ := os.ReadFile(foreign); string(got) != "precious" {
		t.Errorf("foreign file now holds %q", got)
	}
}
