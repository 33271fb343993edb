package image

import (
	"bytes"
	"debug/pe"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/artifact/artifacttest"
)

func TestUKIIsAPEFileWithTheSections(t *testing.T) {
	stub := artifacttest.Stub(1024)
	want := []Section{
		{".osrel", []byte("ID=skerry\n")},
		{".cmdline", []byte("console=ttyS0")},
		{".linux", bytes.Repeat([]byte("kernel"), 5000)},
		{".initrd", bytes.Repeat([]byte{7}, 4096)}, // exactly a page
	}
	out, err := UKI(stub, want)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(stub, out[:len(stub)]) || !bytes.Equal(stub, artifacttest.Stub(1024)) {
		t.Error("the stub that was given is changed, or the image's headers are not")
	}
	f, err := pe.NewFile(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sections) != 1+len(want) {
		t.Fatalf("%d sections, want %d", len(f.Sections), 1+len(want))
	}
	address := uint32(8192) // behind the stub's section, which has a page at 4096
	for i, w := range want {
		s := f.Sections[1+i]
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != w.Name || !bytes.Equal(data[:s.VirtualSize], w.Data) {
			t.Errorf("section %d is %s with %d bytes, want %s with %d", i, s.Name, s.VirtualSize, w.Name, len(w.Data))
		}
		if s.VirtualAddress != address || s.Offset%512 != 0 || s.Size%512 != 0 {
			t.Errorf("section %s is at address %d, file offset %d, size %d; want address %d and multiples of 512", s.Name, s.VirtualAddress, s.Offset, s.Size, address)
		}
		address = align(address+s.VirtualSize, 4096)
	}
	if h := f.OptionalHeader.(*pe.OptionalHeader64); h.SizeOfImage != address || h.CheckSum != 0 {
		t.Errorf("image has size %d and checksum %d, want %d and 0", h.SizeOfImage, h.CheckSum, address)
	}
}

func TestUKIRefusesWhatItCannotDo(t *testing.T) {
	stub := artifacttest.Stub(1024)
	small := artifacttest.Stub(512) // room for two sections beside the stub's own
	pe32 := bytes.Clone(stub)
	pe32[0x80+24] = 0x0b
	pe32[0x80+25] = 0x01
	one := []Section{{".linux", []byte("x")}}
	for _, tt := range []struct {
		name     string
		stub     []byte
		sections []Section
		wrong    string
	}{
		{"empty", nil, one, "not a PE file"},
		{"text", []byte(strings.Repeat("#!/bin/sh\n", 100)), one, "not a PE file"},
		{"32 bit", pe32, one, "not a 64-bit PE file"},
		{"cut off in its headers", stub[:200], one, "not a PE file"},
		{"no room", small, []Section{{".a", []byte("x")}, {".b", []byte("x")}, {".c", []byte("x")}}, "headers end at byte 512"},
		{"long name", stub, []Section{{".cmdline2", []byte("x")}}, "at most 8 bytes"},
		{"nothing in it", stub, []Section{{".linux", nil}}, "at least one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := UKI(tt.stub, tt.sections); err == nil || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("error is %v, want %q", err, tt.wrong)
			}
		})
	}
	if _, err := UKI(small, []Section{{".a", []byte("x")}, {".b", []byte("x")}}); err != nil {
		t.Errorf("two sections fit: %v", err)
	}
}
