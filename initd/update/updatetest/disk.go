package updatetest

import (
	"bytes"
	"fmt"
	"io/fs"

	"github.com/skerryos/skerry/initd/slot/slottest"
)

const sector = 512

// A Disk is a medium that forgets what was not synced, sector by sector, and in any order.
type Disk struct {
	// Now is what is read, Capacity the size that it tells.
	Now      []byte
	Capacity int64
	// OnStep, if set, is called before each write and sync. When it returns an error nothing is done.
	OnStep func() error
	// NoSync is a planted mistake: nothing is ever on the medium for certain.
	NoSync bool

	medium  []byte
	pending []int64 // sectors, in the order in which they were written
}

// NewDisk makes a disk.
func NewDisk(content []byte, capacity int64) *Disk {
	b := make([]byte, capacity)
	copy(b, content)
	return &Disk{Now: b, medium: bytes.Clone(b), Capacity: capacity}
}

func (d *Disk) step() error {
	if d.OnStep == nil {
		return nil
	}
	return d.OnStep()
}

// ReadAt implements [io.ReaderAt].
func (d *Disk) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(d.Now).ReadAt(p, at) }

// WriteAt implements [io.WriterAt].
func (d *Disk) WriteAt(p []byte, at int64) (int, error) {
	if err := d.step(); err != nil {
		return 0, err
	}
	if at < 0 || at+int64(len(p)) > d.Capacity {
		return 0, fmt.Errorf("%d bytes at %d are outside of the medium", len(p), at)
	}
	copy(d.Now[at:], p)
	for s := at / sector; s*sector < at+int64(len(p)); s++ {
		d.pending = append(d.pending, s)
	}
	return len(p), nil
}

// Sync makes what is read what is on the medium.
func (d *Disk) Sync() error {
	if err := d.step(); err != nil {
		return err
	}
	if !d.NoSync {
		copy(d.medium, d.Now)
		d.pending = nil
	}
	return nil
}

// Size is the capacity.
func (d *Disk) Size() int64 { return d.Capacity }

// Close does nothing.
func (*Disk) Close() error { return nil }

// Cut is the medium after a power cut.
func (d *Disk) Cut(luck slottest.Luck) *Disk {
	left := bytes.Clone(d.medium)
	for i, s := range d.pending {
		end := (s + 1) * sector
		switch luck(i, len(d.pending)) {
		case slottest.Lost:
			continue
		case slottest.Torn:
			end -= sector / 2
		}
		end = min(end, d.Capacity)
		copy(left[s*sector:end], d.Now[s*sector:end])
	}
	return &Disk{Now: left, medium: bytes.Clone(left), Capacity: d.Capacity, NoSync: d.NoSync}
}

// Dead is the medium after the end of the process that wrote to it.
func (d *Disk) Dead() *Disk {
	return &Disk{Now: bytes.Clone(d.Now), medium: bytes.Clone(d.medium), pending: append([]int64(nil), d.pending...), Capacity: d.Capacity, NoSync: d.NoSync}
}

// A File is one that is replaced in one step.
type File struct {
	Now []byte
	// OnStep, if set, is called before and after the new content is on its way.
	OnStep func() error
	next   []byte
}

// Load returns the file.
func (s *File) Load() ([]byte, error) {
	if s.Now == nil {
		return nil, fs.ErrNotExist
	}
	return s.Now, nil
}

// Save replaces the file.
func (s *File) Save(data []byte) error {
	if s.OnStep != nil {
		if err := s.OnStep(); err != nil {
			return err
		}
		s.next = data
		if err := s.OnStep(); err != nil {
			return err
		}
	}
	s.Now, s.next = bytes.Clone(data), nil
	return nil
}

// Cut is the file after a power cut.
func (s *File) Cut(luck slottest.Luck) *File {
	if s.next != nil && luck(0, 1) == slottest.Kept {
		return &File{Now: bytes.Clone(s.next)}
	}
	return &File{Now: bytes.Clone(s.Now)}
}
