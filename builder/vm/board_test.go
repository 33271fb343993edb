package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/partition/mbr"
)

// cardImage is an image with a boot partition that has these files.
func cardImage(t *testing.T, files map[string][]byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "card.img")
	d, err := diskfs.Create(name, 80<<20, diskfs.SectorSizeDefault)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table := &mbr.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, Partitions: []*mbr.Partition{{Index: 1, Type: mbr.Fat32LBA, Start: 2048, Size: 70 * 2048}}}
	if err := d.Partition(table); err != nil {
		t.Fatal(err)
	}
	f, err := d.CreateFilesystem(disk.FilesystemSpec{Partition: 1, FSType: filesystem.TypeFat32})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range files {
		w, err := f.OpenFile("/"+path, os.O_CREATE|os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func TestBoardGetsTheFilesOfItsCard(t *testing.T) {
	image := cardImage(t, map[string][]byte{"u-boot.bin": []byte("U-Boot"), "board.dtb": testTree()})
	before, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	b := Board{Machine: "raspi3b", Loader: "u-boot.bin", DeviceTree: "board.dtb", Serial: 1}
	got, err := PrepareBoard("arm64", b, image, folder)
	if err != nil {
		t.Fatal(err)
	}
	if got.Machine != "raspi3b" || got.Serial != 1 || got.Loader != filepath.Join(folder, "u-boot.bin") || got.DeviceTree != filepath.Join(folder, "board.dtb") {
		t.Errorf("the board is %+v", got)
	}
	loader, err1 := os.ReadFile(got.Loader)
	tree, err2 := os.ReadFile(got.DeviceTree)
	if err1 != nil || err2 != nil || string(loader) != "U-Boot" || !bytes.Equal(tree, testTree()) {
		t.Errorf("the files are %q and %q, %v, %v", loader, tree, err1, err2)
	}

	b.Enable, b.Disable = []string{"/soc/b@2"}, []string{"/soc/a@1"}
	if got, err = PrepareBoard("arm", b, image, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	loader, _ = os.ReadFile(got.Loader)
	tree, _ = os.ReadFile(got.DeviceTree)
	if !bytes.Equal(loader, relocated([]byte("U-Boot"))) || bytes.Equal(tree, testTree()) {
		t.Errorf("a loader of 32 bits is %q, and the changed device tree %q", loader, tree)
	}
	if after, err := os.ReadFile(image); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the image was changed (%v)", err)
	}
	for _, tt := range []struct {
		change func(*Board)
		want   string
	}{
		{func(b *Board) { b.Loader = "none.bin" }, "cannot read none.bin of the boot partition"},
		{func(b *Board) { b.Enable = []string{"/soc/z@9"} }, "has no status of /soc/z@9"},
	} {
		wrong := b
		tt.change(&wrong)
		if _, err := PrepareBoard("arm", wrong, image, t.TempDir()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error does not say %q: %v", tt.want, err)
		}
	}
}

func TestCardsArePowersOfTwo(t *testing.T) {
	for least, want := range map[int64]int64{1: 1, 3 << 30: 4 << 30, 4 << 30: 4 << 30, 4<<30 + 512: 8 << 30} {
		if got := CardBytes(least); got != want {
			t.Errorf("a card of at least %d bytes has %d, want %d", least, got, want)
		}
	}
}
