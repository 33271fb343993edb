package machine

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDisks finds partitions by name, and by number where they have none and the disk is Skerry's.
func TestDisks(t *testing.T) {
	root := sysfs(t, `block/loop0/size=100
		block/vda/device/model=disk
		block/vda/size=2048
		block/vda/vda1/uevent=DEVNAME=vda1
		block/sda/device/model=disk
		block/sda/size=4096
		block/sda/sda1/uevent=DEVNAME=sda1
		block/mmcblk0/device/type=SD
		block/mmcblk0/size=8192
		block/sdb/device/model=reader without a card
		block/sdb/size=0`)
	write := func(disk, part, text string) { sysfsFile(t, root, "block/"+disk+"/"+part+"/uevent", text) }
	write("vda", "vda1", "DEVNAME=vda1\nPARTN=1\nPARTNAME=skerry-esp")
	write("vda", "vda2", "DEVNAME=vda2\nPARTN=2\nPARTNAME=skerry-root-a")
	write("sda", "sda1", "DEVNAME=sda1\nPARTN=1")
	for i := range 3 {
		write("mmcblk0", fmt.Sprintf("mmcblk0p%d", i+1), fmt.Sprintf("DEVNAME=mmcblk0p%d\nPARTN=%d", i+1, i+1))
	}
	sysfsFile(t, root, "block/mmcblk0/mmcblk0boot0/uevent", "DEVNAME=mmcblk0boot0")
	disks, err := disksIn(filepath.Join(root, "block"), func(disk string) bool { return disk != "/dev/sda" })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range disks {
		got = append(got, fmt.Sprintf("%s %d", d.Path, d.Bytes))
		for _, name := range slices.Sorted(maps.Keys(d.Parts)) {
			got = append(got, name+"="+d.Parts[name])
		}
	}
	want := "/dev/mmcblk0 4194304, skerry-esp=/dev/mmcblk0p1, skerry-root-a=/dev/mmcblk0p2, skerry-root-b=/dev/mmcblk0p3, " +
		"/dev/sda 2097152, /dev/vda 1048576, skerry-esp=/dev/vda1, skerry-root-a=/dev/vda2"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}

func TestChooseDisk(t *testing.T) {
	disk := func(name string, roles ...string) BlockDevice {
		d := BlockDevice{Name: name, Path: "/dev/" + name, Bytes: 64 << 20, Parts: map[string]string{}}
		for _, r := range roles {
			d.Parts[r] = d.Path + "-" + r
		}
		return d
	}
	card := func(name string) BlockDevice {
		return disk(name, BootPartition, RootPartition("a"), RootPartition("b"))
	}
	// The signatures of the disks; "small" has an image that is larger than it.
	signatures := map[string]uint32{"mmcblk0": 0x1234abcd, "sda": 0x1, "small": 0x2}
	table := func(d BlockDevice) (partitionTable, error) {
		signature, ok := signatures[d.Name]
		if !ok {
			return nil, errors.New("no table")
		}
		b := factoryMBR(signature)
		sectors := uint64(d.Bytes / sectorSize)
		if d.Name == "small" {
			sectors = 3 * 2048
		}
		return ReadMBR(strings.NewReader(string(b)), sectors)
	}
	for _, c := range []struct {
		name   string
		disks  []BlockDevice
		booted string
		want   string // disk, error, or "wait"
	}{
		{"nothing yet", nil, "", "wait"},
		{"other people's disk", []BlockDevice{disk("sdb")}, "", "wait"},
		{"the only one", []BlockDevice{disk("sdb"), card("mmcblk0")}, "", "mmcblk0"},
		{"two, and nobody says which", []BlockDevice{card("sda"), card("mmcblk0")}, "", "more than one disk has Skerry's partitions (/dev/sda and /dev/mmcblk0)"},
		{"two, and the boot loader says which", []BlockDevice{card("sda"), card("mmcblk0")}, "1234abcd-01", "mmcblk0"},
		{"the one that was booted is not there yet", []BlockDevice{card("sda")}, "1234abcd-01", "wait"},
		{"too small", []BlockDevice{disk("small", BootPartition)}, "", "has 64 MiB, and the image that was written to it needs 10 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := chooseDisk(c.disks, "a", c.booted, table)
			got := "wait"
			if err != nil {
				got = err.Error()
			} else if d != nil {
				got = d.Name
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestIsMemoryCard(t *testing.T) {
	root := sysfs(t, `block/mmcblk0/device/type=SD
		block/mmcblk1/device/type=MMC
		block/sda/device/type=0
		block/vda/device/vendor=0x1af4`)
	for disk, want := range map[string]bool{"/dev/mmcblk0": true, "/dev/mmcblk1": false, "/dev/sda": false, "/dev/vda": false, "/dev/none": false} {
		if got := isMemoryCard(filepath.Join(root, "block"), disk); got != want {
			t.Errorf("%s is a memory card: %v, want %v", disk, got, want)
		}
	}
}
