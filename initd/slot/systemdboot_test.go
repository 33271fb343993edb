package slot_test

import (
	"slices"
	"strings"
	"testing"

	. "github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
)

func TestSystemdBoot(t *testing.T) { slottest.Run(t, slottest.NewSystemdBoot) }

// A careless folder is one whose Sync does nothing.
type careless struct{ *slottest.FAT }

func (careless) Sync() error { return nil }

type carelessMachine struct{ slottest.SystemdBoot }

func newCareless(m slottest.Machine) slottest.Machine {
	s := m.(slottest.SystemdBoot)
	s.Dir = careless{s.FAT}
	return carelessMachine{s}
}

func (m carelessMachine) Cut(luck slottest.Luck) slottest.Machine {
	return newCareless(m.SystemdBoot.Cut(luck))
}

// TestSuiteCanFail: the suite must find a mistake that is made on purpose, and what comes of it.
func TestSuiteCanFail(t *testing.T) {
	problems, _ := slottest.Check(func(image string, tries int) slottest.Machine {
		return newCareless(slottest.NewSystemdBoot(image, tries))
	})
	for _, want := range []string{"is not on the medium", "would start the damaged image"} {
		if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("nothing is ever synced, and among %d problems none says %q", len(problems), want)
		}
	}
}

// folder makes a folder of images, whose content is their name.
func folder(names string) *slottest.FAT {
	files := map[string]string{}
	for n := range strings.FieldsSeq(names) {
		content, isEmpty := strings.CutSuffix(n, "=empty")
		if isEmpty {
			files[content] = ""
			continue
		}
		files[n] = n
	}
	return slottest.NewFAT(files)
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		files string
		want  Status
	}{
		{"", Status{}},
		{"skerry-a.efi", Status{Present: true, Good: true}},
		{"skerry-a+3-0.efi", Status{Present: true, Left: 3}},
		{"skerry-a+3.efi", Status{Present: true, Left: 3}},
		{"skerry-a+2-1.efi", Status{Present: true, Left: 2, Done: 1}},
		{"skerry-a+0-3.efi", Status{Present: true, Done: 3}},
		{"skerry-a+10-12.efi", Status{Present: true, Left: 10, Done: 12}},
		{"skerry-17-a.efi", Status{Present: true, Good: true}},
		{"skerry-17-a+2-1.efi", Status{Present: true, Left: 2, Done: 1}},
		{"skerry-b.efi", Status{}},
		{"skerry-1-b.efi", Status{}},
		{"skerry-a.efi.new", Status{}},
		{"skerry-a+.efi", Status{}},
		{"skerry-a+x-1.efi", Status{}},
		{"skerry-a+1-.efi", Status{}},
		{"skerry--a.efi", Status{}},
		{"skerry-ab.efi", Status{}},
		{"SKERRY~1.EFI", Status{}},
		{"other.efi", Status{}},
		// What a cut in the middle of a rename leaves.
		{"skerry-a+2-1.efi skerry-a.efi", Status{Present: true, Good: true}},
		{"skerry-a+2-1.efi skerry-a.efi=empty", Status{Present: true, Left: 2, Done: 1}},
		{"skerry-a+2-1.efi skerry-a+1-2.efi", Status{Present: true, Left: 2, Done: 1}},
	} {
		got, err := SystemdBoot{Dir: folder(c.files)}.Status(A)
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.files, got, err, c.want)
		}
	}
}

