package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/mbr"

	"github.com/skerryos/skerry/ci/need"
)

// factoryMBR is sector 0 of an image of 10 MiB: boot partition of 4 MiB, two slots of 2 MiB, 1 MiB for data. It has something in
// the place of boot code.
func factoryMBR(signature uint32) []byte {
	b := make([]byte, sectorSize)
	for i := range mbrSignature {
		b[i] = byte(i)
	}
	binary.LittleEndian.PutUint32(b[mbrSignature:], signature)
	next := uint32(2048)
	for i, p := range []struct {
		kind byte
		mib  uint32
	}{{0x0c, 4}, {0x83, 2}, {0x83, 2}, {0x83, 1}} {
		e := b[mbrEntries+i*mbrEntrySize:]
		e[1], e[2], e[3], e[4] = 1, 2, 3, p.kind
		binary.LittleEndian.PutUint32(e[8:], next)
		binary.LittleEndian.PutUint32(e[12:], p.mib*2048)
		next += p.mib * 2048
	}
	b[510], b[511] = 0x55, 0xaa
	return b
}

// mbrText is what a kernel finds, written apart from the code under test.
func mbrText(b []byte) string {
	if b[510] != 0x55 || b[511] != 0xaa {
		return "no table"
	}
	var out []string
	for i := range 4 {
		e := b[446+16*i:][:16]
		first, count := binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
		if count > 0 {
			out = append(out, fmt.Sprintf("%d %02x %d+%d", i+1, e[4], first, count))
		}
	}
	return strings.Join(out, ", ")
}

const factoryMBRText = "1 0c 2048+8192, 2 83 10240+4096, 3 83 14336+4096"

func TestExtendMBR(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name    string
		data    string // first sector and number of sectors of the data partition; empty: there is none
		disk    int64
		minimum int64
		want    string // the data partition afterwards, or the error
		changed bool
		unused  bool
	}{
		{"as an image has it", "18432+2048", 64 * mib, 10 * mib, "18432+112640", true, true},
		{"missing", "", 64 * mib, 10 * mib, "18432+112640", true, true},
		{"the disk's end is not aligned", "18432+2048", 64*mib + 7*sectorSize, 10 * mib, "18432+112640", true, true},
		{"grown before, to the end", "18432+112640", 64 * mib, 10 * mib, "18432+112640", false, false},
		{"grown before, on a smaller disk", "18432+12288", 64 * mib, 10 * mib, "18432+112640", true, false},
		{"grown before, least size raised since", "18432+12288", 64 * mib, 60 * mib, "the disk is too small", false, false},
		{"the least size", "18432+2048", 64 * mib, 55 * mib, "18432+112640", true, true},
		{"too small", "18432+2048", 64 * mib, 55*mib + 1, "the disk is too small: it has 64 MiB, which leaves 55 MiB for partition skerry-data, and 56 MiB is the least; " +
			"nothing was written; write the image to a disk of at least 65 MiB", false, true},
		{"never so small that it would look unused", "18432+2048", 10 * mib, 0, "leaves 1 MiB for partition skerry-data, and 2 MiB is the least", false, true},
		{"2 TiB", "18432+2048", 2048 * gib, 10 * mib, "18432+4294946816", true, true},
		{"more than a table can tell", "18432+2048", 4096 * gib, 10 * mib, "18432+4294946816", true, true},
		{"grown as far as a table can tell", "18432+4294946816", 4096 * gib, 10 * mib, "18432+4294946816", false, false},
		{"behind a gap", "20480+2048", 64 * mib, 10 * mib, "20480+110592", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := factoryMBR(7)
			e := b[mbrEntries+3*mbrEntrySize:][:mbrEntrySize]
			if c.data == "" {
				clear(e)
			} else {
				var first, count uint32
				if _, err := fmt.Sscanf(c.data, "%d+%d", &first, &count); err != nil {
					t.Fatal(err)
				}
				binary.LittleEndian.PutUint32(e[8:], first)
				binary.LittleEndian.PutUint32(e[12:], count)
			}
			table, err := ReadMBR(bytes.NewReader(b), uint64(c.disk/sectorSize))
			if err != nil {
				t.Fatal(err)
			}
			if got := table.unused(DataPartition); got != c.unused {
				t.Errorf("unused: %v", got)
			}
			number, changed, err := table.Extend(DataPartition, GUID{}, GUID{}, c.minimum)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) || table.sector != [sectorSize]byte(b) {
					t.Errorf("error %v, want %s and no change", err, c.want)
				}
				return
			}
			if number != 4 || changed != c.changed {
				t.Errorf("partition %d, changed %v", number, changed)
			}
			if got, want := mbrText(table.sector[:]), factoryMBRText+", 4 83 "+c.want; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			copy(b[mbrEntries+3*mbrEntrySize:][:mbrEntrySize], table.entry(3))
			if table.sector != [sectorSize]byte(b) {
				t.Error("something else than the entry of the data partition was changed")
			}
		})
	}
}

