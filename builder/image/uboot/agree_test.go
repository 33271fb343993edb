package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
)

// pi3 is a Raspberry Pi 3, as far as scripts go.
var (
	pi3Chooser = Chooser{State0: 0x2500000, State1: 0x2510000, Script: 0x2520000}
	pi3Starter = Starter{
		Command: "booti", Kernel: 0x200000, DeviceTree: 0x6100000, Initramfs: 0x6200000, Unpacked: 0xa000000, UnpackedSize: 0x2800000,
		DeviceTrees: []DeviceTree{{"broadcom/bcm2837-rpi-3-a-plus.dtb", "other.dtb"}, {"broadcom/bcm2837-rpi-3-b.dtb", "board.dtb"}},
		Arguments:   "console=ttyS1,115200 panic=10",
	}
)

// scripts are boot script and start script.
func scripts(t *testing.T) (boot, start []byte) {
	t.Helper()
	boot, err := BootScript(pi3Chooser)
	if err != nil {
		t.Fatal(err)
	}
	if start, err = StartScript(pi3Starter); err != nil {
		t.Fatal(err)
	}
	return boot, start
}

// A scripted machine boots by the script itself.
type scripted struct {
	*slottest.UBoot
	script []byte
}

func (s scripted) Cut(luck slottest.Luck) slottest.Machine {
	return scripted{s.CutUBoot(luck), s.script}
}

func (s scripted) Boot() ([]byte, error) {
	b := newBoard(s.UBoot, "broadcom/bcm2837-rpi-3-b.dtb")
	err := b.boot(s.script)
	switch {
	case errors.Is(err, errStarted):
	case err == nil:
		return nil, errors.New("the script has come to its end")
	default:
		return nil, err
	}
	if want := pi3Starter.Arguments + " skerry.slot=" + b.started.slot + " skerry.bootpart=" + partition; b.started.arguments != want || b.started.command != pi3Starter.Command {
		return nil, fmt.Errorf("%s was called with arguments %q, want %s with %q", b.started.command, b.started.arguments, pi3Starter.Command, want)
	}
	return b.started.image, nil
}

// TestScriptKeepsThePromises runs the suite of initd/slot over the script, with all its power cuts.
func TestScriptKeepsThePromises(t *testing.T) {
	boot, start := scripts(t)
	slottest.Run(t, func(image string, tries int) slottest.Machine {
		return scripted{slottest.NewUBootWith(image, tries, string(start)), boot}
	})
}

// randomMachine is one in any state, possible or not.
func randomMachine(r *rand.Rand, start string) *slottest.UBoot {
	any := func(of ...string) string { return of[r.IntN(len(of))] }
	chance := func(n int) bool { return r.IntN(n) == 0 }
	number := func() string { return strconv.FormatInt(r.Int64N(20), 16) }
	files := map[string]string{}
	for _, folder := range []string{"a-0", "a-1", "b-0", "b-1"} {
		if chance(3) {
			continue
		}
		for _, name := range slottest.UBootFiles {
			if !chance(15) {
				files[folder+"/"+name] = folder + " " + name + ". "
			}
		}
		if !chance(10) {
			files[folder+"/"+slot.StartScript] = start
		}
		if chance(10) {
			files[folder+"/"+slot.StartScript] = any("", start[:80], strings.Replace(start, "kernel", "colonel", 1))
		}
	}
	var copies [slottest.Copies][]byte
	for i := range copies {
		values := map[string]string{
			"ab_seq": any(number(), "ffffff"+number()), "ab_cur": any("a", "b"), "ab_count": number(),
			"ab_dir_a": any("none", "a-0", "a-1"), "ab_dir_b": any("none", "b-0", "b-1"),
			"ab_tries_a": any("good", "0", number()), "ab_tries_b": any("good", "0", number()),
			"ab_done_a": number(), "ab_done_b": number(),
		}
		copies[i] = slottest.EncodeEnv(slottest.UBootKeys, func(key string) string { return values[key] }, slot.SectorSize)
		switch {
		case chance(6):
			copies[i][r.IntN(slot.SectorSize)] ^= 1 << r.IntN(8)
		case chance(10):
			clear(copies[i])
		}
	}
	m := slottest.UBootOf(files, copies, start)
	m.Sectors.WriteFails = chance(6)
	m.Sectors.Unreadable = [2]bool{chance(10), chance(10)}
	return m
}