func TestChanges(t *testing.T) {
	good := func(s SystemdBoot) error { return s.MarkGood(A) }
	bad := func(s SystemdBoot) error { return s.MarkBad(A) }
	remove := func(s SystemdBoot) error { return s.Remove(A) }
	install := func(s SystemdBoot) error { return s.Install(A, strings.NewReader("image"), 5, 3) }
	short := func(s SystemdBoot) error { return s.Install(A, strings.NewReader("imag"), 5, 3) }
	for _, c := range []struct {
		name, before string
		do           func(SystemdBoot) error
		after, fail  string
	}{
		{"first boot", "skerry-a+2-1.efi", good, "skerry-a.efi", ""},
		{"not counted", "skerry-a+3-0.efi", good, "skerry-a.efi", ""},
		{"last attempt", "skerry-4-a+0-3.efi skerry-3-b.efi", good, "skerry-3-b.efi skerry-4-a.efi", ""},
		{"good already", "skerry-a.efi skerry-b+1-2.efi", good, "skerry-a.efi skerry-b+1-2.efi", ""},
		{"good, cut before", "skerry-a+2-1.efi skerry-a.efi=empty", good, "skerry-a.efi", ""},
		{"the other one only", "skerry-b+1-2.efi", good, "skerry-b+1-2.efi", "cannot mark slot a good: the boot partition has no image for it"},
		{"bad", "skerry-4-a+2-1.efi skerry-b.efi", bad, "skerry-4-a+0-2.efi skerry-b.efi", ""},
		{"good one is bad", "skerry-a.efi skerry-b.efi", bad, "skerry-a+0-1.efi skerry-b.efi", ""},
		{"bad already", "skerry-a+0-3.efi", bad, "skerry-a+0-3.efi", ""},
		{"nothing to be bad", "skerry-b.efi", bad, "skerry-b.efi", "cannot mark slot a"},
		{"all names are bad", "skerry-a+2-1.efi skerry-a.efi skerry-b.efi", bad, "skerry-a+0-2.efi skerry-a+0-3.efi skerry-b.efi", ""},
		{"remove", "skerry-a.efi skerry-1-b.efi", remove, "skerry-1-b.efi", ""},
		{"remove what is left of cuts", "skerry-3-a.efi skerry-a+0-1.efi skerry-3-a+1-0.efi=empty skerry-a.efi.new skerry-b.efi.new skerry-1-b.efi other.efi", remove,
			"other.efi skerry-1-b.efi skerry-b.efi.new", ""},
		{"remove nothing", "skerry-1-b+0-3.efi", remove, "skerry-1-b+0-3.efi", ""},
		{"remove the last", "skerry-a.efi skerry-b.efi=empty", remove, "skerry-a.efi skerry-b.efi", "slot a is the only one that can be booted"},
		{"install", "skerry-a.efi skerry-a.efi.new skerry-b.efi", install, "skerry-1-a+3-0.efi skerry-b.efi", ""},
		{"install after nine", "skerry-8-a.efi skerry-9-b.efi", install, "skerry-10-a+3-0.efi skerry-9-b.efi", ""},
		{"install without another", "skerry-a.efi", install, "skerry-a.efi", "slot a is the only one"},
		{"install what is cut off", "skerry-a.efi skerry-b.efi", short, "skerry-a.efi.new skerry-b.efi", "which now has none: it has 4 bytes instead of 5: unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := folder(c.before)
			err := c.do(SystemdBoot{Dir: f})
			if (err == nil) != (c.fail == "") || (err != nil && !strings.Contains(err.Error(), c.fail)) {
				t.Errorf("error %v, want %q", err, c.fail)
			}
			if f.String() != c.after {
				t.Errorf("the folder has %s, want %s", f, c.after)
			}
			if c.fail == "" && !f.Synced() {
				t.Error("the change is not on the medium")
			}
		})
	}
}

// The model of the boot loader, against what systemd-boot does.
func TestModel(t *testing.T) {
	for _, c := range []struct{ files, boots, after string }{
		{"skerry-a.efi skerry-b.efi", "skerry-b.efi", "skerry-a.efi skerry-b.efi"},
		{"skerry-a+3-0.efi skerry-b.efi", "skerry-b.efi", "skerry-a+3-0.efi skerry-b.efi"},
		{"skerry-1-a+3-0.efi skerry-b.efi", "skerry-1-a+3-0.efi", "skerry-1-a+2-1.efi skerry-b.efi"},
		{"skerry-10-a+1-2.efi skerry-9-b.efi", "skerry-10-a+1-2.efi", "skerry-10-a+0-3.efi skerry-9-b.efi"},
		{"skerry-10-a+0-3.efi skerry-9-b.efi", "skerry-9-b.efi", "skerry-10-a+0-3.efi skerry-9-b.efi"},
		{"skerry-10-a+0-3.efi skerry-9-b+0-1.efi", "skerry-10-a+0-3.efi", "skerry-10-a+0-4.efi skerry-9-b+0-1.efi"},
		{"skerry-100-a.efi skerry-99-b.efi", "skerry-100-a.efi", "skerry-100-a.efi skerry-99-b.efi"},
		{"skerry-a.efi=empty skerry-b+0-1.efi skerry-9-b.efi.new", "skerry-b+0-1.efi", "skerry-9-b.efi.new skerry-a.efi skerry-b+0-2.efi"},
	} {
		f := folder(c.files)
		image, err := f.Boot()
		if err != nil || string(image) != c.boots || f.String() != c.after {
			t.Errorf("%s: booted %s (%v) and left %s; want %s and %s", c.files, image, err, f, c.boots, c.after)
		}
	}
	if image, err := folder("skerry-a.efi=empty readme.txt").Boot(); err == nil {
		t.Errorf("booted %q from nothing", image)
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Name{"a": A, "b": B, "": "", "c": "", "A": "", "ab": ""} {
		if got, err := Parse(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if A.Other() != B || B.Other() != A {
		t.Error("a slot is its own other")
	}
}