// TestMBRSurvivesPowerCuts: the sector is the old or the new one.
func TestMBRSurvivesPowerCuts(t *testing.T) {
	const sectors = 64 * mib / sectorSize
	m := newMedium(t, factoryMBR(7), sectors)
	random := rand.New(rand.NewPCG(1, 2))
	before, tried := m.durable[0], 0
	m.atSync = func(pending map[int64][sectorSize]byte) {
		for _, survivors := range cuts(pending, random) {
			tried++
			left := m.after(survivors).durable
			if len(left) != 1 || (left[0] != before && left[0] != pending[0]) {
				t.Errorf("a power cut leaves %d sectors with %s", len(left), mbrText(m.after(survivors).sector0()))
			}
		}
	}
	table, err := readAnyTable(m, sectors)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := table.Extend(DataPartition, GUID{}, GUID{}, mib); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(m); err != nil {
		t.Fatal(err)
	}
	if got, want := mbrText(m.sector0()), factoryMBRText+", 4 83 18432+112640"; got != want || tried != 2 {
		t.Errorf("after %d cuts there is %s", tried, got)
	}
}

func (m *medium) sector0() []byte { s := m.durable[0]; return s[:] }

func TestReadMBRRefusesOthers(t *testing.T) {
	entry := func(n int, change func(e []byte)) func([]byte) {
		return func(b []byte) { change(b[mbrEntries+(n-1)*mbrEntrySize:][:mbrEntrySize]) }
	}
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		change func([]byte)
		want   string
	}{
		"empty disk":             {func(b []byte) { clear(b) }, ""},
		"no signature":           {func(b []byte) { b[511] = 0 }, ""},
		"protective MBR":         {entry(1, func(e []byte) { e[4] = 0xee }), "partition 1 has type 0xee instead of 0x0c"},
		"Raspberry Pi OS":        {entry(3, func(e []byte) { clear(e) }), "partition 3 has type 0x00 instead of 0x83"},
		"boot indicator":         {entry(2, func(e []byte) { e[0] = 1 }), "partition 2 has the boot indicator 0x1"},
		"first one elsewhere":    {entry(1, func(e []byte) { le.PutUint32(e[8:], 4096) }), "partition 1 starts at sector 4096"},
		"first one too early":    {entry(1, func(e []byte) { le.PutUint32(e[8:], 63) }), "partition 1 starts at sector 63"},
		"overlap":                {entry(3, func(e []byte) { le.PutUint32(e[8:], 10240) }), "partition 3 starts at sector 10240"},
		"data before the slots":  {entry(4, func(e []byte) { le.PutUint32(e[8:], 2048) }), "partition 4 starts at sector 2048"},
		"empty partition":        {entry(2, func(e []byte) { le.PutUint32(e[12:], 0) }), "partition 2 has 0 sectors"},
		"beyond the table's end": {entry(4, func(e []byte) { le.PutUint32(e[12:], 1<<32-1) }), "partition 4 has 4294967295 sectors"},
		"data of another kind":   {entry(4, func(e []byte) { e[4] = 0x0f }), "partition 4 has type 0x0f"},
	} {
		t.Run(name, func(t *testing.T) {
			b := factoryMBR(7)
			if _, err := ReadMBR(bytes.NewReader(b), 1<<20); err != nil {
				t.Fatal(err)
			}
			c.change(b)
			_, err := ReadMBR(bytes.NewReader(b), 1<<20)
			if !errors.Is(err, ErrNoMBR) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

// TestReadAnyTable: what is left of a GUID table on a disk with an MBR does not count, and the other way round.
func TestReadAnyTable(t *testing.T) {
	const sectors = 9 * mib / sectorSize
	image := factoryImage(t, 9*mib)
	got, err := readAnyTable(bytes.NewReader(image), sectors)
	if _, is := got.(*Table); !is || err != nil {
		t.Errorf("a GUID table is read as %T (%v)", got, err)
	}
	copy(image, factoryMBR(7))
	got, err = readAnyTable(bytes.NewReader(image), sectors)
	if _, is := got.(*MBR); !is || err != nil {
		t.Fatalf("an MBR is read as %T (%v)", got, err)
	}
	if need, cut := got.CutOff(); !cut || need != 10*mib {
		t.Errorf("on a disk of 9 MiB it needs %d bytes (%v)", need, cut)
	}
	clear(image)
	if got, err = readAnyTable(bytes.NewReader(image), sectors); !errors.Is(err, ErrNoTable) || got != nil {
		t.Errorf("an empty disk is read as %v (%v)", got, err)
	}
}

// TestOtherToolsReadTheMBR holds the result against two other readers.
func TestOtherToolsReadTheMBR(t *testing.T) {
	const sectors = 64 * mib / sectorSize
	table, err := ReadMBR(bytes.NewReader(factoryMBR(0x1234abcd)), sectors)
	if err != nil {
		t.Fatal(err)
	}
	if !table.hasID("1234abcd-01") || table.hasID("1234abcd-05") || table.hasID("1234abcc-01") {
		t.Error("it does not know the names of its partitions")
	}
	if _, _, err := table.Extend(DataPartition, GUID{}, GUID{}, mib); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(name, table.sector[:], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, sectors*sectorSize); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := mbr.Read(file.New(f, true), sectorSize, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	if p := other.Partitions[3]; p.Start != 18432 || p.Size != 112640 || p.Type != mbr.Linux {
		t.Errorf("another reader finds %+v", p)
	}
	out, err := exec.Command(need.Tool(t, "sfdisk"), "--dump", name).CombinedOutput()
	if want := "disk.img4 : start=       18432, size=      112640, type=83"; err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), "label-id: 0x1234abcd") {
		t.Errorf("sfdisk (%v) finds\n%s", err, out)
	}
}

// FuzzMBR: whatever is taken for Skerry's can be extended without harm to what else is in the sector.
func FuzzMBR(f *testing.F) {
	f.Add(factoryMBR(7), uint64(131072), int64(mib))
	f.Add(make([]byte, sectorSize), uint64(0), int64(-1))
	f.Fuzz(func(t *testing.T, b []byte, sectors uint64, minimum int64) {
		if len(b) != sectorSize {
			return
		}
		sectors, minimum = sectors%(1<<40), minimum%(1<<50)
		table, err := ReadMBR(bytes.NewReader(b), sectors)
		if err != nil {
			if !errors.Is(err, ErrNoMBR) {
				t.Error(err)
			}
			return
		}
		if _, _, err := table.Extend(DataPartition, GUID{}, GUID{}, minimum); err != nil {
			if table.sector != [sectorSize]byte(b) {
				t.Error("refused, and changed")
			}
			return
		}
		again, err := ReadMBR(bytes.NewReader(table.sector[:]), sectors)
		if err != nil {
			t.Fatalf("what it writes is refused: %v", err)
		}
		if again.unused(DataPartition) {
			t.Error("what was extended looks unused")
		}
		data := mbrEntries + 3*mbrEntrySize
		if !bytes.Equal(b[:data], again.sector[:data]) || !bytes.Equal(b[data+mbrEntrySize:], again.sector[data+mbrEntrySize:]) {
			t.Error("something else than the entry was changed")
		}
	})
}
