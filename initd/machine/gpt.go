package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// The GUID Partition Table of UEFI 2.10, section 5.3. Reading and writing it here, and not with a library, is about one
// thing: the order of the writes when the table changes on a device that can lose power between any two of them.
const (
	sectorSize     = 512
	gptSignature   = "EFI PART"
	gptHeaderSize  = 92
	gptEntrySize   = 128
	gptEntries     = 128
	gptArrayBlocks = gptEntries * gptEntrySize / sectorSize
	// alignment of partitions, in sectors: 1 MiB, a multiple of the erase blocks of cards and disks
	gptAlign = 2048

	// The first copy's entries are in the first place, behind its header, but for the moments of a change: see Table.Write.
	gptFirstPlace  = 2
	gptSecondPlace = gptFirstPlace + gptArrayBlocks
	gptFirstUsable = gptSecondPlace
)

// A GUID in the mixed byte order of the specification.
type GUID [16]byte

// VarPartition is the type of the data partition: variable data, of the Discoverable Partitions Specification
// (4d21b016-b534-45c2-a9fb-5c16e091fd2d).
var VarPartition = GUID{0x16, 0xb0, 0x21, 0x4d, 0x34, 0xb5, 0xc2, 0x45, 0xa9, 0xfb, 0x5c, 0x16, 0xe0, 0x91, 0xfd, 0x2d}

// A Partition is an entry of the table. Sectors are those of 512 bytes; Last is the last one that belongs to it.
type Partition struct {
	Type, ID    GUID
	First, Last uint64
	Attributes  uint64
	Name        string
}

// Bytes is the partition's size.
func (p Partition) Bytes() int64 { return int64(p.Last-p.First+1) * sectorSize }

// A Table is the partition table of a disk of Sectors sectors.
type Table struct {
	Sectors    uint64
	DiskID     GUID
	Partitions [gptEntries]Partition

	// place is the sector of the first copy's entries; 0 where that copy is damaged.
	place uint64
	// other is the sector of the other copy.
	other uint64
}

// A Disk is what a table is read from and written to.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when all that was written is on the medium.
	Sync() error
}

// ErrNoTable means that neither copy of the table is valid.
var ErrNoTable = errors.New("no valid GUID partition table")

// ReadTable reads the table of a disk with the given number of sectors: the first copy, or the second one where the
// first is damaged. The disk may have become larger since the table was written.
func ReadTable(d io.ReaderAt, sectors uint64) (*Table, error) {
	t, err := readTableAt(d, 1, sectors)
	if err == nil {
		return t, nil
	}
	if t, err2 := readTableAt(d, sectors-1, sectors); err2 == nil {
		t.place = 0
		return t, nil
	}
	return nil, err
}

func readTableAt(d io.ReaderAt, at, sectors uint64) (*Table, error) {
	le := binary.LittleEndian
	h := make([]byte, sectorSize)
	if _, err := d.ReadAt(h, int64(at)*sectorSize); err != nil {
		return nil, fmt.Errorf("cannot read partition table: %w", err)
	}
	if string(h[:8]) != gptSignature || le.Uint32(h[12:]) != gptHeaderSize || le.Uint64(h[24:]) != at {
		return nil, ErrNoTable
	}
	sum := le.Uint32(h[16:])
	copy(h[16:20], make([]byte, 4))
	if crc32.ChecksumIEEE(h[:gptHeaderSize]) != sum {
		return nil, ErrNoTable
	}
	if le.Uint32(h[80:]) != gptEntries || le.Uint32(h[84:]) != gptEntrySize {
		return nil, fmt.Errorf("%w: it has %d entries of %d bytes", ErrNoTable, le.Uint32(h[80:]), le.Uint32(h[84:]))
	}
	array := make([]byte, gptEntries*gptEntrySize)
	if _, err := d.ReadAt(array, int64(le.Uint64(h[72:]))*sectorSize); err != nil {
		return nil, fmt.Errorf("cannot read partition table: %w", err)
	}
	if crc32.ChecksumIEEE(array) != le.Uint32(h[88:]) {
		return nil, ErrNoTable
	}
	t := &Table{Sectors: sectors, DiskID: GUID(h[56:72]), place: le.Uint64(h[72:]), other: le.Uint64(h[32:])}
	for i := range t.Partitions {
		e := array[i*gptEntrySize:]
		name := make([]uint16, 36)
		for j := range name {
			name[j] = le.Uint16(e[56+2*j:])
		}
		t.Partitions[i] = Partition{
			Type: GUID(e[:16]), ID: GUID(e[16:32]), First: le.Uint64(e[32:]), Last: le.Uint64(e[40:]),
			Attributes: le.Uint64(e[48:]), Name: string(bytes.TrimRight([]byte(string(utf16.Decode(name))), "\x00")),
		}
	}
	return t, nil
}

func (t *Table) lastUsable() uint64 { return t.Sectors - gptArrayBlocks - 2 }

