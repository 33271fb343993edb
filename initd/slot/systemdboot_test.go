package slot

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

var errPowerCut = errors.New("power cut")

// A fat is the boot partition's folder of images. A rename is on the medium after the next sync; when the power goes before,
// it may be or not. The file's content tells which image it is.
type fat struct {
	files   map[string]string
	durable map[string]string
	// steps counts down with each call; at 0 the power goes, before the call has done anything.
	steps int
}

func newFAT(names ...string) *fat {
	f := &fat{files: map[string]string{}, steps: -1}
	for _, n := range names {
		f.files[n] = n
	}
	f.durable = maps.Clone(f.files)
	return f
}

func (f *fat) step() error {
	if f.steps == 0 {
		return errPowerCut
	}
	f.steps--
	return nil
}

func (f *fat) List(dir string) ([]string, error) {
	if dir != UKIDirectory {
		return nil, fmt.Errorf("no folder %s", dir)
	}
	return slices.Sorted(maps.Keys(f.files)), f.step()
}

func (f *fat) Rename(from, to string) error {
	if err := f.step(); err != nil {
		return err
	}
	from, to = path.Base(from), path.Base(to)
	content, ok := f.files[from]
	if !ok {
		return fmt.Errorf("no file %s", from)
	}
	delete(f.files, from)
	f.files[to] = content
	return nil
}

func (f *fat) Sync() error {
	if err := f.step(); err != nil {
		return err
	}
	f.durable = maps.Clone(f.files)
	return nil
}

// text is the whole folder.
func (f *fat) text() string { return strings.Join(slices.Sorted(maps.Keys(f.files)), " ") }

// bootNext does what systemd-boot does at power-on (boot_entry_compare and config_select_default_entry in its boot.c, for
// images of one version): those without attempts left come last, then the name that is last in the alphabet; an attempt
// is counted in the name before the image is started. It returns the slot.
func (f *fat) bootNext(t *testing.T) Name {
	t.Helper()
	type entry struct {
		file, id   string
		left, done int
	}
	var all []entry
	for file := range f.files {
		e := entry{file: file, left: -1}
		id, counters, counted := strings.Cut(strings.TrimSuffix(file, ".efi"), "+")
		e.id = id
		if counted {
			if n, err := fmt.Sscanf(counters, "%d-%d", &e.left, &e.done); n < 1 {
				t.Fatalf("the boot loader does not understand %s: %v", file, err)
			}
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		t.Fatal("nothing to boot: the machine is a brick")
	}
	slices.SortFunc(all, func(a, b entry) int {
		if (a.left == 0) != (b.left == 0) {
			if a.left == 0 {
				return 1
			}
			return -1
		}
		return strings.Compare(b.id, a.id)
	})
	e := all[0]
	if e.left > 0 {
		content := f.files[e.file]
		delete(f.files, e.file)
		f.files[fmt.Sprintf("%s+%d-%d.efi", e.id, e.left-1, e.done+1)] = content
		f.durable = maps.Clone(f.files)
	}
	return Name(strings.TrimPrefix(e.id, "skerry-"))
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		file string
		want Status
	}{
		{"", Status{}},
		{"skerry-a.efi", Status{Present: true, Good: true}},
		{"skerry-a+3-0.efi", Status{Present: true, Left: 3}},
		{"skerry-a+3.efi", Status{Present: true, Left: 3}},
		{"skerry-a+2-1.efi", Status{Present: true, Left: 2, Done: 1}},
		{"skerry-a+0-3.efi", Status{Present: true, Done: 3}},
		{"skerry-a+10-12.efi", Status{Present: true, Left: 10, Done: 12}},
		{"skerry-b.efi", Status{}},
		{"skerry-a.efi.new", Status{}},
		{"skerry-a+.efi", Status{}},
		{"skerry-a+x-1.efi", Status{}},
		{"skerry-a+1-.efi", Status{}},
		{"skerry-ab.efi", Status{}},
		{"SKERRY~1.EFI", Status{}},
		{"other.efi", Status{}},
	} {
		f := newFAT()
		if c.file != "" {
			f = newFAT(c.file)
		}
		got, err := SystemdBoot{f}.Status(A)
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.file, got, err, c.want)
		}
	}
}

func TestMark(t *testing.T) {
	good := func(s SystemdBoot) error { return s.MarkGood(A) }
	bad := func(s SystemdBoot) error { return s.MarkBad(A) }
	for _, c := range []struct {
		name, before string
		do           func(SystemdBoot) error
		after, fail  string
	}{
		{"first boot", "skerry-a+2-1.efi", good, "skerry-a.efi", ""},
		{"not counted", "skerry-a+3-0.efi", good, "skerry-a.efi", ""},
		{"last attempt", "skerry-a+0-3.efi skerry-b.efi", good, "skerry-a.efi skerry-b.efi", ""},
		{"good already", "skerry-a.efi skerry-b+1-2.efi", good, "skerry-a.efi skerry-b+1-2.efi", ""},
		{"the other one only", "skerry-b+1-2.efi", good, "skerry-b+1-2.efi", "cannot mark slot a: the boot partition has no image for it"},
		{"bad", "skerry-a+2-1.efi skerry-b.efi", bad, "skerry-a+0-1.efi skerry-b.efi", ""},
		{"good one is bad", "skerry-a.efi skerry-b.efi", bad, "skerry-a+0-1.efi skerry-b.efi", ""},
		{"bad already", "skerry-a+0-3.efi", bad, "skerry-a+0-3.efi", ""},
		{"nothing to be bad", "skerry-b.efi", bad, "skerry-b.efi", "cannot mark slot a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFAT(strings.Fields(c.before)...)
			err := c.do(SystemdBoot{f})
			if (err == nil) != (c.fail == "") || (err != nil && !strings.Contains(err.Error(), c.fail)) {
				t.Errorf("error %v, want %q", err, c.fail)
			}
			if f.text() != c.after {
				t.Errorf("the folder has %s, want %s", f.text(), c.after)
			}
			if c.fail == "" && !maps.Equal(f.files, f.durable) {
				t.Error("the change is not on the medium")
			}
		})
	}
}

