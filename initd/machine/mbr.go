package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The master boot record (UEFI 2.10, section 5.2.1), for boards whose boot ROM knows nothing else. It has no names: the number
// of a partition says what it is for. All of it is one sector, which the medium writes at once.
const (
	mbrSignature = 0x1b8 // of the disk, 4 bytes
	mbrEntries   = 0x1be
	mbrEntrySize = 16
	mbrMagic     = 0x1fe

	mbrFAT32 = 0x0c
	mbrLinux = 0x83
)

// mbrRoles are the partitions by their number, and the type that each has.
var mbrRoles = [...]struct {
	name string
	kind byte
}{{BootPartition, mbrFAT32}, {RootPartition("a"), mbrLinux}, {RootPartition("b"), mbrLinux}, {DataPartition, mbrLinux}}

// mbrNewData is the most that an image gives to the data partition, in bytes: one that is larger has been grown by a device, and
// its file system is one to keep.
const mbrNewData = 1 << 20

// An MBR is the partition table of a disk of Sectors sectors, with partitions as Skerry makes them.
type MBR struct {
	Sectors uint64
	sector  [sectorSize]byte
}

// ErrNoMBR means that a disk has no master boot record, or not one of Skerry.
var ErrNoMBR = errors.New("no master boot record of Skerry")

// ReadMBR reads the table of a disk with the given number of sectors. Whatever is not as Skerry makes it is an ErrNoMBR: roles by
// number must not be given to the partitions of others.
func ReadMBR(d io.ReaderAt, sectors uint64) (*MBR, error) {
	t := &MBR{Sectors: sectors}
	if _, err := d.ReadAt(t.sector[:], 0); err != nil {
		return nil, fmt.Errorf("cannot read partition table: %w", err)
	}
	if t.sector[mbrMagic] != 0x55 || t.sector[mbrMagic+1] != 0xaa {
		return nil, ErrNoMBR
	}
	end := uint64(gptAlign)
	for i, role := range mbrRoles {
		e := t.entry(i)
		if role.name == DataPartition && slices.Equal(e, make([]byte, mbrEntrySize)) {
			continue // to be made
		}
		first, count := t.extent(i)
		switch {
		case e[0] != 0 && e[0] != 0x80:
			return nil, fmt.Errorf("%w: partition %d has the boot indicator %#x", ErrNoMBR, i+1, e[0])
		case e[4] != role.kind:
			return nil, fmt.Errorf("%w: partition %d has type %#02x instead of %#02x", ErrNoMBR, i+1, e[4], role.kind)
		case first < end || i == 0 && first != end:
			return nil, fmt.Errorf("%w: partition %d starts at sector %d", ErrNoMBR, i+1, first)
		case count == 0 || first+count > mbrSectors:
			return nil, fmt.Errorf("%w: partition %d has %d sectors", ErrNoMBR, i+1, count)
		}
		end = first + count
	}
	return t, nil
}

// mbrSectors is how many sectors of a disk can be in partitions: 2 TiB.
const mbrSectors = 1 << 32

func (t *MBR) entry(index int) []byte { return t.sector[mbrEntries+index*mbrEntrySize:][:mbrEntrySize] }

// extent is where a partition begins and how many sectors it has.
func (t *MBR) extent(index int) (first, count uint64) {
	e := t.entry(index)
	return uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
}

func (t *MBR) bounds(number int) (start, length int64) {
	first, count := t.extent(number - 1)
	return int64(first) * sectorSize, int64(count) * sectorSize
}

func (t *MBR) find(name string) int {
	for i, role := range mbrRoles {
		if _, count := t.extent(i); role.name == name && count > 0 {
			return i
		}
	}
	return -1
}

// hasID tells whether a partition is called that in the firmware's words: the disk's signature and the partition's number, as
// U-Boot and Linux write them.
func (t *MBR) hasID(id string) bool {
	signature := binary.LittleEndian.Uint32(t.sector[mbrSignature:])
	for i := range mbrRoles {
		if id == fmt.Sprintf("%08x-%02x", signature, i+1) {
			return true
		}
	}
	return false
}

// CutOff tells whether the disk ends before its last partition does: see [Table.CutOff].
func (t *MBR) CutOff() (need int64, cut bool) {
	var end uint64
	for i := range mbrRoles {
		first, count := t.extent(i)
		end = max(end, first+count)
	}
	return int64(end) * sectorSize, end > t.Sectors
}

func (t *MBR) unused(name string) bool {
	at := t.find(name)
	if at < 0 {
		return true
	}
	_, length := t.bounds(at + 1)
	return length <= mbrNewData
}

// Extend makes the data partition, which is the last one, reach to the end of the disk, or as far as the table can tell. See
// [Table.Extend].
func (t *MBR) Extend(name string, _, _ GUID, minimum int64) (number int, changed bool, err error) {
	const data = len(mbrRoles) - 1
	if name != DataPartition {
		return 0, false, fmt.Errorf("cannot extend partition %s: it is not the last one", name)
	}
	first, count := t.extent(data)
	if count == 0 {
		before, sectors := t.extent(data - 1)
		first = (before + sectors + gptAlign - 1) / gptAlign * gptAlign
	}
	end := min(t.Sectors, mbrSectors-1) / gptAlign * gptAlign
	if count > 0 && !t.unused(name) && first+count >= end {
		return data + 1, false, nil
	}
	minimum = max(minimum, 2*mbrNewData) // or it would look unused
	if have := (int64(end) - int64(first)) * sectorSize; have < minimum {
		return 0, false, &TooSmallError{Partition: name, Disk: int64(t.Sectors) * sectorSize, Have: max(have, 0), Need: minimum}
	}
	e := t.entry(data)
	if count == 0 {
		// Cylinders, heads and sectors say that they cannot say it.
		copy(e, []byte{0, 0xfe, 0xff, 0xff, mbrLinux})
		binary.LittleEndian.PutUint32(e[8:], uint32(first))
	}
	copy(e[5:], []byte{0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[12:], uint32(end-first))
	return data + 1, true, nil
}

// Write changes the table on the disk, in one sector. What else is in that sector, the code of boot loaders and the disk's
// signature, stays as it was read.
func (t *MBR) Write(d Disk) error {
	if err := writeSync(d, t.sector[:], 0); err != nil {
		return fmt.Errorf("cannot write the partition table: %w", err)
	}
	return nil
}
