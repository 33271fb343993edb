package machine

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sysfs makes files of what is given as "path=content", and symbolic links of "path>target".
func sysfs(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if path, target, ok := strings.Cut(line, ">"); ok {
			if err := os.Symlink(target, filepath.Join(root, path)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		path, content, _ := strings.Cut(line, "=")
		sysfsFile(t, root, path, content)
	}
	return root
}

// sysfsFile makes a file of any content.
func sysfsFile(t *testing.T, root, path, content string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRemovable(t *testing.T) {
	root := sysfs(t, `block/loop0/size=100
		devices/pci/ata1/vda/device/model=disk
		devices/pci/ata1/vda/size=1000
		devices/pci/ata1/vda/removable=0
		devices/pci/ata1/vda/vda1/partition=1
		devices/pci/usb1/1-1/sda/device/model=stick
		devices/pci/usb1/1-1/sda/size=1000
		devices/pci/usb1/1-1/sda/removable=1
		devices/pci/usb1/1-1/sda/sda1/partition=1
		devices/pci/usb1/1-1/sda/sda2/partition=2
		devices/pci/usb1/1-1/sda/sda2/uevent=PARTNAME=photos
		devices/pci/usb1/1-2/sdb/device/model=large disk without partitions
		devices/pci/usb1/1-2/sdb/size=1000
		devices/pci/usb1/1-2/sdb/removable=0
		devices/pci/usb1/1-3/sdc/device/model=reader without a card
		devices/pci/usb1/1-3/sdc/size=0
		devices/pci/usb1/1-3/sdc/removable=1
		devices/pci/usb1/1-4/sdd/device/model=disk that the machine runs from
		devices/pci/usb1/1-4/sdd/size=1000
		devices/pci/usb1/1-4/sdd/removable=1
		devices/pci/usb1/1-4/sdd/sdd1/partition=1
		devices/pci/usb1/1-4/sdd/sdd1/uevent=PARTNAME=skerry-esp
		devices/pci/usb1/1-4/sdd/sdd4/partition=4
		devices/pci/usb1/1-5/sde/device/model=disk with an MBR that the machine runs from
		devices/pci/usb1/1-5/sde/size=1000
		devices/pci/usb1/1-5/sde/removable=0
		devices/pci/usb1/1-5/sde/sde1/partition=1
		devices/pci/mmc/mmcblk1/device/type=SD
		devices/pci/mmc/mmcblk1/size=1000
		devices/pci/mmc/mmcblk1/removable=1
		devices/pci/mmc/mmcblk1/mmcblk1p1/partition=1
		block/vda>../devices/pci/ata1/vda
		block/sda>../devices/pci/usb1/1-1/sda
		block/sdb>../devices/pci/usb1/1-2/sdb
		block/sdc>../devices/pci/usb1/1-3/sdc
		block/sdd>../devices/pci/usb1/1-4/sdd
		block/sde>../devices/pci/usb1/1-5/sde
		block/mmcblk1>../devices/pci/mmc/mmcblk1`)
	got, err := removable(filepath.Join(root, "block"), func(disk string) bool { return disk == "/dev/sde" })
	if err != nil {
		t.Fatal(err)
	}
	if want := "/dev/mmcblk1p1 /dev/sda1 /dev/sda2 /dev/sdb"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

func TestIdentify(t *testing.T) {
	head := func(signed bool, at int, text string, idAt int) []byte {
		b := make([]byte, identifyBytes)
		if signed {
			b[510], b[511] = 0x55, 0xaa
		}
		copy(b[at:], text)
		for i := range 16 {
			b[idAt+i] = byte(i + 1)
		}
		return b
	}
	ext := head(false, 0, "", ext4Superblock+0x68)
	binary.LittleEndian.PutUint16(ext[ext4Superblock+0x38:], 0xef53)
	fat32 := make([]byte, identifyBytes)
	copy(fat32[82:], "FAT32   ")
	binary.LittleEndian.PutUint32(fat32[67:], 0x1a2b3c4d)
	fat32[510], fat32[511] = 0x55, 0xaa
	fat16 := make([]byte, identifyBytes)
	copy(fat16[54:], "FAT16   ")
	binary.LittleEndian.PutUint32(fat16[39:], 0x1a2b3c4d)
	fat16[510], fat16[511] = 0x55, 0xaa
	for _, test := range []struct {
		name string
		head []byte
		want string
	}{
		{"nothing", nil, ""},
		{"zeros", make([]byte, identifyBytes), ""},
		{"partition table", head(true, 0, "", 1000), ""},
		{"ext4", ext, "ext4 01020304-0506-0708-090a-0b0c0d0e0f10"},
		{"FAT32", fat32, "vfat 1a2b-3c4d"},
		{"FAT16", fat16, "vfat 1a2b-3c4d"},
		{"small FAT", fat16[:512], "vfat 1a2b-3c4d"},
		{"exFAT", head(true, 3, "EXFAT   ", 100), "exfat 0403-0201"},
		{"NTFS", head(true, 3, "NTFS    ", 72), "ntfs 0807060504030201"},
	} {
		kind, id := identify(test.head)
		if got := strings.TrimSpace(kind + " " + id); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
