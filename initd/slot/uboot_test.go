package slot_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
)

func TestUBoot(t *testing.T) { slottest.Run(t, slottest.NewUBoot) }

// A hasty disk is one whose Sync does nothing.
type hasty struct{ *slottest.FAT }

func (hasty) Sync() error { return nil }

type hastyMachine struct{ *slottest.UBoot }

func newHasty(m *slottest.UBoot) slottest.Machine {
	m.UBoot.Volume = hasty{m.FAT}
	return hastyMachine{m}
}

func (m hastyMachine) Cut(luck slottest.Luck) slottest.Machine { return newHasty(m.CutUBoot(luck)) }

// A reckless disk writes each change to both copies.
type reckless struct{ *slottest.Sectors }

func (r reckless) WriteAt(p []byte, _ int64) (int, error) {
	_, err0 := r.Sectors.WriteAt(p, UBootSector*SectorSize)
	_, err1 := r.Sectors.WriteAt(p, (UBootSector+1)*SectorSize)
	return len(p), errors.Join(err0, err1)
}

type recklessMachine struct{ *slottest.UBoot }

func newReckless(m *slottest.UBoot) slottest.Machine {
	m.UBoot.Disk = reckless{m.Sectors}
	return recklessMachine{m}
}

func (m recklessMachine) Cut(luck slottest.Luck) slottest.Machine {
	return newReckless(m.CutUBoot(luck))
}

// TestUBootSuiteCanFail: the suite must find mistakes that are made on purpose.
func TestUBootSuiteCanFail(t *testing.T) {
	for _, c := range []struct {
		name, want string
		make       func(*slottest.UBoot) slottest.Machine
	}{
		{"the boot partition is never synced", "the change is not on the medium", newHasty},
		{"the newest copy is written over", "is the newest, and must not be written over", newReckless},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems, _ := slottest.Check(func(image string, tries int) slottest.Machine {
				return c.make(slottest.NewUBoot(image, tries).(*slottest.UBoot))
			})
			if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, c.want) }) {
				t.Errorf("among %d problems none says %q", len(problems), c.want)
			}
		})
	}
}

// life brings a machine to a state by calls of the backend and boots.
func life(t *testing.T, calls string) *slottest.UBoot {
	t.Helper()
	m := slottest.NewUBoot("image a", 3).(*slottest.UBoot)
	for call := range strings.SplitSeq(calls, ", ") {
		if err := do(m, call); err != nil {
			t.Fatalf("%s in %q: %v", call, calls, err)
		}
	}
	return m
}

