package update_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/skerryos/skerry/initd/slot/slottest"
	. "github.com/skerryos/skerry/initd/update"
	. "github.com/skerryos/skerry/initd/update/updatetest"
)

// A goal is what an operator wants, and how the new version behaves.
type goal struct {
	name string
	// bundle holds version; empty: go back from version, which runs.
	bundle  []byte
	version string
	// dies: the new version does not even reach process 1. unhealthy: it does, and never becomes healthy.
	dies, unhealthy bool
}

// back: the old version runs at the end.
func (g goal) back() bool { return g.dies || g.unhealthy || g.bundle == nil }

// drive plays all processes of a machine, the boot loader and the operator, until the goal is reached. It is all the same
// where it begins.
func (m *machine) drive(g goal, old string) error {
	for range 20 {
		if !m.up {
			if err := m.PowerOn(); err != nil {
				return err
			}
			if g.dies && m.Running.Version == g.version {
				continue
			}
			again, err := m.processOne(g)
			if err != nil {
				return err
			}
			if again {
				continue
			}
			m.up = true
		}
		done, err := m.operate(g, old)
		if err != nil || done {
			return errors.Join(err, m.Check())
		}
		m.up = false
	}
	rec, err := m.updater().Status()
	return fmt.Errorf("no end: version %s runs, %v (%w), boot state %s", m.Running.Version, rec.Upgrade, err, m.Slots)
}

// processOne tells whether the machine must be restarted.
func (m *machine) processOne(g goal) (again bool, err error) {
	u := m.updater()
	verdict, err := u.AtBoot("")
	if err != nil {
		return false, fmt.Errorf("at boot: %w", err)
	}
	switch {
	case verdict == Restart:
		return true, nil
	case verdict == Trial && g.unhealthy:
		return true, u.NoteFailure("containerd did not start")
	}
	if err := u.Commit(); err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	return false, nil
}

// operate tells whether the goal is reached. If not, the machine must be restarted.
func (m *machine) operate(g goal, old string) (done bool, err error) {
	u := m.updater()
	rec, err := u.Status()
	if err != nil {
		return false, err
	}
	up := rec.Upgrade
	switch {
	case up.State == RolledBack && up.Version == g.version && m.Running.Version == old:
		if !g.back() {
			return false, fmt.Errorf("a good version was rolled back: %s", up.Reason)
		}
		if g.unhealthy && up.Reason != "containerd did not start" {
			return false, fmt.Errorf("rolled back for the reason %q", up.Reason)
		}
		return true, nil
	case up.State == Trying || up.State == RolledBack && up.Target == m.Running.Slot:
		return false, nil
	case g.bundle == nil:
		return false, u.Rollback("the operator said so")
	case up.State == Committed && m.Running.Version == g.version:
		if g.back() {
			return false, errors.New("a bad version was committed")
		}
		other, err := m.Slots.Status(m.Running.Slot.Other())
		if err == nil && !other.Good {
			err = errors.New("there is no other slot to go back to")
		}
		return true, err
	case up.State != Written:
		if err := write(u, bytes.NewReader(g.bundle), false); err != nil {
			return false, fmt.Errorf("write: %w", err)
		}
	}
	if err := u.Try(); err != nil {
		return false, fmt.Errorf("try: %w", err)
	}
	return false, nil
}

// An enumeration cuts the power wherever it can be cut.
type enumeration struct {
	random   *rand.Rand
	points   int // moments at which the power was cut
	cuts     int // machines that were left by that
	problems []string
	until    string // a problem with this in it is enough
}

// run drives a machine to its goal. At each step of any medium the power is cut, and what then may be left is driven to the
// goal, too; some of these in turn with cuts at each of their steps, to the given depth.
func (e *enumeration) run(m *machine, g goal, old string, lucks, depth int) {
	try := func(left *machine, how string) {
		if e.found() >= 0 {
			return
		}
		if depth > 1 && e.random.IntN(150) == 0 {
			e.run(left, g, old, 1, depth-1)
			return
		}
		e.cuts++
		state := left.Slots.String()
		if err := left.drive(g, old); err != nil {
			e.problems = append(e.problems, fmt.Sprintf("%s: %s with boot state %s: %v", g.name, how, state, err))
		}
	}
	m.OnStep(func() error {
		e.points++
		for i, luck := range slottest.Lucks(e.random, lucks) {
			try(m.cut(luck), fmt.Sprintf("power cut %d.%d", e.points, i))
		}
		if m.up {
			try(m.dead(), fmt.Sprintf("process ended at %d", e.points))
		}
		return nil
	})
	if err := m.drive(g, old); err != nil {
		e.problems = append(e.problems, fmt.Sprintf("%s: %v", g.name, err))
	}
	m.OnStep(nil)
}

// found is the index of the problem that is enough, or -1.
func (e *enumeration) found() int {
	return slices.IndexFunc(e.problems, func(p string) bool { return e.until != "" && strings.Contains(p, e.until) })
}

