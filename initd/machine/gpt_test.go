package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

const mib = 1 << 20

// A medium is a disk that remembers which sectors were written since the last sync: those may be on the medium or not
// when the power goes. Sectors themselves are written whole or not at all.
type medium struct {
	durable map[int64][sectorSize]byte
	pending map[int64][sectorSize]byte
	sectors int64
	// atSync is called before pending becomes durable: all that a power cut until then could leave is between the two.
	atSync func(pending map[int64][sectorSize]byte)
}

func newMedium(t *testing.T, image []byte, sectors int64) *medium {
	t.Helper()
	m := &medium{durable: map[int64][sectorSize]byte{}, pending: map[int64][sectorSize]byte{}, sectors: sectors}
	for i := 0; i < len(image); i += sectorSize {
		if s := [sectorSize]byte(image[i:]); s != ([sectorSize]byte{}) {
			m.durable[int64(i/sectorSize)] = s
		}
	}
	return m
}

func (m *medium) ReadAt(p []byte, off int64) (int, error) {
	if off%sectorSize != 0 || len(p)%sectorSize != 0 || (off+int64(len(p)))/sectorSize > m.sectors {
		return 0, fmt.Errorf("read of %d bytes at %d", len(p), off)
	}
	for i := 0; i < len(p); i += sectorSize {
		s, ok := m.pending[(off+int64(i))/sectorSize]
		if !ok {
			s = m.durable[(off+int64(i))/sectorSize]
		}
		copy(p[i:], s[:])
	}
	return len(p), nil
}

func (m *medium) WriteAt(p []byte, off int64) (int, error) {
	if off%sectorSize != 0 || len(p)%sectorSize != 0 || (off+int64(len(p)))/sectorSize > m.sectors {
		return 0, fmt.Errorf("write of %d bytes at %d", len(p), off)
	}
	for i := 0; i < len(p); i += sectorSize {
		m.pending[(off+int64(i))/sectorSize] = [sectorSize]byte(p[i:])
	}
	return len(p), nil
}

func (m *medium) Sync() error {
	if m.atSync != nil {
		m.atSync(m.pending)
	}
	for n, s := range m.pending {
		m.durable[n] = s
	}
	clear(m.pending)
	return nil
}

// after is the medium after a power cut that let only the sectors in survivors reach it.
func (m *medium) after(survivors []int64) *medium {
	c := &medium{durable: map[int64][sectorSize]byte{}, pending: map[int64][sectorSize]byte{}, sectors: m.sectors}
	for n, s := range m.durable {
		c.durable[n] = s
	}
	for _, n := range survivors {
		c.durable[n] = m.pending[n]
	}
	return c
}

// cuts are sets of sectors that may have reached the medium: all of them, none, each alone, all but each, and a number of
// random ones; every set where there are few.
func cuts(pending map[int64][sectorSize]byte, random *rand.Rand) [][]int64 {
	var all []int64
	for n := range pending {
		all = append(all, n)
	}
	var sets [][]int64
	if len(all) <= 6 {
		for bits := range 1 << len(all) {
			var set []int64
			for i, n := range all {
				if bits>>i&1 == 1 {
					set = append(set, n)
				}
			}
			sets = append(sets, set)
		}
		return sets
	}
	sets = append(sets, nil, all)
	for i := range all {
		without := append(append([]int64{}, all[:i]...), all[i+1:]...)
		sets = append(sets, []int64{all[i]}, without)
	}
	for range 100 {
		var set []int64
		for _, n := range all {
			if random.IntN(2) == 0 {
				set = append(set, n)
			}
		}
		sets = append(sets, set)
	}
	return sets
}

