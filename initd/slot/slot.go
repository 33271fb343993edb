// Package slot keeps the A/B state of the machine: which slot was booted, which one the boot loader will take next, and
// how many attempts it has left. Each boot loader has its own file here, behind one interface.
//
// Nothing else touches boot state. Every change is a single atomic step of the medium (a rename, a sector), made
// durable before the call returns, so that at any moment a power cut leaves a machine that boots.
package slot

import (
	"fmt"
	"io"
)

// A Name is "a" or "b".
type Name string

// The two slots.
const (
	A Name = "a"
	B Name = "b"
)

// Parse reads a slot's name as it stands on the kernel command line.
func Parse(s string) (Name, error) {
	switch n := Name(s); n {
	case A, B:
		return n, nil
	}
	return "", fmt.Errorf("slot %q is neither a nor b", s)
}

// Other is the slot that n is not.
func (n Name) Other() Name {
	if n == A {
		return B
	}
	return A
}

// A Status is what the boot loader thinks of a slot.
type Status struct {
	// Present: the slot has something to boot.
	Present bool
	// Good: it was marked good, and is booted without counting.
	Good bool
	// Left and Done are the attempts of a slot that is not good yet.
	Left, Done int
}

// Bootable tells whether the boot loader would take the slot on its own account: it is good or has attempts left.
func (s Status) Bootable() bool { return s.Present && (s.Good || s.Left > 0) }

// A Backend is the state of one boot loader. Whichever slot was installed last is the one that is booted, as long as it is
// good or has attempts left; after that comes the other one under the same condition. When neither is, the boot loader still
// takes what there is.
//
// An upgrade calls Remove, then overwrites the slot's root partition, then Install; the boot loader counts the attempts
// down; the booted system calls MarkGood when it works.
type Backend interface {
	// Status reads the state of a slot.
	Status(Name) (Status, error)
	// MarkGood says that the slot works: it is booted from now on without counting. Marking a good slot changes nothing.
	MarkGood(Name) error
	// MarkBad says that the slot is not to be booted while there is another one.
	MarkBad(Name) error
	// Remove takes away what boots the slot. It must be called before the slot's root partition is overwritten, or there
	// would be something to boot that has no root file system. It refuses when the other slot has nothing to boot.
	// Removing again changes nothing.
	Remove(Name) error
	// Install puts the boot image of the slot, size bytes, where the boot loader looks for it, with that many tries, and
	// before the other slot. The slot's root partition must be complete and on the medium. A former image of the slot is
	// removed first. When Install fails or is cut, the slot has nothing to boot, or all of it.
	Install(n Name, image io.Reader, size int64, tries int) error
}

// requireOther is what every backend asks before it takes away what boots a slot.
func requireOther(b Backend, n Name) error {
	other, err := b.Status(n.Other())
	if err != nil {
		return err
	}
	if !other.Present {
		return fmt.Errorf("slot %s is the only one that can be booted; it was left as it is", n)
	}
	return nil
}