// goals lead a device from the factory through its life, each from where the one before has ended.
func goals(t testing.TB) []goal {
	return []goal{
		{name: "upgrade from a to b", version: "2.0.0", bundle: Bundle(t, "2.0.0", Owner, nil)},
		{name: "upgrade from b to a that never becomes healthy", version: "3.0.0", bundle: Bundle(t, "3.0.0", Owner, nil), unhealthy: true},
		{name: "upgrade from b to a that panics", version: "3.0.1", bundle: Bundle(t, "3.0.1", Owner, nil), dies: true},
		{name: "downgrade from b to a", version: "1.5.0", bundle: Bundle(t, "1.5.0", Owner, nil)},
		{name: "back from a to b", version: "1.5.0"},
		{name: "upgrade from b to a after all that", version: "4.0.0", bundle: Bundle(t, "4.0.0", Owner, nil)},
		{name: "upgrade from a to b that panics", version: "4.0.1", bundle: Bundle(t, "4.0.1", Owner, nil), dies: true},
		{name: "upgrade from a to b that never becomes healthy", version: "4.0.2", bundle: Bundle(t, "4.0.2", Owner, nil), unhealthy: true},
	}
}

// TestPowerCuts cuts the power at every step of every medium in the life of a device, in every way that a test can think
// of: the device must always boot something complete, and come to the end that was wanted.
func TestPowerCuts(t *testing.T) {
	for name, loader := range loaders {
		t.Run(name, func(t *testing.T) {
			e := &enumeration{random: rand.New(rand.NewPCG(1, 2))}
			e.live(t, &machine{Device: NewDeviceWith(loader, "1.0.0")}, 4, 2)
			t.Logf("%d cut points, %d machines after a cut: %d problems", e.points, e.cuts, len(e.problems))
			if e.cuts < 5000 {
				t.Errorf("only %d cuts", e.cuts)
			}
		})
	}
}

// live leads a machine through all goals.
func (e *enumeration) live(t *testing.T, m *machine, lucks, depth int) {
	old := "1.0.0"
	for _, g := range goals(t) {
		before := e.cuts
		e.run(m, g, old, lucks, depth)
		t.Logf("%-50s %6d cuts, boot state %s", g.name, e.cuts-before, m.Slots)
		if old = m.Running.Version; old == "1.5.0" {
			old = "2.0.0" // the next goal is to go back
		}
	}
	for _, p := range e.problems[:min(10, len(e.problems))] {
		t.Error(p)
	}
}

// TestRottenCopies destroys one copy of U-Boot's state, or both, at each step of the life of a device: it may forget what it
// was doing, but it must start something complete.
func TestRottenCopies(t *testing.T) {
	m, old, rotten := &machine{Device: NewDeviceWith(slottest.NewUBoot, "1.0.0")}, "1.0.0", 0
	for _, g := range goals(t) {
		m.OnStep(func() error {
			for _, copies := range [][]int{{0}, {1}, {0, 1}} {
				left := m.cut(slottest.AllKept)
				for _, i := range copies {
					left.Slots.(*slottest.UBoot).Sectors.Rot(i)
				}
				rotten++
				state := left.Slots.String()
				if err := left.PowerOn(); err != nil {
					t.Errorf("%s: copies %v are destroyed, %s: %v", g.name, copies, state, err)
				}
			}
			return nil
		})
		if err := m.drive(g, old); err != nil {
			t.Fatalf("%s: %v", g.name, err)
		}
		if old = m.Running.Version; old == "1.5.0" {
			old = "2.0.0"
		}
	}
	t.Logf("%d machines with destroyed copies", rotten)
	if rotten < 1000 {
		t.Errorf("only %d machines", rotten)
	}
}

// TestPowerCutsFindMistakes: an enumeration that finds nothing must be known to be able to.
func TestPowerCutsFindMistakes(t *testing.T) {
	for _, c := range []struct {
		name, until string
		plant       func(*machine)
	}{
		{"the root partition is not synced before the boot image is installed", "slot b can be booted, but its root partition is not version 2.0.0", func(m *machine) {
			for _, r := range m.Roots {
				r.NoSync = true
			}
		}},
		{"the boot image is not synced where it waits", "is damaged", func(m *machine) { m.Scratch.NoSync = true }},
		{"what boots a slot stays while its root partition is overwritten", "slot a can be booted, but its root partition is not version 1.0.0",
			func(m *machine) { m.keepImage = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &enumeration{random: rand.New(rand.NewPCG(1, 2)), until: c.until}
			m := factory("1.0.0")
			c.plant(m)
			e.run(m, goal{name: "to b", version: "2.0.0", bundle: Bundle(t, "2.0.0", Owner, nil)}, "1.0.0", 1, 1)
			e.run(m, goal{name: "to a", version: "3.0.0", bundle: Bundle(t, "3.0.0", Owner, nil)}, "2.0.0", 1, 1)
			i := e.found()
			if i < 0 {
				t.Fatalf("%d cuts have shown %d problems, and none of them is: %s", e.cuts, len(e.problems), c.until)
			}
			t.Logf("found by cut %d: %s", e.cuts, e.problems[i])
		})
	}
}
