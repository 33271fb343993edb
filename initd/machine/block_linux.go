package machine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Names of the partitions of a Skerry disk.
const (
	BootPartition = "skerry-esp"
	DataPartition = "skerry-data"
)

// RootPartition is the name of a slot's partition.
func RootPartition(slot string) string { return "skerry-root-" + slot }

// A BlockDevice is a disk with the partitions that the kernel found on it.
type BlockDevice struct {
	// Name is the kernel's, such as vda; Path the device node.
	Name, Path string
	Bytes      int64
	// Parts are paths of device nodes by partition name.
	Parts map[string]string
}

// Disks lists the disks of the machine.
func Disks() ([]BlockDevice, error) { return disksIn("/sys/block", hasMBR) }

// disksIn is Disks for another place than /sys/block. numbered tells whether the numbers of a disk's partitions say what they
// are for.
func disksIn(sys string, numbered func(disk string) bool) ([]BlockDevice, error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil, fmt.Errorf("cannot list disks: %w", err)
	}
	var disks []BlockDevice
	for _, e := range entries {
		dir := filepath.Join(sys, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil {
			continue // loop, ram, dm
		}
		sectors, err := strconv.ParseInt(readLine(filepath.Join(dir, "size")), 10, 64)
		if err != nil || sectors == 0 {
			continue // an empty card reader
		}
		d := BlockDevice{Name: e.Name(), Path: "/dev/" + e.Name(), Bytes: sectors * sectorSize, Parts: map[string]string{}}
		byNumber := map[int]string{}
		parts, _ := filepath.Glob(filepath.Join(dir, e.Name()+"*", "uevent"))
		for _, p := range parts {
			u := readUevent(p)
			if name := u["PARTNAME"]; name != "" {
				d.Parts[name] = "/dev/" + u["DEVNAME"]
			}
			if n, err := strconv.Atoi(u["PARTN"]); err == nil {
				byNumber[n] = "/dev/" + u["DEVNAME"]
			}
		}
		if len(d.Parts) == 0 && len(byNumber) > 0 && numbered(d.Path) {
			for i, role := range mbrRoles {
				if path := byNumber[i+1]; path != "" {
					d.Parts[role.name] = path
				}
			}
		}
		disks = append(disks, d)
	}
	return disks, nil
}

// hasMBR tells whether a disk has partitions whose numbers say what they are for.
func hasMBR(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = ReadMBR(f, 0)
	return err == nil
}

func readLine(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func readUevent(file string) Uevent {
	u := Uevent{}
	for line := range strings.Lines(readLine(file)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			u[k] = v
		}
	}
	return u
}

// FindDisk waits for the disk that has a root partition for slot. The disk whose boot partition the firmware booted
// (its unique GUID, or signature and number on a disk with an MBR, in lower case; empty where the firmware does not tell) is taken
// before any other; without that knowledge there must be only one.
func FindDisk(ctx context.Context, slot, bootPartition string) (*BlockDevice, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := Uevents(ctx)
	if err != nil {
		return nil, err
	}
	for {
		disks, err := Disks()
		if err != nil {
			return nil, err
		}
		d, err := chooseDisk(disks, slot, bootPartition, readTable)
		if d != nil || err != nil {
			return d, err
		}
		select {
		case <-events:
		case <-ctx.Done():
			// When the firmware told which disk it is, another one is taken only if that never appears.
			if d, err := chooseDisk(disks, slot, "", readTable); d != nil || err != nil {
				return d, err
			}
			return nil, fmt.Errorf("no disk has a partition %s; the disks are: %s; is a driver missing, or was the image written to another disk?",
				RootPartition(slot), describe(disks))
		}
	}
}

// chooseDisk returns nil when the disk is not there yet, and an error when waiting would not help. table reads the
// partition table of a disk.
func chooseDisk(disks []BlockDevice, slot, bootPartition string, table func(BlockDevice) (partitionTable, error)) (*BlockDevice, error) {
	var found []BlockDevice
	var cut error
	for _, d := range disks {
		ours := d.Parts[RootPartition(slot)] != ""
		if ours && bootPartition == "" {
			found = append(found, d)
			continue
		}
		t, err := table(d)
		if err != nil || (bootPartition != "" && !t.hasID(bootPartition)) {
			continue
		}
		if ours {
			return &d, nil
		}
		if need, is := t.CutOff(); is && t.find(RootPartition(slot)) >= 0 {
			cut = d.cutOff(need)
		}
	}
	switch len(found) {
	case 0:
		return nil, cut
	case 1:
		return &found[0], nil
	}
	return nil, fmt.Errorf("more than one disk has Skerry's partitions (%s and %s) and the firmware does not say which was booted; remove one of them",
		found[0].Path, found[1].Path)
}

