package image

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"github.com/skerryos/skerry/ci/need"
)

// testFiles is a folder of every kind: short names, long ones, ones that are alike, an empty file, clusters' edges.
func testFiles() map[string][]byte {
	return map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI":              bytes.Repeat([]byte("boot"), 30000),
		"EFI/Linux/skerry-a+3-0.efi":        bytes.Repeat([]byte{1}, 3<<20),
		"EFI/Linux/skerry-b+3-0.efi":        bytes.Repeat([]byte{2}, 4096),
		"EFI/Linux/skerry-b+3-0.conf":       bytes.Repeat([]byte{3}, 4097),
		"loader/loader.conf":                []byte("timeout 0\n"),
		"loader/EMPTY":                      {},
		"a name with spaces.and.dots.txt":   []byte("x"),
		"exactly-26-characters-long":        []byte("y"), // fills its long entries without an end mark
		"EFI/BOOT/grüße.efi":                []byte("z"),
		"many/" + strings.Repeat("n", 200):  []byte("1"),
		"deep/er/and/deeper/still/file.txt": []byte("2"),
	}
}

func asFiles(content map[string][]byte) []File {
	var out []File
	for name, data := range content {
		out = append(out, File{Path: name, Bytes: int64(len(data)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

// writeFAT writes a file system at an offset into a file, and returns its name.
func writeFAT(t *testing.T, f FAT, off int64, files []File) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fat")
	w, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Truncate(off + f.Bytes); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(t.Context(), w, off, files); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFsckAcceptsTheBootFileSystem(t *testing.T) {
	fsck := need.Tool(t, "fsck.vfat")
	many := map[string][]byte{}
	for i := range 300 { // a folder of several clusters
		many[fmt.Sprintf("folder/file number %d", i)] = []byte{byte(i)}
	}
	for _, tt := range []struct {
		name  string
		bytes int64
		files map[string][]byte
	}{
		{"512 MiB", 512 << 20, testFiles()},
		{"64 MiB, smaller clusters", 64 << 20, testFiles()},
		{"34 MiB, smallest clusters", 34 << 20, testFiles()},
		{"empty", 64 << 20, nil},
		{"many files", 64 << 20, many},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := writeFAT(t, FAT{Bytes: tt.bytes, Label: "SKERRY-BOOT", Date: 1764000000, Serial: 0x12345678}, 0, asFiles(tt.files))
			if out, err := exec.CommandContext(t.Context(), fsck, "-n", "-v", name).CombinedOutput(); err != nil {
				t.Errorf("fsck.vfat: %v\n%s", err, out)
			}
		})
	}
}

// Another implementation reads what ours has written, at an offset, as in a partition.
func TestAnotherImplementationReadsTheBootFileSystem(t *testing.T) {
	const off, size = 1 << 20, 64 << 20
	content := testFiles()
	name := writeFAT(t, FAT{Bytes: size, Label: "SKERRY-BOOT", Date: 1764000000}, off, asFiles(content))
	b, err := file.OpenFromPath(name, true)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	fsys, err := fat32.Read(b, size, off, 512)
	if err != nil {
		t.Fatal(err)
	}
	if fsys.Label() != "SKERRY-BOOT" {
		t.Errorf("label is %q", fsys.Label())
	}
	found := 0
	var walk func(dir string)
	walk = func(dir string) {
		list, err := fsys.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			path := strings.TrimPrefix(dir+"/"+e.Name(), "./")
			if e.IsDir() {
				walk(path)
				continue
			}
			found++
			want, ok := content[path]
			if !ok {
				t.Errorf("there is a file %q", path)
				continue
			}
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if info.ModTime().Unix() != 1764000000 || info.Size() != int64(len(want)) {
				t.Errorf("%s has %d bytes of %v", path, info.Size(), info.ModTime())
			}
			if len(want) == 0 {
				continue
			}
			got, err := fs.ReadFile(fsys, path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s has %d bytes (%v), want %d others", path, len(got), err, len(want))
			}
		}
	}
	walk(".")
	if found != len(content) {
		t.Errorf("found %d files, want %d", found, len(content))
	}
}

func TestBootFileSystemRefusesWhatDoesNotFit(t *testing.T) {
	large := []File{{Path: "a", Bytes: 60 << 20, Open: func() (io.ReadCloser, error) { return nil, os.ErrClosed }}}
	for _, tt := range []struct {
		name  string
		bytes int64
		files []File
		wrong string
	}{
		{"too small for FAT32", 16 << 20, nil, "at least 34 MiB; raise disk.boot"},
		{"too much in it", 40 << 20, large, "raise disk.boot of the board"},
		{"same name but for case", 64 << 20, asFiles(map[string][]byte{"a": nil, "A": nil}), "its name is taken"},
		{"file where a folder is", 64 << 20, []File{{Path: "a"}, {Path: "a/b"}}, "its name is taken"},
		{"file that cannot be read", 64 << 20, large[:1], "cannot write a to the boot partition"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, err := os.Create(filepath.Join(t.TempDir(), "fat"))
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			err = FAT{Bytes: tt.bytes, Label: "X"}.Write(t.Context(), w, 0, tt.files)
			if err == nil || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("error is %v, want %q", err, tt.wrong)
			}
		})
	}
}

// A boot ROM reads only short names, and looks for BOOTCODE.BIN; what has a short name in small letters gets it in capitals.
func TestShortNamesAreTheNamesThemselvesWhereTheyCan(t *testing.T) {
	taken := map[[11]byte]bool{}
	for _, tt := range []struct {
		name, short string
		long        bool
	}{
		{"bootcode.bin", "BOOTCODEBIN", true},
		{"BOOTX64.EFI", "BOOTX64 EFI", false},
		{"a-0", "A-0        ", true},
		{"Linux", "LINUX      ", true},
		{"u-boot-3.bin", "U-BOOT-3BIN", true},
		{"loader.conf", "LOADER~1CON", true},
		{"loader.confusion", "LOADER~2CON", true},
		{"bootcode.bin.old", "BOOTCO~1OLD", true},
	} {
		short, long, err := shortName(tt.name, taken)
		if err != nil || string(short[:]) != tt.short || long != tt.long {
			t.Errorf("%s has the short name %q, %v (%v); want %q, %v", tt.name, short, long, err, tt.short, tt.long)
		}
		taken[short] = true
	}
}
