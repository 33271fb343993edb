package slottest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/skerryos/skerry/initd/slot"
)

// A Machine is a boot loader, the medium that it keeps its state on, and the backend under test.
type Machine interface {
	slot.Backend
	// Boot does what the boot loader does at power-on, and returns the image that it starts. Boot loaders that write without
	// a file system have steps, too.
	Boot() ([]byte, error)
	// Images are those that the boot loader takes on its own account: they are good or have attempts left.
	Images() [][]byte
	// OnStep sets a function that is called before each change of the medium, and before it is made durable. When it returns
	// an error nothing is done. A cut before a read leaves what one before the next change leaves.
	OnStep(func() error)
	// Cut is the machine after a power cut now. The machine itself goes on.
	Cut(Luck) Machine
	// Synced tells whether all is on the medium.
	Synced() bool
	// String is the boot state as people read it.
	String() string
}

// lives are what machines do, after a first boot from the factory with two attempts: good, bad, remove and install are
// the backend's; "no" before them means that they must refuse; boot is followed by the slot that the boot loader must take.
var lives = map[string]string{
	"a new device": "boot a, good a, boot a, boot a, boot a",
	"a new device that never becomes healthy still boots what it has": "boot a, boot a, boot a",
	"an upgrade":                              "good a, install b, boot b, good b, boot b, boot b, boot b",
	"an upgrade that never becomes healthy":   "good a, install b, boot b, boot b, boot a, boot a",
	"an upgrade that becomes healthy at last": "good a, install b, boot b, boot b, good b, boot b",
	"upgrades to and fro": "good a, install b, boot b, good b, install a, boot a, good a, boot a, install b, boot b, good b, boot b, install a, boot a, good a, " +
		"install b, good b, install a, good a, install b, good b, install a, good a, install b, good b, boot b, install a, boot a, good a, boot a",
	"a failed upgrade to slot a":    "good a, install b, boot b, good b, install a, boot a, boot a, boot b, boot b",
	"an upgrade after a failed one": "good a, install b, boot b, boot b, boot a, install b, boot b, good b, boot b",
	"back to the old slot":          "good a, install b, boot b, good b, bad b, boot a, boot a",
	"back to the old slot a":        "good a, install b, boot b, good b, install a, boot a, good a, bad a, boot b, install a, boot a, good a, boot a",
	"given up early":                "good a, install b, boot b, bad b, boot a",
	"the last one is not removed":   "no remove a, good a, no remove a, install b, remove b, no remove a, boot a",
	"removed before it is written":  "good a, remove b, boot a, install b, boot b, good b, remove a, boot b, remove a, install a, boot a",
	"a bad one may be all there is": "good a, install b, boot b, good b, bad a, bad b, boot b",
	"marks of what is not there":    "no good b, no bad b, good a, boot a",
	"marks twice":                   "good a, good a, install b, good b, good b, bad a, bad a, boot b, good a, boot b",
}

// firstTries are the attempts that an image is installed with.
const firstTries = 2

// Run holds a backend against what all of them promise, and cuts the power at each step of each call. make is a machine as
// the factory makes it, with one image, in slot a.
func Run(t *testing.T, make func(image string, tries int) Machine) {
	problems, cuts := Check(make)
	for _, p := range problems {
		t.Error(p)
	}
	t.Logf("%d power cuts", cuts)
	if cuts < 1000 {
		t.Errorf("only %d power cuts", cuts)
	}
}

// Check is Run without a test: it returns what is wrong, and how many power cuts there were.
func Check(make func(image string, tries int) Machine) (problems []string, cuts int) {
	p := &player{random: rand.New(rand.NewPCG(1, 2))}
	for _, name := range slices.Sorted(maps.Keys(lives)) {
		if err := p.play(make(p.image("a"), firstTries+1), lives[name]); err != nil {
			p.problems = append(p.problems, fmt.Sprintf("%s: %v", name, err))
		}
	}
	return p.problems, p.cuts
}

// A player plays lives.
type player struct {
	made     int // images so far; each is unlike all others
	random   *rand.Rand
	cuts     int
	problems []string
}

// A call is a call of the backend.
type call struct {
	name string // as in lives
	do   func(slot.Backend) error
}

func (p *player) image(n slot.Name) string {
	p.made++
	return strings.Repeat(fmt.Sprintf("%s %d ", n, p.made), 8)
}

func (p *player) call(verb string, n slot.Name) call {
	c := call{name: verb + " " + string(n)}
	switch verb {
	case "good":
		c.do = func(b slot.Backend) error { return b.MarkGood(n) }
	case "bad":
		c.do = func(b slot.Backend) error { return b.MarkBad(n) }
	case "remove":
		c.do = func(b slot.Backend) error { return b.Remove(n) }
	case "install":
		image := p.image(n)
		c.do = func(b slot.Backend) error {
			return b.Install(n, strings.NewReader(image), int64(len(image)), firstTries)
		}
	}
	return c
}

