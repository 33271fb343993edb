package slottest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/skerryos/skerry/initd/slot"
)

// Copies is how many copies of the state there are.
const Copies = 2

// Sectors are those of U-Boot's state, as [slot.Sectors]. They forget at a power cut what was not synced, and are hard on
// whoever writes over the newest copy.
type Sectors struct {
	// Unreadable and WriteFails are what may become of old media, in the eyes of the boot loader.
	Unreadable [Copies]bool
	WriteFails bool

	now, medium [Copies][]byte
	pending     []int
	onStep      func() error
}

// NewSectors makes them with these copies.
func NewSectors(copies [Copies][]byte) *Sectors {
	s := &Sectors{}
	for i, c := range copies {
		s.now[i], s.medium[i] = bytes.Clone(c), bytes.Clone(c)
	}
	return s
}

func (s *Sectors) step() error {
	if s.onStep == nil {
		return nil
	}
	return s.onStep()
}

// place is the copy that p bytes at an offset are.
func place(p []byte, at int64) (int, error) {
	i := int(at/slot.SectorSize) - slot.UBootSector
	if len(p) != slot.SectorSize || at%slot.SectorSize != 0 || i < 0 || i >= Copies {
		return 0, fmt.Errorf("%d bytes at %d are no copy of the state", len(p), at)
	}
	return i, nil
}

// ReadAt implements [slot.Sectors].
func (s *Sectors) ReadAt(p []byte, at int64) (int, error) {
	i, err := place(p, at)
	if err != nil {
		return 0, err
	}
	return copy(p, s.now[i]), nil
}

// WriteAt implements [slot.Sectors].
func (s *Sectors) WriteAt(p []byte, at int64) (int, error) {
	i, err := place(p, at)
	if err != nil {
		return 0, err
	}
	if newest, _ := s.newest(); newest == i {
		return 0, fmt.Errorf("copy %d is the newest, and must not be written over", i)
	}
	if len(s.pending) > 0 {
		return 0, errors.New("the other copy may not be on the medium yet")
	}
	if err := s.step(); err != nil {
		return 0, err
	}
	copy(s.now[i], p)
	s.pending = append(s.pending, i)
	return len(p), nil
}

// Sync implements [slot.Sectors].
func (s *Sectors) Sync() error {
	if err := s.step(); err != nil {
		return err
	}
	for _, i := range s.pending {
		copy(s.medium[i], s.now[i])
	}
	s.pending = nil
	return nil
}

// cut are the sectors after a power cut.
func (s *Sectors) cut(luck Luck) *Sectors {
	left := NewSectors(s.medium)
	left.Unreadable, left.WriteFails = s.Unreadable, s.WriteFails
	for j, i := range s.pending {
		end := slot.SectorSize
		switch luck(j, len(s.pending)) {
		case Lost:
			continue
		case Torn:
			end = 64 // in the middle of its text
		}
		copy(left.now[i][:end], s.now[i])
		copy(left.medium[i], left.now[i])
	}
	return left
}

// Rot destroys a copy.
func (s *Sectors) Rot(i int) {
	s.now[i][100] ^= 1
	s.medium[i][100] ^= 1
}

// newest is the copy that holds, or -1, and what it says.
func (s *Sectors) newest() (newest int, values map[string]string) {
	newest = -1
	for i := range s.now {
		if v, valid := DecodeEnv(s.now[i]); valid && (newest < 0 || number(v["ab_seq"]) > number(values["ab_seq"])) {
			newest, values = i, v
		}
	}
	return newest, values
}

// DecodeEnv reads a block as U-Boot's `env import -c` does.
func DecodeEnv(block []byte) (values map[string]string, valid bool) {
	if binary.LittleEndian.Uint32(block) != crc32.ChecksumIEEE(block[4:]) {
		return nil, false
	}
	values = map[string]string{}
	for line := range strings.SplitSeq(string(block[4:]), "\x00") {
		if line == "" {
			break
		}
		if key, value, _ := strings.Cut(line, "="); value != "" {
			values[key] = value
		}
	}
	return values, true
}

// EncodeEnv makes a block as U-Boot's `env export -c` does: the variables that have a value, in the order of their names.
func EncodeEnv(keys []string, value func(key string) string, size int) []byte {
	block := make([]byte, size)
	at := 4
	for _, key := range slices.Sorted(slices.Values(keys)) {
		if v := value(key); v != "" {
			at += copy(block[at:], key+"="+v+"\x00")
		}
	}
	binary.LittleEndian.PutUint32(block, crc32.ChecksumIEEE(block[4:]))
	return block
}
