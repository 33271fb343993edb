package vm

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCopyDisk(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	content := make([]byte, 1<<20)
	copy(content[300<<10:], "in the middle")
	copy(content[1<<20-3:], "end")
	if err := os.WriteFile(image, content, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		size    int64
		wantErr string
	}{
		{"grown", 64 << 20, ""},
		{"same size", 1 << 20, ""},
		{"too small", 512 << 10, "a disk of 512 KiB is smaller than the image, which needs 1 MiB"},
		{"not in sectors", 1<<20 + 1, "multiple of 512"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk")
			err := CopyDisk(image, disk, test.size)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("got error %v, want one with %q", err, test.wantErr)
				}
				if _, err := os.Stat(disk); !errors.Is(err, fs.ErrNotExist) {
					t.Error("the failed copy left a file")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(got)) != test.size || !bytes.Equal(got[:1<<20], content) || len(bytes.Trim(got[1<<20:], "\x00")) > 0 {
				t.Error("the disk is not the image followed by zeros")
			}
			if err := CopyDisk(image, disk, test.size); !errors.Is(err, fs.ErrExist) {
				t.Errorf("got error %v from a copy onto a file that exists", err)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 512: "512 B", 1536: "1.5 KiB", 4 << 30: "4 GiB", 3 << 40: "3 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}