func do(m *slottest.UBoot, call string) error {
	verb, n, _ := strings.Cut(call, " ")
	switch verb {
	case "":
		return nil
	case "boot":
		_, err := m.Boot()
		return err
	case "good":
		return m.MarkGood(Name(n))
	case "bad":
		return m.MarkBad(Name(n))
	case "recount":
		return m.Recount(Name(n), 16)
	case "remove":
		return m.Remove(Name(n))
	case "install":
		image := "image " + n
		return m.Install(Name(n), strings.NewReader(image), int64(len(image)), 3)
	case "short":
		return m.Install(Name(n), strings.NewReader("image"), 7, 3)
	case "rot":
		for i := range slottest.Copies {
			if n == "both" || n == fmt.Sprint(i) {
				m.Sectors.Rot(i)
			}
		}
	case "lose":
		for _, file := range []string{"start.scr", "kernel"} {
			if err := m.FAT.Remove(n + "/" + file); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("no call %q", call)
	}
	return nil
}

// TestUBootStates shows the state after calls, which slot is booted then, and the state after that.
func TestUBootStates(t *testing.T) {
	for _, c := range []struct{ calls, state, boots, after string }{
		{"", "copy 1, number 2: a-0 (3, 0 made)", "a", "copy 0, number 3: a-0 (2, 1 made)"},
		{"boot, boot, boot", "copy 0, number 5: a-0 (0, 3 made)", "a", "copy 0, number 5: a-0 (0, 3 made)"},
		{"good a", "copy 0, number 3: a-0 (good, 0 made)", "a", "copy 0, number 3: a-0 (good, 0 made)"},
		{"boot, good a, good a", "copy 1, number 4: a-0 (good, 0 made)", "a", "copy 1, number 4: a-0 (good, 0 made)"},
		{"good a, install b", "copy 1, number 4: b-0 (3, 0 made) a-0 (good, 0 made)", "b", "copy 0, number 5: b-0 (2, 1 made) a-0 (good, 0 made)"},
		{"good a, install b, boot, boot, boot", "copy 0, number 7: b-0 (0, 3 made) a-0 (good, 0 made)", "a", "copy 0, number 7: b-0 (0, 3 made) a-0 (good, 0 made)"},
		{"good a, install b, boot, bad b", "copy 1, number 6: b-0 (0, 1 made) a-0 (good, 0 made)", "a", "copy 1, number 6: b-0 (0, 1 made) a-0 (good, 0 made)"},
		{"good a, install b, good b, install a", "copy 0, number 7: a-1 (3, 0 made) b-0 (good, 0 made)", "a", "copy 1, number 8: a-1 (2, 1 made) b-0 (good, 0 made)"},
		{"good a, install b, install b", "copy 1, number 6: b-1 (3, 0 made) a-0 (good, 0 made)", "b", "copy 0, number 7: b-1 (2, 1 made) a-0 (good, 0 made)"},
		{"good a, remove b", "copy 0, number 3: a-0 (good, 0 made)", "a", "copy 0, number 3: a-0 (good, 0 made)"},
		{"good a, install b, remove b", "copy 0, number 5: a-0 (good, 0 made)", "a", "copy 0, number 5: a-0 (good, 0 made)"},
		{"good a, install b, good b, bad a, bad b", "copy 0, number 7: b-0 (0, 0 made) a-0 (0, 0 made)", "b", "copy 0, number 7: b-0 (0, 0 made) a-0 (0, 0 made)"},
		// A damaged copy costs the last change; the next change replaces it.
		{"good a, rot 1", "copy 0, number 3: a-0 (good, 0 made)", "a", "copy 0, number 3: a-0 (good, 0 made)"},
		{"good a, rot 0", "copy 1, number 2: a-0 (3, 0 made)", "a", "copy 0, number 3: a-0 (2, 1 made)"},
		{"good a, install b, rot 1, boot", "copy 0, number 3: a-0 (good, 0 made)", "a", "copy 0, number 3: a-0 (good, 0 made)"},
		{"rot both", "no valid copy, a-0 a-0/board.dtb a-0/initramfs a-0/kernel a-0/start.scr", "a", "no valid copy, a-0 a-0/board.dtb a-0/initramfs a-0/kernel a-0/start.scr"},
		{"good a, install b, rot both, good a, install b", "copy 1, number 2: b-0 (3, 0 made) a-0 (good, 0 made)", "b", "copy 0, number 3: b-0 (2, 1 made) a-0 (good, 0 made)"},
		// So do files that are missing.
		{"good a, install b, lose b-0", "copy 1, number 4: b-0 (3, 0 made) a-0 (good, 0 made), b-0 is not complete", "a",
			"copy 0, number 5: b-0 (2, 1 made) a-0 (good, 0 made), b-0 is not complete"},
		{"good a, install b, good b, lose b-0, install b", "copy 0, number 7: b-1 (3, 0 made) a-0 (good, 0 made)", "b", "copy 1, number 8: b-1 (2, 1 made) a-0 (good, 0 made)"},
	} {
		m := life(t, c.calls)
		if m.String() != c.state || !m.Synced() && !strings.Contains(c.calls, "lose") {
			t.Errorf("%s: %s, synced %v; want %s", c.calls, m, m.Synced(), c.state)
		}
		image, err := m.Boot()
		if err != nil || string(image) != "image "+c.boots || m.String() != c.after {
			t.Errorf("%s: boots %q (%v) and leaves %s; want slot %s and %s", c.calls, image, err, m, c.boots, c.after)
		}
	}
}

func TestUBootStatus(t *testing.T) {
	for _, c := range []struct{ calls, want string }{
		{"", "a: {Present:true Good:false Left:3 Done:0}, b: {Present:false Good:false Left:0 Done:0}, counted false"},
		{"boot", "a: {Present:true Good:false Left:2 Done:1}, b: {Present:false Good:false Left:0 Done:0}, counted true"},
		{"good a", "a: {Present:true Good:true Left:0 Done:0}, b: {Present:false Good:false Left:0 Done:0}, counted false"},
		{"boot, bad a, install b", "a: {Present:true Good:false Left:0 Done:1}, b: {Present:true Good:false Left:3 Done:0}, counted true"},
		{"good a, install b, lose b-0", "a: {Present:true Good:true Left:0 Done:0}, b: {Present:false Good:false Left:0 Done:0}, counted false"},
		{"boot, good a, install b, rot both", "a: {Present:true Good:true Left:0 Done:0}, b: {Present:true Good:true Left:0 Done:0}, counted false"},
		{"boot, good a, rot both, boot, recount a", "a: {Present:true Good:false Left:16 Done:0}, b: {Present:false Good:false Left:0 Done:0}, counted false"},
		{"boot, good a, rot both, boot, recount a, boot, good a", "a: {Present:true Good:true Left:0 Done:0}, b: {Present:false Good:false Left:0 Done:0}, counted true"},
		{"boot, good a, install b, boot, recount b", "a: {Present:true Good:true Left:0 Done:0}, b: {Present:true Good:false Left:2 Done:1}, counted true"},
	} {
		m := life(t, c.calls)
		a, errA := m.Status(A)
		b, errB := m.Status(B)
		counted, errC := m.Counted()
		got := fmt.Sprintf("a: %+v, b: %+v, counted %v", a, b, counted)
		if err := errors.Join(errA, errB, errC); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.calls, got, err, c.want)
		}
	}
}

