// Package slottest has what a test needs to cut the power of a machine: a suite for every [slot.Backend], a boot partition
// that forgets what was not made durable, and a model of the boot loader.
package slottest

import "math/rand/v2"

// A Fate is what becomes of a write that was not made durable before the power went.
type Fate int

// The fates.
const (
	Lost Fate = iota
	Torn      // a part of it is on the medium
	Kept
)

// A Luck decides the fate of the i-th of n writes that were not made durable. Media that order their writes lose all that
// comes after one that is lost.
type Luck func(i, n int) Fate

// AllKept is the luck of a machine that is switched off in peace.
func AllKept(int, int) Fate { return Kept }

// Lucks are the cases that break things, and some that are random.
func Lucks(random *rand.Rand, some int) []Luck {
	all := []Luck{
		AllKept,
		func(int, int) Fate { return Lost },
		func(i, n int) Fate { // everything but the last, which is torn
			if i == n-1 {
				return Torn
			}
			return Kept
		},
		func(i, n int) Fate { // the last overtook all others
			if i == n-1 {
				return Kept
			}
			return Lost
		},
		func(i, _ int) Fate { // all overtook the first
			if i == 0 {
				return Lost
			}
			return Kept
		},
	}
	for range some {
		a, b := random.Uint64(), random.Uint64()
		all = append(all, func(i, _ int) Fate {
			return Fate(rand.New(rand.NewPCG(a+uint64(i), b)).IntN(3)) // the same for the same write
		})
	}
	return all
}
