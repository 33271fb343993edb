package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/skerryos/skerry/builder/image"
	"github.com/skerryos/skerry/builder/image/uboot"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
)

const (
	// piStarts is how long U-Boot takes to run the boot script, piKernel until the kernel runs: the card is slow in QEMU.
	piStarts = 2 * time.Minute
	piKernel = 4 * time.Minute
	// piBoots is how long a whole boot takes.
	piBoots = 15 * time.Minute
)

// modelStart is the start script of the model's slots: it loads what the model says that it loads, says so, and waits for the power to go.
const modelStart = `if load ${devtype} ${devnum}:1 0x200000 /${folder}/kernel && load ${devtype} ${devnum}:1 0x300000 /${folder}/board.dtb && load ${devtype} ${devnum}:1 0x400000 /${folder}/initramfs; then
  part uuid ${devtype} ${devnum}:1 bootpart
  echo "model: slot ${slot} is started, partition ${bootpart}"
  sleep 1000
fi
`

// TestPiBootModel holds the model of the boot script, on which the enumeration of power cuts stands, against the real script in the
// real U-Boot: in some of the states that a card can be in both must start the same slot and leave the same state. A card that cannot be
// written to is not among them: QEMU refuses to start with one.
func TestPiBootModel(t *testing.T) {
	t.Parallel()
	for _, board := range piBoards {
		t.Run(board, func(t *testing.T) { testPiBootModel(t, newPi(t, board)) })
	}
}

func testPiBootModel(t *testing.T, p *pi) {
	var script []byte
	p.partition(t, func(fs filesystem.FileSystem) { script = readFile(t, fs, "boot.scr") })
	start, err := uboot.Image("model", []byte(modelStart))
	must(t, err)
	hexadecimal := "good a, install b, good b" + strings.Repeat(", bad a, good a", 5)
	for _, state := range []struct{ name, calls string }{
		{"as the factory makes it", ""},
		{"good", "boot, good a"},
		{"new slot on trial", "good a, install b"},
		{"last attempt", "good a, install b, boot, boot"},
		{"no attempts left", "good a, install b, boot, boot, boot"},
		{"marked bad", "good a, install b, boot, bad b"},
		{"back on slot a, in its other folder", "good a, install b, good b, install a"},
		{"numbers are compared as numbers", hexadecimal},
		{"nothing is good", "good a, install b, good b, bad a, bad b"},
		{"newest copy damaged", "good a, install b, rot 1"},
		{"older copy damaged", "good a, install b, rot 0"},
		{"both copies damaged", "good a, install b, rot 0, rot 1"},
		{"kernel missing", "good a, install b, lose b-0/kernel"},
		{"start script damaged", "good a, install b, damage b-0/start.scr"},
		{"start script cut off", "good a, install b, cut b-0/start.scr"},
	} {
		t.Run(state.name, func(t *testing.T) {
			model := slottest.NewUBootWith("image of slot a ", 3, string(start))
			for call := range strings.SplitSeq(state.calls, ", ") {
				must(t, piCall(model, call))
			}
			writeModel(t, p, model, script)
			was := fmt.Sprint(model)
			wanted, err := model.Boot()
			must(t, err)

			p.on()
			defer p.off()
			// What an open serial line makes up is there before U-Boot looks: keys, and Control and C.
			_, err = p.Console.Write([]byte("key\x03"))
			must(t, err)
			line := p.wait(t, 0, `^model: slot ([ab]) is started, partition 1234abcd-01`, piStarts)
			p.off()
			if got := "image of slot " + line.Groups[1] + " "; got != string(wanted) {
				t.Errorf("in %s it starts %q, the model %q", was, got, wanted)
			}
			for i := range uint64(slottest.Copies) {
				want, err := model.ReadSector(slot.UBootSector + i)
				must(t, err)
				got := p.sectors(t, int64(slot.UBootSector+i)*slot.SectorSize, slot.SectorSize)
				if !bytes.Equal(got, want) {
					t.Errorf("in %s it leaves in copy %d\n%q\nthe model\n%q", was, i, bytes.TrimRight(got, "\x00"), bytes.TrimRight(want, "\x00"))
				}
			}
		})
	}
}

// piCall does something to a machine of the model.
func piCall(m *slottest.UBoot, call string) error {
	verb, what, _ := strings.Cut(call, " ")
	n := slot.Name(what)
	replace := func(with func([]byte) []byte) error {
		old, err := m.Load(what)
		if err != nil {
			return err
		}
		with2 := with(bytes.Clone(old))
		return errors.Join(m.FAT.Remove(what), m.FAT.Create(what, bytes.NewReader(with2)), m.FAT.Sync())
	}
	switch verb {
	case "":
	case "boot":
		_, err := m.Boot()
		return err
	case "good":
		return m.MarkGood(n)
	case "bad":
		return m.MarkBad(n)
	case "install":
		image := "image of slot " + what + " "
		return m.Install(n, strings.NewReader(image), int64(len(image)), 3)
	case "rot":
		m.Sectors.Rot(int(what[0] - '0'))
	case "lose":
		return errors.Join(m.FAT.Remove(what), m.FAT.Sync())
	case "damage":
		return replace(func(b []byte) []byte { b[len(b)-10]++; return b })
	case "cut":
		return replace(func(b []byte) []byte { return b[:80] })
	default:
		return fmt.Errorf("no call %q", call)
	}
	return nil
}