// cutOff is about a disk that ends before it has need bytes.
func (d BlockDevice) cutOff(need int64) error {
	return fmt.Errorf("the disk %s has %d MiB, and the image that was written to it needs %d MiB before there is any room for data: "+
		"write the image to a larger disk", d.Path, d.Bytes>>20, need>>20)
}

func describe(disks []BlockDevice) string {
	if len(disks) == 0 {
		return "none"
	}
	var out []string
	for _, d := range disks {
		out = append(out, fmt.Sprintf("%s (%d MiB)", d.Path, d.Bytes>>20))
	}
	return strings.Join(out, ", ")
}

// A partitionTable is one that Skerry's disks have: [Table] or [MBR].
type partitionTable interface {
	// find returns the index of the partition of that name, or -1.
	find(name string) int
	// hasID tells whether a partition has the unique name, in lower case.
	hasID(id string) bool
	CutOff() (need int64, cut bool)
	// unused tells whether the partition is missing, or as an image has it: no device has made a file system on it.
	unused(name string) bool
	Extend(name string, kind, id GUID, minimum int64) (number int, changed bool, err error)
	// bounds is where a partition lies, in bytes.
	bounds(number int) (start, length int64)
	Write(Disk) error
}

func readTable(d BlockDevice) (partitionTable, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAnyTable(f, uint64(d.Bytes/sectorSize))
}

// readAnyTable prefers an MBR, as the kernel does: what is left of a GUID table on a disk that was written anew counts only if the
// MBR says so.
func readAnyTable(d io.ReaderAt, sectors uint64) (partitionTable, error) {
	mbr, err := ReadMBR(d, sectors)
	if err == nil {
		return mbr, nil
	}
	if !errors.Is(err, ErrNoMBR) {
		return nil, err
	}
	t, err := ReadTable(d, sectors)
	if err != nil { // a nil *Table is not a nil partitionTable
		return nil, err
	}
	return t, nil
}

func (t *Table) unused(name string) bool { return t.find(name) < 0 }

func (t *Table) bounds(number int) (start, length int64) {
	p := t.Partitions[number-1]
	return int64(p.First) * sectorSize, p.Bytes()
}

// hasID tells whether a partition has the unique GUID, in lower case.
func (t *Table) hasID(id string) bool {
	return slices.ContainsFunc(t.Partitions[:], func(p Partition) bool { return p.Type != (GUID{}) && p.ID.String() == id })
}

// String is the GUID as people write it, in lower case.
func (g GUID) String() string {
	le, be := binary.LittleEndian, binary.BigEndian
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%x", le.Uint32(g[:]), le.Uint16(g[4:]), le.Uint16(g[6:]), be.Uint16(g[8:]), g[10:])
}