// play plays a life to its end or to the first thing that is wrong. What is wrong after power cuts is added to the
// problems, and the life goes on.
func (p *player) play(m Machine, life string) error {
	for _, line := range strings.Split(life, ", ") {
		rest, refuse := strings.CutPrefix(line, "no ")
		verb, n, _ := strings.Cut(rest, " ")
		before := m.String()
		if verb == "boot" {
			if err := p.cutBoot(m); err != nil {
				return err
			}
			if got, err := boot(m); err != nil || got != n {
				return fmt.Errorf("%s in %s: the boot loader took %q (%v) and left %s", line, before, got, err, m)
			}
			continue
		}
		c := p.call(verb, slot.Name(n))
		if !refuse {
			if err := p.cut(m, c); err != nil {
				return err
			}
		}
		if err := c.do(m); (err != nil) != refuse {
			return fmt.Errorf("%s in %s: error %v", line, before, err)
		}
		if refuse && m.String() != before {
			return fmt.Errorf("%s: refused, but changed %s to %s", line, before, m)
		}
		if !m.Synced() {
			p.problems = append(p.problems, fmt.Sprintf("%s in %s: the change is not on the medium", line, before))
		}
	}
	return nil
}

// boot returns the slot that the boot loader takes. It is an error if one that it might take is damaged.
func boot(m Machine) (string, error) {
	image, err := m.Boot()
	if err != nil {
		return "", err
	}
	for _, i := range append(m.Images(), image) {
		var n string
		var number int
		if _, err := fmt.Sscanf(string(i), "%s %d ", &n, &number); err != nil || string(i) != strings.Repeat(fmt.Sprintf("%s %d ", n, number), 8) {
			return "", fmt.Errorf("the boot loader would start the damaged image %q", i)
		}
	}
	return string(image[:1]), nil
}

var errCut = errors.New("power cut")

// cut makes the call on copies of the machine, and cuts the power before each step. What is left must boot what would have
// been booted before or after it, nothing that could be booted may be damaged, and the call made again must lead to the
// same end.
func (p *player) cut(m Machine, c call) error {
	before, err := boot(m.Cut(AllKept))
	if err != nil {
		return fmt.Errorf("before %s: %w", c.name, err)
	}
	done := m.Cut(AllKept)
	if err := c.do(done); err != nil {
		return fmt.Errorf("%s in %s: %w", c.name, m, err)
	}
	after, err := boot(done.Cut(AllKept))
	if err != nil {
		return fmt.Errorf("after %s in %s: %w", c.name, m, err)
	}
	for step := 0; ; step++ {
		n, left := step, m.Cut(AllKept)
		left.OnStep(func() error {
			if n == 0 {
				return errCut
			}
			n--
			return nil
		})
		err := c.do(left)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errCut) {
			return fmt.Errorf("%s in %s, cut at step %d: %w", c.name, m, step, err)
		}
		for _, luck := range Lucks(p.random, 4) {
			p.cuts++
			if err := leaves(left.Cut(luck), c, before, after); err != nil {
				p.problems = append(p.problems, fmt.Sprintf("%s in %s, cut at step %d: %v", c.name, m, step, err))
			}
		}
	}
}

// cutBoot cuts the power before each step of the boot loader. What is left must boot what would have been booted now, or the
// next time.
func (p *player) cutBoot(m Machine) error {
	sound := m.Cut(AllKept)
	now, err := boot(sound)
	if err != nil {
		return err
	}
	next, err := boot(sound)
	if err != nil {
		return err
	}
	for step := 0; ; step++ {
		n, left := step, m.Cut(AllKept)
		left.OnStep(func() error {
			if n == 0 {
				return errCut
			}
			n--
			return nil
		})
		_, err := left.Boot()
		if err == nil {
			return nil
		}
		if !errors.Is(err, errCut) {
			return fmt.Errorf("boot in %s, cut at step %d: %w", m, step, err)
		}
		for _, luck := range Lucks(p.random, 4) {
			p.cuts++
			left := left.Cut(luck)
			state := left.String()
			if got, err := boot(left); err != nil || (got != now && got != next) {
				p.problems = append(p.problems, fmt.Sprintf("boot in %s, cut at step %d: %s is left, and slot %q is booted (%v), want %s or %s",
					m, step, state, got, err, now, next))
			}
		}
	}
}

// leaves checks what a cut has left.
func leaves(m Machine, c call, before, after string) error {
	state := m.String()
	if got, err := boot(m.Cut(AllKept)); err != nil || (got != before && got != after) {
		return fmt.Errorf("%s is left, and slot %q is booted (%w), want %s or %s", state, got, err, before, after)
	}
	if err := c.do(m); err != nil {
		return fmt.Errorf("%s is left, and doing it again fails: %w", state, err)
	}
	if got, err := boot(m); err != nil || got != after || !m.Synced() {
		return fmt.Errorf("%s is left, and when it is done again slot %q is booted (%w), want %s", state, got, err, after)
	}
	return nil
}