// kernelTable is what Linux finds without the argument gpt: the first copy and nothing else (block/partitions/efi.c,
// is_gpt_valid). It is written apart from the code under test on purpose.
func kernelTable(m *medium) (string, error) {
	sector := func(n int64) []byte { s := m.durable[n]; return s[:] }
	mbr := sector(0)
	if mbr[510] != 0x55 || mbr[511] != 0xaa || mbr[446+4] != 0xee || binary.LittleEndian.Uint32(mbr[446+8:]) != 1 {
		return "", errors.New("no protective MBR")
	}
	h := bytes.Clone(sector(1))
	le := binary.LittleEndian
	size := le.Uint32(h[12:])
	if string(h[:8]) != "EFI PART" || size < 92 || size > 512 {
		return "", errors.New("no header")
	}
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if crc32.ChecksumIEEE(h[:size]) != sum {
		return "", errors.New("header has a wrong checksum")
	}
	first, last := le.Uint64(h[40:]), le.Uint64(h[48:])
	if le.Uint64(h[24:]) != 1 || first > uint64(m.sectors-1) || last > uint64(m.sectors-1) || last < first || le.Uint32(h[84:]) != 128 {
		return "", errors.New("header makes no sense")
	}
	array, count := int64(le.Uint64(h[72:])), int64(le.Uint32(h[80:]))
	if uint64(array+count*128/512) > first {
		return "", errors.New("entries lie among the partitions")
	}
	var entries []byte
	for i := range count * 128 / 512 {
		entries = append(entries, sector(array+i)...)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return "", errors.New("entries have a wrong checksum")
	}
	var out strings.Builder
	for i := range count {
		e := entries[i*128:]
		if GUID(e[:16]) == (GUID{}) {
			continue
		}
		var name []byte
		for j := 56; j < 128 && e[j] != 0; j += 2 {
			name = append(name, e[j])
		}
		fmt.Fprintf(&out, "%d %s %d-%d\n", i+1, name, le.Uint64(e[32:]), le.Uint64(e[40:]))
	}
	return out.String(), nil
}

// factoryImage is a disk image as the builder writes it, by the same library.
func factoryImage(t *testing.T, bytes int64) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(bytes); err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{LogicalSectorSize: sectorSize, PhysicalSectorSize: sectorSize, ProtectiveMBR: true, GUID: "8f4d6f2a-5b7c-4d3e-9a1b-2c3d4e5f6071"}
	start := uint64(2048)
	for i, part := range []struct {
		name string
		kind gpt.Type
		mib  uint64
	}{{"skerry-esp", gpt.EFISystemPartition, 4}, {"skerry-root-a", gpt.LinuxRootX86_64, 2}, {"skerry-root-b", gpt.LinuxRootX86_64, 2}} {
		table.Partitions = append(table.Partitions, &gpt.Partition{Index: i + 1, Start: start, End: start + part.mib*2048 - 1, Size: part.mib * mib, Type: part.kind, Name: part.name})
		start += part.mib * 2048
	}
	disk, err := file.New(f, false).Writable()
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Write(disk, bytes); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

const factoryTable = "1 skerry-esp 2048-10239\n2 skerry-root-a 10240-14335\n3 skerry-root-b 14336-18431\n"

var someID = GUID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// extend does what ExtendPartition does to the medium.
func extend(m *medium) error {
	t, err := ReadTable(m, uint64(m.sectors))
	if err != nil {
		return err
	}
	_, changed, err := t.Extend("skerry-data", VarPartition, someID, mib)
	if err != nil || !changed {
		return err
	}
	return t.Write(m)
}

// TestExtendSurvivesPowerCuts cuts the power at every moment of the first boot's change, lets the kernel look at what is
// left, and goes on from there; the way on is cut, too.
func TestExtendSurvivesPowerCuts(t *testing.T) {
	const sectors = 64 * mib / sectorSize
	want := factoryTable + fmt.Sprintf("4 skerry-data 18432-%d\n", sectors-2048-1)
	image := factoryImage(t, 9*mib)
	random := rand.New(rand.NewPCG(1, 2))
	tried, reboots := 0, 0
	var boot func(m *medium, depth int)
	boot = func(m *medium, depth int) {
		m.atSync = func(pending map[int64][sectorSize]byte) {
			for _, survivors := range cuts(pending, random) {
				left := m.after(survivors)
				tried++
				got, err := kernelTable(left)
				if err != nil {
					t.Fatalf("after a power cut with %d of %d sectors written the kernel finds no table: %v", len(survivors), len(pending), err)
				}
				if got != factoryTable && got != want {
					t.Fatalf("after a power cut the kernel finds\n%swhich is neither the former nor the new table", got)
				}
				if depth > 0 && random.IntN(8) == 0 {
					reboots++
					boot(left, depth-1)
				}
			}
		}
		if err := extend(m); err != nil {
			t.Fatalf("a boot after a power cut: %v", err)
		}
		if got, err := kernelTable(m); err != nil || got != want {
			t.Fatalf("after a boot the kernel finds\n%s(%v), want\n%s", got, err, want)
		}
	}
	boot(newMedium(t, image, sectors), 1)
	if tried < 1000 || reboots < 20 {
		t.Errorf("tried %d cuts and %d boots after one: the medium was hardly written", tried, reboots)
	}
}