// BootedPartition asks the firmware for the GUID of the partition that the boot loader was started from, which systemd's
// boot loader and stub leave in a variable (https://systemd.io/BOOT_LOADER_INTERFACE). Empty if it does not say.
func BootedPartition() string {
	const dir = "/sys/firmware/efi/efivars"
	_ = Mount{"efivarfs", dir, "efivarfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY, ""}.Do()
	b, err := os.ReadFile(dir + "/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
	if err != nil || len(b) < 4 {
		return ""
	}
	var id []byte
	for i := 4; i+1 < len(b) && b[i] != 0; i += 2 { // attributes, then UTF-16
		id = append(id, b[i])
	}
	return strings.ToLower(string(id))
}

// ExtendPartition makes the partition reach to the disk's end (see [Table.Extend]), tells the kernel, and returns its
// device node. A table without names and GUIDs needs neither kind nor id.
func ExtendPartition(d *BlockDevice, name string, kind, id GUID, minimum int64) (path string, err error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("cannot open disk: %w", err)
	}
	defer f.Close()
	t, err := readAnyTable(f, uint64(d.Bytes/sectorSize))
	if err != nil {
		return "", fmt.Errorf("disk %s: %w", d.Path, err)
	}
	if need, cut := t.CutOff(); cut {
		return "", d.cutOff(need)
	}
	wipe := t.unused(name)
	number, changed, err := t.Extend(name, kind, id, minimum)
	if err != nil {
		return "", err
	}
	path = partitionPath(d.Path, number)
	if !changed {
		return path, nil
	}
	start, length := t.bounds(number)
	if wipe {
		if err := wipeFilesystem(f, start, length); err != nil {
			return "", fmt.Errorf("cannot clear the place of partition %s: %w", path, err)
		}
	}
	if err := t.Write(f); err != nil {
		return "", fmt.Errorf("disk %s: %w", d.Path, err)
	}
	op := blkpgResize
	if d.Parts[name] == "" {
		op = blkpgAdd
	}
	if err := blkpg(f, op, number, start, length); err != nil {
		return "", fmt.Errorf("cannot tell the kernel of partition %s: %w", path, err)
	}
	d.Parts[name] = path
	return path, nil
}

func partitionPath(disk string, number int) string {
	if c := disk[len(disk)-1]; c >= '0' && c <= '9' {
		disk += "p"
	}
	return disk + strconv.Itoa(number)
}

// Operations of the ioctl BLKPG (include/uapi/linux/blkpg.h).
const (
	ioctlBLKPG  = 0x1269
	blkpgAdd    = 1
	blkpgResize = 3
)

type blkpgPartition struct {
	start, length int64
	number        int32
	_             [64 + 64]byte
}

type blkpgArg struct {
	op, flags, length int32
	data              unsafe.Pointer
}

func blkpg(f *os.File, op, number int, start, length int64) error {
	p := blkpgPartition{start: start, length: length, number: int32(number)}
	arg := blkpgArg{op: int32(op), length: int32(unsafe.Sizeof(p)), data: unsafe.Pointer(&p)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlBLKPG, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// The superblock of ext4 is at byte 1024 of its device; the first spare copy starts at block 32768 where blocks have 4096
// bytes (https://docs.kernel.org/filesystems/ext4/globals.html#super-block).
const (
	ext4Superblock = 1024
	ext4Spare      = 32768 * 4096
)

// wipeFilesystem makes sure that a new partition shows no file system that a former partition had at the same place:
// a device that is flashed anew starts anew. It must be done before the partition is in the table: from then on a file
// system is one to keep.
func wipeFilesystem(d Disk, start, length int64) error {
	for _, at := range []int64{0, ext4Spare} {
		if n := min(1<<20, length-at); n > 0 {
			if _, err := d.WriteAt(make([]byte, n), start+at); err != nil {
				return err
			}
		}
	}
	return d.Sync()
}

// IsMemoryCard tells whether a disk, by its device node, is an SD card. A chip of the same kind that is soldered in (eMMC) is none.
func IsMemoryCard(disk string) bool { return isMemoryCard("/sys/block", disk) }

func isMemoryCard(sys, disk string) bool {
	return readLine(filepath.Join(sys, filepath.Base(disk), "device/type")) == "SD"
}

// Filesystem returns the size in bytes of the ext4 file system on a device, 0 if there is none, and that of the device,
// which is larger when the partition has grown since.
func Filesystem(path string) (filesystem, device int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if device, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, 0, fmt.Errorf("cannot ask for the size of %s: %w", path, err)
	}
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, ext4Superblock); err != nil {
		return 0, 0, fmt.Errorf("cannot read the superblock of %s: %w", path, err)
	}
	return ext4Bytes(b), device, nil
}

// ext4Bytes is the size that a superblock tells.
func ext4Bytes(super []byte) int64 {
	le := binary.LittleEndian
	if le.Uint16(super[0x38:]) != 0xef53 {
		return 0
	}
	blocks := uint64(le.Uint32(super[0x4:]))
	if le.Uint32(super[0x60:])&0x80 != 0 { // incompatible feature 64bit
		blocks |= uint64(le.Uint32(super[0x150:])) << 32
	}
	return int64(blocks << (10 + le.Uint32(super[0x18:])&0xf))
}
