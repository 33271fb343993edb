package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A Section is a named section of a unified kernel image.
type Section struct {
	Name string
	Data []byte
}

// UKI appends sections to systemd's EFI stub, which makes a unified kernel image of it
// (https://uapi-group.org/specifications/specs/unified_kernel_image/). The stub is a PE32+ file
// (https://learn.microsoft.com/windows/win32/debug/pe-format); only its section table grows, into the room that the
// headers have anyway.
func UKI(stub []byte, sections []Section) ([]byte, error) {
	h, err := readPE(stub)
	if err != nil {
		return nil, fmt.Errorf("cannot read the EFI stub: %w", err)
	}
	const sectionHeader = 40
	if need := h.table + uint32(int(h.sections)+len(sections))*sectionHeader; need > h.room {
		return nil, fmt.Errorf("cannot append %d sections to the EFI stub: its headers end at byte %d, the section table would end at %d", len(sections), h.room, need)
	}
	le := binary.LittleEndian
	out := bytes.Clone(stub)
	address := align(h.end, h.sectionAlign)
	var added uint32
	for i, s := range sections {
		if len(s.Name) > 8 || len(s.Data) == 0 {
			return nil, fmt.Errorf("cannot append section %q of %d bytes to the EFI stub: a name has at most 8 bytes, a section at least one", s.Name, len(s.Data))
		}
		out = append(out, make([]byte, int(align(uint32(len(out)), h.fileAlign))-len(out))...)
		raw := align(uint32(len(s.Data)), h.fileAlign)
		e := out[h.table+uint32(int(h.sections)+i)*sectionHeader:][:sectionHeader]
		clear(e)
		copy(e, s.Name)
		le.PutUint32(e[8:], uint32(len(s.Data))) // VirtualSize
		le.PutUint32(e[12:], address)
		le.PutUint32(e[16:], raw)
		le.PutUint32(e[20:], uint32(len(out)))
		le.PutUint32(e[36:], 0x40000040) // initialized data, readable
		out = append(out, s.Data...)
		out = append(out, make([]byte, int(raw)-len(s.Data))...)
		added += raw
		address = align(address+uint32(len(s.Data)), h.sectionAlign)
	}
	le.PutUint16(out[h.pe+6:], h.sections+uint16(len(sections)))
	opt := out[h.optional:]
	le.PutUint32(opt[8:], le.Uint32(opt[8:])+added) // SizeOfInitializedData
	le.PutUint32(opt[56:], address)                 // SizeOfImage
	le.PutUint32(opt[64:], 0)                       // CheckSum: not used for EFI programs
	return out, nil
}

// peHeader is what has to be known about a PE file to append sections.
type peHeader struct {
	pe, optional, table     uint32 // offsets of the headers and of the section table
	sections                uint16
	fileAlign, sectionAlign uint32
	room                    uint32 // the section table must end here
	end                     uint32 // first free address in memory
}

func readPE(b []byte) (peHeader, error) {
	le := binary.LittleEndian
	var h peHeader
	if len(b) < 0x40 || string(b[:2]) != "MZ" {
		return h, errors.New("not a PE file")
	}
	h.pe = le.Uint32(b[0x3c:])
	if int64(h.pe)+24+112 > int64(len(b)) || string(b[h.pe:h.pe+4]) != "PE\x00\x00" {
		return h, errors.New("not a PE file")
	}
	h.sections = le.Uint16(b[h.pe+6:])
	h.optional = h.pe + 24
	h.table = h.optional + uint32(le.Uint16(b[h.pe+20:]))
	opt := b[h.optional:]
	if le.Uint16(opt) != 0x20b {
		return h, errors.New("not a 64-bit PE file")
	}
	h.sectionAlign, h.fileAlign, h.room = le.Uint32(opt[32:]), le.Uint32(opt[36:]), le.Uint32(opt[60:])
	if !powerOfTwo(h.sectionAlign) || !powerOfTwo(h.fileAlign) {
		return h, fmt.Errorf("alignments %d and %d are not powers of two", h.sectionAlign, h.fileAlign)
	}
	if int64(h.table)+int64(h.sections)*40 > int64(len(b)) {
		return h, errors.New("section table is cut off")
	}
	for i := range uint32(h.sections) {
		s := b[h.table+i*40:]
		h.end = max(h.end, le.Uint32(s[12:])+le.Uint32(s[8:]))
		if raw := le.Uint32(s[20:]); raw != 0 {
			h.room = min(h.room, raw)
		}
	}
	return h, nil
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

func align(n, a uint32) uint32 { return (n + a - 1) &^ (a - 1) }