func TestUBootRefuses(t *testing.T) {
	for _, c := range []struct{ calls, call, fail, after string }{
		{"", "remove a", "cannot remove the boot image of slot a: slot a is the only one that can be booted; it was left as it is", "copy 1, number 2: a-0 (3, 0 made)"},
		{"", "install a", "slot a is the only one", "copy 1, number 2: a-0 (3, 0 made)"},
		{"", "good b", "cannot mark slot b good: the boot partition has no image for it", "copy 1, number 2: a-0 (3, 0 made)"},
		{"", "bad b", "cannot mark slot b bad: the boot partition has no image for it", "copy 1, number 2: a-0 (3, 0 made)"},
		{"good a, install b", "short b", "cannot install the boot image of slot b, which now has none: it has ", "copy 0, number 5: a-0 (good, 0 made)"},
		{"good a, install b, lose b-0", "remove a", "slot a is the only one", "copy 1, number 4: b-0 (3, 0 made) a-0 (good, 0 made), b-0 is not complete"},
	} {
		m := life(t, c.calls)
		if err := do(m, c.call); err == nil || !strings.Contains(err.Error(), c.fail) || m.String() != c.after {
			t.Errorf("%s, %s: %v leaves %s; want %q and %s", c.calls, c.call, err, m, c.fail, c.after)
		}
	}
}

// TestUBootImage: what comes from outside is unpacked only where it belongs.
func TestUBootImage(t *testing.T) {
	file := func(name, content string) *tar.Header {
		return &tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content)), Uname: content}
	}
	start := file("start.scr", "start")
	many := []*tar.Header{}
	for i := range 300 {
		many = append(many, file(fmt.Sprint(i), "x"))
	}
	for _, c := range []struct {
		name  string
		files []*tar.Header // content in Uname
		after string        // b-0's files
		fail  string
	}{
		{"good", []*tar.Header{file("kernel", "k"), file("bcm2710-rpi-3-b.dtb", "d"), start}, "b-0 b-0/bcm2710-rpi-3-b.dtb b-0/kernel b-0/start.scr", ""},
		{"upwards", []*tar.Header{file("../kernel", "k"), start}, "", `its file "../kernel" is not a plain file`},
		{"dots", []*tar.Header{file("..", "k"), start}, "", `its file ".." is not a plain file`},
		{"absolute", []*tar.Header{file("/kernel", "k"), start}, "", `its file "/kernel" is not a plain file`},
		{"in a folder", []*tar.Header{file("overlays/x.dtbo", "k"), start}, "", "is not a plain file"},
		{"capitals", []*tar.Header{file("kernel", "k"), file("KERNEL", "k"), start}, "", `its file "KERNEL" is not a plain file`},
		{"a link", []*tar.Header{{Name: "kernel", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, start}, "", "is not a plain file"},
		{"a folder", []*tar.Header{{Name: "kernel", Typeflag: tar.TypeDir}, start}, "", "is not a plain file"},
		{"twice", []*tar.Header{file("kernel", "k"), file("kernel", "k"), start}, "", "it has two files kernel"},
		{"empty", []*tar.Header{file("kernel", ""), start}, "", "its file kernel cannot have 0 bytes"},
		{"no start script", []*tar.Header{file("kernel", "k")}, "", "it has no file start.scr"},
		{"start script first", []*tar.Header{start, file("kernel", "k")}, "", "its file kernel is behind start.scr, which must be the last one"},
		{"many", many, "", "it has more than 256 files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var archive bytes.Buffer
			w := tar.NewWriter(&archive)
			for _, f := range c.files {
				h := *f
				h.Uname = ""
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
				if f.Typeflag == tar.TypeReg {
					fmt.Fprint(w, f.Uname)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			m := life(t, "good a")
			err := m.UBoot.Install(B, &archive, int64(archive.Len()), 3)
			if (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
				t.Errorf("error %v, want %q", err, c.fail)
			}
			want := strings.TrimSuffix("a-0 a-0/board.dtb a-0/initramfs a-0/kernel a-0/start.scr "+c.after, " ")
			if m.FAT.String() != want || !m.Synced() {
				t.Errorf("the boot partition has %s, synced %v; want %s", m.FAT, m.Synced(), want)
			}
		})
	}
}
