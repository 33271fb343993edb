package slot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The state lies in two sectors of 512 bytes, before the first partition.
const (
	SectorSize = 512
	// UBootSector is the sector of the first copy; the second one is behind it.
	UBootSector = 16
)

// Sectors is the disk that the boot partition is on.
type Sectors interface {
	io.ReaderAt
	// WriteAt writes the sectors that it is given, and no others: the sector beside them may be all that a power cut leaves.
	io.WriterAt
	// Sync returns when all that was written is on the medium.
	Sync() error
}

// ubootState is the state of both slots, as a copy of it has it. Text and field names: docs/boot-state.md.
type ubootState struct {
	sequence uint32
	// first is the slot that was installed last.
	first Name
	// counted is how many boots the boot loader has counted in all.
	counted uint32
	slots   map[Name]ubootSlot
}

// A ubootSlot is a slot with its folder on the boot partition, or without one if there is nothing to boot.
type ubootSlot struct {
	folder     string
	good       bool
	left, done uint32
}

// goodTries stands in place of a number of tries, noFolder in place of a folder: U-Boot takes an empty value for the wish to
// delete the variable.
const (
	goodTries = "good"
	noFolder  = "none"
)

// decode reads a copy. One that is torn, or was never written, is not valid.
func decode(sector []byte) (s ubootState, valid bool) {
	if binary.LittleEndian.Uint32(sector) != crc32.ChecksumIEEE(sector[4:]) {
		return s, false
	}
	text, _, ended := bytes.Cut(sector[4:], []byte{0, 0})
	if !ended {
		return s, false
	}
	values := map[string]string{}
	for _, line := range strings.Split(string(text), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		values[key] = value
	}
	valid = true
	number := func(key string) uint32 {
		n, err := strconv.ParseUint(values[key], 16, 32)
		valid = valid && err == nil
		return uint32(n)
	}
	s = ubootState{sequence: number("ab_seq"), first: Name(values["ab_cur"]), counted: number("ab_count"), slots: map[Name]ubootSlot{}}
	for _, n := range []Name{A, B} {
		p := ubootSlot{done: number("ab_done_" + string(n))}
		if p.good = values["ab_tries_"+string(n)] == goodTries; !p.good {
			p.left = number("ab_tries_" + string(n))
		}
		if p.folder = values["ab_dir_"+string(n)]; p.folder == noFolder {
			p.folder = ""
		} else if !slices.Contains(ubootFolders(n), p.folder) {
			valid = false
		}
		s.slots[n] = p
	}
	_, err := Parse(string(s.first))
	return s, valid && err == nil
}

// encode makes a copy, with the keys in their order as U-Boot itself writes them.
func (s ubootState) encode() []byte {
	hex := func(n uint32) string { return strconv.FormatUint(uint64(n), 16) }
	values := map[string]string{"ab_seq": hex(s.sequence), "ab_cur": string(s.first), "ab_count": hex(s.counted)}
	for n, p := range s.slots {
		tries, folder := hex(p.left), p.folder
		if p.good {
			tries = goodTries
		}
		if folder == "" {
			folder = noFolder
		}
		values["ab_dir_"+string(n)], values["ab_tries_"+string(n)], values["ab_done_"+string(n)] = folder, tries, hex(p.done)
	}
	sector := make([]byte, SectorSize)
	at := 4
	for _, key := range slices.Sorted(maps.Keys(values)) {
		at += copy(sector[at:], key+"="+values[key]+"\x00") // about 130 bytes
	}
	binary.LittleEndian.PutUint32(sector, crc32.ChecksumIEEE(sector[4:]))
	return sector
}

// A ubootCopies is what is in the two sectors.
type ubootCopies struct {
	// newest is the state; without valid copies it is what the boot partition shows.
	newest ubootState
	// next is the copy that is written next: the other one.
	next int
	// other is what that copy has, if it is valid.
	other ubootState
}

// read reads both copies. Of two that are valid the one with the higher sequence holds.
func (u UBoot) read() (c ubootCopies, err error) {
	var copies [2]ubootState
	var valid [2]bool
	for i := range copies {
		sector := make([]byte, SectorSize)
		if _, err := u.Disk.ReadAt(sector, (UBootSector+int64(i))*SectorSize); err != nil {
			return c, fmt.Errorf("cannot read sector %d: %w", UBootSector+i, err)
		}
		copies[i], valid[i] = decode(sector)
	}
	newest := 0
	switch {
	case !valid[0] && !valid[1]:
		c.newest, err = u.survey()
		return c, err
	case !valid[0], valid[1] && copies[1].sequence > copies[0].sequence:
		newest = 1
	}
	return ubootCopies{newest: copies[newest], next: 1 - newest, other: copies[1-newest]}, nil
}

// change writes the state with a change, in one sector, and never over the newest copy.
func (u UBoot) change(do func(*ubootState)) error {
	c, err := u.read()
	if err != nil {
		return err
	}
	do(&c.newest)
	c.newest.sequence++
	if _, err := u.Disk.WriteAt(c.newest.encode(), (UBootSector+int64(c.next))*SectorSize); err != nil {
		return fmt.Errorf("cannot write sector %d: %w", UBootSector+c.next, err)
	}
	return u.Disk.Sync()
}