// writeModel makes a card of what the model has: nothing else is on it but the boot script.
func writeModel(t *testing.T, p *pi, m *slottest.UBoot, script []byte) {
	t.Helper()
	const card, boot = 128 << 20, 64 << 20
	must(t, os.Remove(p.config.Disk))
	f, err := os.Create(p.config.Disk)
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(card))
	files := map[string][]byte{"boot.scr": script}
	for _, name := range strings.Fields(m.FAT.String()) {
		if data, err := m.Load(name); err == nil {
			files[name] = data
		}
	}
	var list []image.File
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		list = append(list, image.File{Path: name, Bytes: int64(len(data)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
	}
	must(t, image.FAT{Bytes: boot, Label: "MODEL", Serial: 1, Date: 1764000000}.Write(t.Context(), f, 1<<20, list))
	for i := range uint64(slottest.Copies) {
		sector, err := m.ReadSector(slot.UBootSector + i)
		must(t, err)
		_, err = f.WriteAt(sector, int64(slot.UBootSector+i)*slot.SectorSize)
		must(t, err)
	}
	// A master boot record with one partition, as partitioning programs write it.
	mbr := make([]byte, 512)
	copy(mbr[446:], []byte{0x80, 0xfe, 0xff, 0xff, 0x0c, 0xfe, 0xff, 0xff, 0, 8, 0, 0, 0, 0, boot >> 9 >> 16, 0})
	copy(mbr[440:], []byte{0xcd, 0xab, 0x34, 0x12}) // its signature
	mbr[510], mbr[511] = 0x55, 0xaa
	_, err = f.WriteAt(mbr, 0)
	must(t, err)
}

// TestPi boots the unchanged image from U-Boot to a machine that is ready, with the power going between. A slot that does not
// become good is counted down and given up; one that does is started without counting.
func TestPi(t *testing.T) {
	for _, board := range piBoards {
		t.Run(board, func(t *testing.T) { testPi(t, newPi(t, board)) })
	}
}

func testPi(t *testing.T, p *pi) {
	starting := func(t *testing.T, n, tries string) {
		t.Helper()
		line := p.wait(t, 0, `^Skerry: starting slot ([ab]) from [ab]-[01], tries left: ([0-9a-z]+)`, piStarts)
		if line.Groups[1] != n || line.Groups[2] != tries {
			t.Fatalf("slot %s is started with tries %s, want %s with %s", line.Groups[1], line.Groups[2], n, tries)
		}
	}
	ready := func(t *testing.T, n string) {
		t.Helper()
		p.wait(t, 0, `skerry [^ ]+ \(`+p.board+`\) slot `+n+` .*\| ready`, piBoots)
	}

	p.on()
	starting(t, "a", "2")
	p.wait(t, 0, `^Starting kernel`, piKernel)
	p.off()

	p.on()
	starting(t, "a", "1")
	ready(t, "a")
	p.off()
	if s := piState(t, p); s["ab_tries_a"] != "good" || s["ab_count"] != "2" {
		t.Fatalf("a slot that is ready leaves %v", s)
	}

	p.on()
	starting(t, "a", "good")
	p.wait(t, 0, `^Starting kernel`, piKernel)
	p.off()

	// What an upgrade leaves: the other slot on trial. Its root file system is not there, so that it cannot become healthy.
	p.partition(t, func(fs filesystem.FileSystem) {
		must(t, fs.Mkdir("b-0"))
		entries, err := fs.ReadDir("a-0")
		must(t, err)
		for _, e := range entries {
			if !e.IsDir() {
				writeFile(t, fs, path.Join("b-0", e.Name()), readFile(t, fs, path.Join("a-0", e.Name())))
			}
		}
	})
	s := piState(t, p)
	s["ab_cur"], s["ab_dir_b"], s["ab_tries_b"], s["ab_done_b"], s["ab_seq"] = "b", "b-0", "3", "0", s["ab_seq"]+"0"
	p.write(t, slot.UBootSector*slot.SectorSize, slottest.EncodeEnv(slottest.UBootKeys, func(key string) string { return s[key] }, slot.SectorSize))
	for _, left := range []string{"2", "1"} {
		p.on()
		starting(t, "b", left)
		p.wait(t, 0, `^Starting kernel`, piKernel)
		p.off()
	}
	// The last try is left to end by itself: init sees that it has no root file system, and restarts the machine.
	p.on()
	starting(t, "b", "0")
	p.wait(t, 0, `slot b .*failed: .*verity`, piBoots)
	next := p.wait(t, 0, `slot b .*restarting in`, piBoots).Number
	p.wait(t, next, `^Skerry: starting slot a from a-0, tries left: good`, piStarts)
	p.wait(t, next, `skerry [^ ]+ \(`+p.board+`\) slot a .*\| ready`, piBoots)
}

// piState is the newest copy of the state on a card.
func piState(t *testing.T, p *pi) map[string]string {
	t.Helper()
	var newest map[string]string
	for i := range int64(slottest.Copies) {
		v, valid := slottest.DecodeEnv(p.sectors(t, (slot.UBootSector+i)*slot.SectorSize, slot.SectorSize))
		if valid && (newest == nil || len(v["ab_seq"]) > len(newest["ab_seq"]) || len(v["ab_seq"]) == len(newest["ab_seq"]) && v["ab_seq"] > newest["ab_seq"]) {
			newest = v
		}
	}
	if newest == nil {
		t.Fatal("the card has no valid copy of the state")
	}
	return newest
}
