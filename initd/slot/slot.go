// Package slot keeps the A/B state of the machine: which slot was booted, which one the boot loader will take next, and
// how many attempts it has left. Each boot loader has its own file here, behind one interface.
//
// Nothing else touches boot state. Every change is a single atomic step of the medium (a rename, a sector), made
// durable before the call returns, so that at any moment a power cut leaves a machine that boots.
package slot

import "fmt"

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

// A Backend is the state of one boot loader.
type Backend interface {
	// Status reads the state of a slot.
	Status(Name) (Status, error)
	// MarkGood says that the slot works: it is booted from now on without counting. Marking a good slot changes nothing.
	MarkGood(Name) error
	// MarkBad says that the slot is not to be booted while there is another one.
	MarkBad(Name) error
}