// TestOtherToolsReadTheTable holds the result against another reader, first copy and second.
func TestOtherToolsReadTheTable(t *testing.T) {
	const sectors = 64 * mib / sectorSize
	m := newMedium(t, factoryImage(t, 9*mib), sectors)
	if err := extend(m); err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, sectors*sectorSize)
	if _, err := m.ReadAt(disk, 0); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "disk.img")
	for _, damaged := range []bool{false, true} {
		if damaged {
			clear(disk[sectorSize : 40*sectorSize])
		}
		if err := os.WriteFile(name, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		table, err := ReadTable(f, sectors)
		if err != nil {
			t.Fatalf("first copy damaged: %v: %v", damaged, err)
		}
		if p := table.Partitions[3]; p.Name != "skerry-data" || p.ID != someID || p.Type != VarPartition || p.Bytes() != int64(sectors-2048-18432)*sectorSize {
			t.Errorf("first copy damaged: %v: data partition is %+v", damaged, p)
		}
		if damaged {
			continue
		}
		other, err := gpt.Read(file.New(f, true), sectorSize, sectorSize)
		if err != nil {
			t.Fatal(err)
		}
		if p := other.Partitions[3]; p.Name != "skerry-data" || p.Start != 18432 || p.End != sectors-2048-1 || !strings.EqualFold(string(p.Type), "4d21b016-b534-45c2-a9fb-5c16e091fd2d") || !strings.EqualFold(p.GUID, someID.String()) {
			t.Errorf("another reader finds %+v", p)
		}
	}
}

func TestWriteRepairsTheFirstCopy(t *testing.T) {
	const sectors = 9 * mib / sectorSize
	m := newMedium(t, factoryImage(t, 9*mib), sectors)
	m.durable[1] = [sectorSize]byte{}
	table, err := ReadTable(m, sectors)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Write(m); err != nil {
		t.Fatal(err)
	}
	if got, err := kernelTable(m); err != nil || got != factoryTable {
		t.Errorf("the kernel finds\n%s(%v)", got, err)
	}
}

func TestExtend(t *testing.T) {
	const sectors = 1024 * mib / sectorSize
	esp := Partition{Type: GUID{1}, Name: "skerry-esp", First: 2048, Last: 100*2048 - 1}
	data := Partition{Type: VarPartition, Name: "skerry-data", First: 100 * 2048, Last: 500*2048 - 1}
	behind := Partition{Type: GUID{1}, Name: "other", First: 500 * 2048, Last: 600*2048 - 1}
	full := make([]Partition, gptEntries)
	for i := range full {
		full[i] = Partition{Type: GUID{1}, Name: "p", First: uint64(2048 * (i + 1)), Last: uint64(2048*(i+2)) - 1}
	}
	for _, c := range []struct {
		name    string
		parts   []Partition
		minimum int64
		number  int
		changed bool
		last    uint64
		fail    string
	}{
		{"missing: made to the end", []Partition{esp}, 100 * mib, 2, true, 1023*2048 - 1, ""},
		{"a gap in the table is used", []Partition{{}, esp}, mib, 1, true, 1023*2048 - 1, ""},
		{"smaller than the disk: grown", []Partition{esp, data}, mib, 2, true, 1023*2048 - 1, ""},
		{"at the end already", []Partition{esp, {Type: VarPartition, Name: "skerry-data", First: 100 * 2048, Last: 1023*2048 - 1}}, mib, 2, false, 1023*2048 - 1, ""},
		{"to the very last usable sector already", []Partition{esp, {Type: VarPartition, Name: "skerry-data", First: 100 * 2048, Last: sectors - 34}}, mib, 2, false, sectors - 34, ""},
		{"something lies behind it: left alone", []Partition{esp, data, behind}, mib, 2, false, 500*2048 - 1, ""},
		{"exactly the least size", []Partition{esp}, 923 * mib, 2, true, 1023*2048 - 1, ""},
		{"one byte too small", []Partition{esp}, 923*mib + 1, 0, false, 0,
			"the disk is too small: it has 1024 MiB, which leaves 923 MiB for partition skerry-data, and 924 MiB is the least; " +
				"nothing was written; write the image to a disk of at least 1025 MiB"},
		{"no room at all", []Partition{esp, {Type: GUID{1}, Name: "big", First: 100 * 2048, Last: 1023*2048 + 1000}}, mib, 0, false, 0, "leaves 0 MiB"},
		{"table full", full, mib, 0, false, 0, "the table is full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := &Table{Sectors: sectors}
			copy(table.Partitions[:], c.parts)
			number, changed, err := table.Extend("skerry-data", VarPartition, someID, c.minimum)
			if c.fail != "" {
				if err == nil || !strings.Contains(err.Error(), c.fail) {
					t.Fatalf("error %v, want one with %q", err, c.fail)
				}
				return
			}
			if err != nil || number != c.number || changed != c.changed || table.Partitions[number-1].Last != c.last {
				t.Errorf("partition %d (changed %v) ends at %d, error %v; want %d (%v) at %d", number, changed, table.Partitions[max(number-1, 0)].Last, err, c.number, c.changed, c.last)
			}
		})
	}
}