// TestMarkSurvivesPowerCuts cuts the power before each step of each mark, in every state of both slots, and asks the boot
// loader what it boots then: always a slot that has an image, and never the other one than it would boot before or after
// the mark.
func TestMarkSurvivesPowerCuts(t *testing.T) {
	states := []string{"", "skerry-%s.efi", "skerry-%s+3-0.efi", "skerry-%s+1-2.efi", "skerry-%s+0-3.efi"}
	marks := map[string]func(SystemdBoot, Name) error{
		"good": func(s SystemdBoot, n Name) error { return s.MarkGood(n) },
		"bad":  func(s SystemdBoot, n Name) error { return s.MarkBad(n) },
	}
	cuts := 0
	for _, a := range states {
		for _, b := range states {
			var files []string
			if a != "" {
				files = append(files, fmt.Sprintf(a, "a"))
			}
			if b != "" {
				files = append(files, fmt.Sprintf(b, "b"))
			}
			for name, mark := range marks {
				for _, n := range []Name{A, B} {
					if !slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(f, "skerry-"+string(n)) }) {
						continue
					}
					before := newFAT(files...).bootNext(t)
					done := newFAT(files...)
					if err := mark(SystemdBoot{done}, n); err != nil {
						t.Fatal(err)
					}
					after := done.bootNext(t)
					for step := 0; ; step++ {
						f := newFAT(files...)
						f.steps = step
						err := mark(SystemdBoot{f}, n)
						if err == nil {
							break
						}
						if !errors.Is(err, errPowerCut) {
							t.Fatal(err)
						}
						cuts++
						for _, left := range []map[string]string{f.durable, f.files} {
							machine := &fat{files: maps.Clone(left), steps: -1}
							if got := machine.bootNext(t); got != before && got != after {
								t.Errorf("%v: mark %s %s cut at step %d leaves %v: slot %s is booted, want %s or %s", files, n, name, step, left, got, before, after)
							}
							// The machine that came up does it again, and this time it lasts.
							again := &fat{files: maps.Clone(left), steps: -1}
							if err := mark(SystemdBoot{again}, n); err != nil || !maps.Equal(again.files, again.durable) && len(again.durable) > 0 {
								t.Errorf("%v: mark %s %s again: %v", files, n, name, err)
							}
						}
					}
				}
			}
		}
	}
	if cuts < 100 {
		t.Errorf("only %d cuts", cuts)
	}
}

// TestLives plays whole lives of machines against the simulated boot loader.
func TestLives(t *testing.T) {
	boots := func(f *fat, n int, mark bool) string {
		var out []string
		for range n {
			s := f.bootNext(t)
			if mark {
				if err := (SystemdBoot{f}).MarkGood(s); err != nil {
					t.Fatal(err)
				}
			}
			out = append(out, string(s))
		}
		return strings.Join(out, "")
	}
	for _, c := range []struct {
		name, files string
		healthy     bool
		want, after string
	}{
		{"a new device", "skerry-a+3-0.efi", true, "aaaaa", "skerry-a.efi"},
		{"a new device that never becomes healthy still boots what it has", "skerry-a+3-0.efi", false, "aaaaa", "skerry-a+0-3.efi"},
		{"an upgrade", "skerry-a.efi skerry-b+3-0.efi", true, "bbbbb", "skerry-a.efi skerry-b.efi"},
		{"an upgrade that never becomes healthy falls back", "skerry-a.efi skerry-b+3-0.efi", false, "bbbaa", "skerry-a.efi skerry-b+0-3.efi"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFAT(strings.Fields(c.files)...)
			if got := boots(f, 5, c.healthy); got != c.want || f.text() != c.after {
				t.Errorf("booted %s and left %s; want %s and %s", got, f.text(), c.want, c.after)
			}
		})
	}
}

// A rename that was cut on a FAT whose entries lie in two sectors can leave both names.
func TestTwoNamesOfOneImage(t *testing.T) {
	f := newFAT("skerry-a+2-1.efi", "skerry-a.efi")
	s := SystemdBoot{f}
	if got, err := s.Status(A); err != nil || !got.Good {
		t.Errorf("%+v, %v", got, err)
	}
	if err := s.MarkGood(A); err != nil {
		t.Error(err)
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
