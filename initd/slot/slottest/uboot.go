package slottest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/skerryos/skerry/initd/slot"
)

// UBootKeys are the variables of the state.
var UBootKeys = []string{"ab_seq", "ab_cur", "ab_count", "ab_dir_a", "ab_dir_b", "ab_tries_a", "ab_tries_b", "ab_done_a", "ab_done_b"}

// UBootFiles are the files of a boot image besides its start script, in the order in which the start script loads them.
var UBootFiles = []string{"kernel", "board.dtb", "initramfs"}

// A UBoot is a machine with U-Boot and Skerry's boot script.
type UBoot struct {
	slot.UBoot
	FAT     *FAT
	Sectors *Sectors
	// Start is the start script in boot images.
	Start string
}

// NewUBoot is a machine as the factory makes it.
func NewUBoot(image string, tries int) Machine { return NewUBootWith(image, tries, "start") }

// NewUBootWith is NewUBoot with a start script.
func NewUBootWith(image string, tries int, start string) *UBoot {
	files := map[string]string{"a-0/" + slot.StartScript: start}
	for i, part := range parts([]byte(image)) {
		files["a-0/"+UBootFiles[i]] = string(part)
	}
	var copies [Copies][]byte
	for i := range copies {
		copies[i] = EncodeEnv(UBootKeys, func(key string) string {
			return map[string]string{"ab_seq": strconv.Itoa(i + 1), "ab_cur": "a", "ab_count": "0", "ab_dir_a": "a-0", "ab_dir_b": "none",
				"ab_tries_a": strconv.FormatInt(int64(tries), 16), "ab_tries_b": "0", "ab_done_a": "0", "ab_done_b": "0"}[key]
		}, slot.SectorSize)
	}
	return UBootOf(files, copies, start)
}

// UBootOf is a machine with these files on its boot partition, these copies of the state, and a start script that all that is
// complete has.
func UBootOf(files map[string]string, copies [Copies][]byte, start string) *UBoot {
	return newUBoot(newFAT("", files), NewSectors(copies), start)
}

func newUBoot(f *FAT, s *Sectors, start string) *UBoot {
	return &UBoot{slot.UBoot{Volume: f, Disk: s}, f, s, start}
}

// parts cuts an image into files.
func parts(image []byte) [][]byte {
	third := len(image) / 3
	return [][]byte{image[:third], image[third : 2*third], image[2*third:]}
}

// Install makes an archive of the image and installs that.
func (m *UBoot) Install(n slot.Name, image io.Reader, size int64, tries int) error {
	content, err := io.ReadAll(io.LimitReader(image, size))
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(name string, data []byte) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}))
		_, werr := w.Write(data)
		err = errors.Join(err, werr)
	}
	for i, part := range parts(content) {
		add(UBootFiles[i], part)
	}
	add(slot.StartScript, []byte(m.Start))
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	length := int64(archive.Len()) + size - int64(len(content)) // what is missing of the image is missing there
	return m.UBoot.Install(n, &archive, length, tries)
}

// OnStep implements [Machine].
func (m *UBoot) OnStep(do func() error) { m.FAT.onStep, m.Sectors.onStep = do, do }

// Cut implements [Machine].
func (m *UBoot) Cut(luck Luck) Machine { return m.CutUBoot(luck) }

// CutUBoot is Cut.
func (m *UBoot) CutUBoot(luck Luck) *UBoot {
	return newUBoot(m.FAT.CutFAT(luck), m.Sectors.cut(luck), m.Start)
}

// Synced implements [Machine].
func (m *UBoot) Synced() bool { return m.FAT.Synced() && len(m.Sectors.pending) == 0 }

// String implements [Machine].
func (m *UBoot) String() string {
	out := fmt.Sprintf("no valid copy, %v", m.FAT)
	if newest, v := m.Sectors.newest(); newest >= 0 {
		out = fmt.Sprintf("copy %d, number %s:", newest, v["ab_seq"])
		for _, n := range order(v["ab_cur"]) {
			if v["ab_dir_"+n] != "none" {
				out += fmt.Sprintf(" %s (%s, %s made)", v["ab_dir_"+n], v["ab_tries_"+n], v["ab_done_"+n])
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.FAT.now.names)) {
		if m.FAT.now.names[name].folder {
			if files, _ := m.Load(path.Join(name, slot.StartScript)); files == nil {
				out += ", " + name + " is not complete"
			}
		}
	}
	return out
}

// order are the slots in the order in which they are tried.
func order(first string) []string {
	if first == "b" {
		return []string{"b", "a"}
	}
	return []string{"a", "b"}
}

// number reads one as U-Boot does: as hexadecimal digits, as far as there are any.
func number(s string) uint64 {
	end := strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
	if end < 0 {
		end = len(s)
	}
	n, _ := strconv.ParseUint(s[:end], 16, 64) // no digits: 0
	return n
}

// Images implements [Machine].
func (m *UBoot) Images() [][]byte {
	var out [][]byte
	add := func(folder string) {
		if image, err := m.start(folder); err == nil {
			out = append(out, image)
		}
	}
	newest, v := m.Sectors.newest()
	if newest < 0 {
		for _, folder := range lastResort {
			add(folder)
		}
	}
	for _, n := range order(v["ab_cur"]) {
		if tries := v["ab_tries_"+n]; newest >= 0 && (tries == "good" || number(tries) > 0) {
			add(v["ab_dir_"+n])
		}
	}
	return out
}

// Load reads a file of the boot partition, as U-Boot does.
func (m *UBoot) Load(name string) ([]byte, error) {
	c := m.FAT.now.names[strings.TrimPrefix(name, "/")]
	if c == nil || c.folder {
		return nil, fmt.Errorf("no file %s", name)
	}
	return c.data, nil
}