func TestReadTableRefusesNonsense(t *testing.T) {
	const sectors = 9 * mib / sectorSize
	image := factoryImage(t, 9*mib)
	for name, damage := range map[string]func([]byte){
		"both headers":  func(b []byte) { b[512+20]++; b[len(b)-512+20]++ },
		"both arrays":   func(b []byte) { b[1024]++; b[len(b)-33*512]++ },
		"empty disk":    func(b []byte) { clear(b) },
		"entry's size":  func(b []byte) { binary.LittleEndian.PutUint32(b[512+84:], 256); clear(b[len(b)-512:]) },
		"header's size": func(b []byte) { binary.LittleEndian.PutUint32(b[512+12:], 1<<31); clear(b[len(b)-512:]) },
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(image)
			damage(b)
			if _, err := ReadTable(bytes.NewReader(b), sectors); !errors.Is(err, ErrNoTable) {
				t.Errorf("error %v, want %v", err, ErrNoTable)
			}
		})
	}
}

func TestWriteRefusesPartitionsTooNear(t *testing.T) {
	m := newMedium(t, factoryImage(t, 9*mib), 9*mib/sectorSize)
	table := &Table{Sectors: 9 * mib / sectorSize}
	table.Partitions[0] = Partition{Type: GUID{1}, Name: "old", First: 63, Last: 100}
	m.atSync = func(map[int64][sectorSize]byte) { t.Error("the disk was written") }
	if err := table.Write(m); err == nil || !strings.Contains(err.Error(), `"old" starts at sector 63`) {
		t.Errorf("error %v", err)
	}
}

func TestWipeFilesystem(t *testing.T) {
	const start, length = 4 * mib, 140 * mib
	super := [sectorSize]byte{0x38: 0x53, 0x39: 0xef}
	m := newMedium(t, nil, 200*mib/sectorSize)
	places := []int64{(start + ext4Superblock) / sectorSize, (start + ext4Spare) / sectorSize}
	outside := int64(start/sectorSize - 1)
	for _, n := range append(places, outside) {
		m.durable[n] = super
	}
	if err := wipeFilesystem(m, start, length); err != nil {
		t.Fatal(err)
	}
	for _, n := range places {
		if m.durable[n] != ([sectorSize]byte{}) {
			t.Errorf("sector %d still has a superblock", n)
		}
	}
	if m.durable[outside] != super {
		t.Error("a sector before the partition was written")
	}
	if err := wipeFilesystem(m, 199*mib, mib/2); err != nil {
		t.Errorf("a small partition: %v", err)
	}
}

func TestGUIDText(t *testing.T) {
	if got := VarPartition.String(); got != "4d21b016-b534-45c2-a9fb-5c16e091fd2d" {
		t.Error(got)
	}
}