// encode returns the table's entries, and its header for the copy at sector at, whose entries start at sector array and
// leave the sectors from usable on to partitions.
func (t *Table) encode(at, other, array, usable uint64) (entries, header []byte) {
	le := binary.LittleEndian
	entries = make([]byte, gptEntries*gptEntrySize)
	for i, p := range t.Partitions {
		e := entries[i*gptEntrySize:]
		copy(e, p.Type[:])
		copy(e[16:], p.ID[:])
		le.PutUint64(e[32:], p.First)
		le.PutUint64(e[40:], p.Last)
		le.PutUint64(e[48:], p.Attributes)
		for j, u := range utf16.Encode([]rune(p.Name)) {
			if j < 36 {
				le.PutUint16(e[56+2*j:], u)
			}
		}
	}
	header = make([]byte, sectorSize)
	copy(header, gptSignature)
	le.PutUint32(header[8:], 0x00010000)
	le.PutUint32(header[12:], gptHeaderSize)
	le.PutUint64(header[24:], at)
	le.PutUint64(header[32:], other)
	le.PutUint64(header[40:], usable)
	le.PutUint64(header[48:], t.lastUsable())
	copy(header[56:], t.DiskID[:])
	le.PutUint64(header[72:], array)
	le.PutUint32(header[80:], gptEntries)
	le.PutUint32(header[84:], gptEntrySize)
	le.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(header[16:], crc32.ChecksumIEEE(header[:gptHeaderSize]))
	return entries, header
}

// Write changes the table on the disk so that a power cut at any moment leaves a first copy that is valid, the former or
// the new one: a kernel looks at no other, unless it is told to.
//
// Entries and header do not fit into one sector, so they are never changed together. New entries go to a place that no
// header points to (the second place is free, since partitions start at 1 MiB), and when they are on the medium the
// header, a single sector, is pointed at them. The same once more brings them back to the usual place. The copy at the
// disk's end is written before all that: a disk that became larger has no other one that counts.
func (t *Table) Write(d Disk) error {
	for _, p := range t.Partitions {
		if p.Type != (GUID{}) && p.First < gptSecondPlace+gptArrayBlocks {
			return fmt.Errorf("cannot change the partition table safely: partition %q starts at sector %d, which is too near to it", p.Name, p.First)
		}
	}
	last := t.Sectors - 1
	entries, header := t.encode(last, 1, last-gptArrayBlocks, gptFirstUsable)
	if err := writeSync(d, append(entries, header...), last-gptArrayBlocks); err != nil {
		return fmt.Errorf("cannot write second copy of the partition table: %w", err)
	}
	places := []uint64{gptFirstPlace}
	if t.place == gptFirstPlace {
		places = []uint64{gptSecondPlace, gptFirstPlace}
	}
	for _, place := range places {
		entries, header := t.encode(1, last, place, place+gptArrayBlocks)
		if err := writeSync(d, entries, place); err != nil {
			return fmt.Errorf("cannot write entries of the partition table: %w", err)
		}
		if err := writeSync(d, header, 1); err != nil {
			return fmt.Errorf("cannot write header of the partition table: %w", err)
		}
		t.place = place
	}
	return nil
}

func writeSync(d Disk, b []byte, sector uint64) error {
	if _, err := d.WriteAt(b, int64(sector)*sectorSize); err != nil {
		return err
	}
	return d.Sync()
}

// CutOff tells whether the disk ends before what the table was written for, and how many bytes it should have: an image
// was written to a disk that is too small. The kernel refuses such a table.
func (t *Table) CutOff() (need int64, cut bool) {
	if t.other < t.Sectors {
		return 0, false
	}
	return int64(t.other+1) * sectorSize, true
}

// find returns the index of the partition of that name, or -1.
func (t *Table) find(name string) int {
	for i, p := range t.Partitions {
		if p.Type != (GUID{}) && p.Name == name {
			return i
		}
	}
	return -1
}

// Extend makes the partition reach to the end of the disk: it is made behind the others if it is missing, and grown if
// nothing lies behind it. Its number, counted from 1, and whether the table changed are returned. A disk that leaves less
// than minimum bytes for it is refused.
func (t *Table) Extend(name string, kind, id GUID, minimum int64) (number int, changed bool, err error) {
	last := (t.lastUsable()+1)/gptAlign*gptAlign - 1
	at := t.find(name)
	var end uint64 // of the others
	free := -1
	for i, p := range t.Partitions {
		switch {
		case p.Type == (GUID{}):
			if free < 0 {
				free = i
			}
		case i != at:
			end = max(end, p.Last)
		}
	}
	if at >= 0 && (t.Partitions[at].Last < end || t.Partitions[at].Last >= last) {
		return at + 1, false, nil
	}
	if at < 0 {
		if free < 0 {
			return 0, false, fmt.Errorf("cannot make partition %s: the table is full", name)
		}
		at = free
		t.Partitions[at] = Partition{Type: kind, ID: id, Name: name, First: (end/gptAlign + 1) * gptAlign}
	}
	first := t.Partitions[at].First
	if have := (int64(last) - int64(first) + 1) * sectorSize; have < minimum {
		return 0, false, &TooSmallError{Partition: name, Disk: int64(t.Sectors) * sectorSize, Have: max(have, 0), Need: minimum}
	}
	t.Partitions[at].Last = last
	return at + 1, true, nil
}

// A TooSmallError says that a disk has no room for a partition. All sizes are in bytes.
type TooSmallError struct {
	Partition        string
	Disk, Have, Need int64
}

func (e *TooSmallError) Error() string {
	const mib = 1 << 20
	return fmt.Sprintf("the disk is too small: it has %d MiB, which leaves %d MiB for partition %s, and %d MiB is the least; "+
		"nothing was written; write the image to a disk of at least %d MiB",
		e.Disk/mib, e.Have/mib, e.Partition, (e.Need+mib-1)/mib, (e.Disk-e.Have+e.Need+mib-1)/mib)
}