// after is all that a boot has done.
func after(m slottest.Machine, u *slottest.UBoot) string {
	image, err := m.Boot()
	out := fmt.Sprintf("started %q, leaves %s\n", image, m)
	if err != nil {
		out = fmt.Sprintf("started nothing, leaves %s\n", m)
		if _, byScript := m.(scripted); byScript && !errors.Is(err, errReset) {
			out = fmt.Sprintf("the script is wrong: %v\n", err)
		}
	}
	for i := range slottest.Copies {
		sector := make([]byte, slot.SectorSize)
		if _, err := u.Sectors.ReadAt(sector, int64(slot.UBootSector+i)*slot.SectorSize); err != nil {
			return err.Error()
		}
		out += fmt.Sprintf("%q\n", bytes.TrimRight(sector, "\x00"))
	}
	return out
}

// TestModelAndScriptAgree boots machines in random states by the model and by the script.
func TestModelAndScriptAgree(t *testing.T) {
	boot, start := scripts(t)
	r := rand.New(rand.NewPCG(1, 2))
	outcomes := map[string]int{}
	for range 6000 {
		m := randomMachine(r, string(start))
		before := m.String()
		model, script := m.CutUBoot(slottest.AllKept), m.CutUBoot(slottest.AllKept)
		want, got := after(model, model), after(scripted{script, boot}, script)
		if got != want {
			t.Fatalf("%s, %+v:\nthe script %s\nthe model  %s", before, m.Sectors.Unreadable, got, want)
		}
		outcomes[want[:len("started nothing")]]++
	}
	for _, what := range []string{"started nothing", `started "a-0 k`, `started "a-1 k`, `started "b-0 k`, `started "b-1 k`} {
		i := 0
		for outcome, n := range outcomes {
			if strings.HasPrefix(outcome, what) {
				i += n
			}
		}
		if t.Logf("%6d %s", i, what); i < 300 {
			t.Errorf("only %d machines have %s", i, what)
		}
	}
}

// TestDriftIsFound: a script that differs from the model in one rule is found.
func TestDriftIsFound(t *testing.T) {
	boot, start := scripts(t)
	text := string(boot[headerSize+8:])
	for _, c := range []struct{ name, is, becomes string }{
		{"the lower number wins", `itest "${ab_seq}" > "${ab_highest}"`, `itest "${ab_highest}" > "${ab_seq}"`},
		{"slot a comes first", `setenv ab_order "b a"`, `setenv ab_order "a b"`},
		{"tries are not counted", "setexpr ab_tries ${ab_tries} - 1", "setexpr ab_tries ${ab_tries} - 0"},
		{"the newest copy is written over", "setenv ab_next 0x11", "setenv ab_next 0x10"},
		{"tries are made that cannot be written down", "        echo \"Skerry: cannot count", "        setenv ab_run yes\n        echo \"Skerry: cannot count"},
		{"no last resort", "for ab_f in ${ab_rest}; do", "for ab_f in none; do"},
		{"a script of before is run again", "  mw.l 0x2520000 0 1\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := strings.ReplaceAll(text, c.is, c.becomes)
			if changed == text {
				t.Fatalf("the script has no %q", c.is)
			}
			image, err := Image("changed", []byte(changed))
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 5000 {
				m := randomMachine(r, string(start))
				model, script := m.CutUBoot(slottest.AllKept), m.CutUBoot(slottest.AllKept)
				want, got := after(model, model), after(scripted{script, image}, script)
				if strings.HasPrefix(got, "the script is wrong") {
					t.Fatal(got)
				}
				if got != want {
					return
				}
			}
			t.Error("5000 machines have not shown it")
		})
	}
}

// TestFormatsAgree: the builder and the device each have the format of the state and of the boot image; the device reads what
// the builder makes.
func TestFormatsAgree(t *testing.T) {
	if firstCopy != slot.UBootSector || sectorSize != slot.SectorSize || startScript != slot.StartScript {
		t.Error("they do not look in the same places")
	}
	if got := strings.Fields(keys); !slices.Equal(got, slottest.UBootKeys) {
		t.Errorf("the script's keys are %q, the model's %q", got, slottest.UBootKeys)
	}
	state := State(3)
	var copies [slottest.Copies][]byte
	for i := range copies {
		copies[i] = state[i*sectorSize : (i+1)*sectorSize]
	}
	m := slottest.UBootOf(map[string]string{FactoryFolder() + "/start.scr": "start"}, copies, "start")
	a, errA := m.Status(slot.A)
	b, errB := m.Status(slot.B)
	got, want := fmt.Sprintf("%+v %+v %s", a, b, m), "{Present:true Good:false Left:3 Done:0} {Present:false Good:false Left:0 Done:0} copy 1, number 2: a-0 (3, 0 made)"
	if err := errors.Join(errA, errB); err != nil || got != want {
		t.Errorf("a new disk has %s, %v; want %s", got, err, want)
	}
	if err := install(m, t); err != nil {
		t.Error(err)
	}
}
