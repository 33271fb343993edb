package image

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"time"
	"unicode/utf16"
)

// A File goes into the boot partition.
type File struct {
	// Path is relative, with slashes: EFI/BOOT/BOOTX64.EFI.
	Path  string
	Bytes int64
	Open  func() (io.ReadCloser, error)
}

// FAT describes the FAT32 file system of a boot partition.
type FAT struct {
	// Bytes is the size of the partition.
	Bytes int64
	// Label has at most 11 characters.
	Label string
	// Serial is the volume's serial number; Linux shows it as the UUID.
	Serial uint32
	// Date is the time of all files, in Unix seconds.
	Date int64
}

// Sizes of FAT32, in bytes: "Microsoft Extensible Firmware Initiative FAT32 File System Specification", 1.03.
const (
	fatSector    = 512
	fatEntry     = 32 // of a directory
	fatReserved  = 32 // sectors before the first table, at least
	fatMinimum   = 65525
	fatEnd       = 0x0fffffff
	fatRoot      = 2 // first cluster
	fatMaxFile   = 1<<32 - 1
	attrDir      = 0x10
	attrLabel    = 0x08
	attrArchive  = 0x20
	attrLongName = 0x0f
)

// Write writes a FAT32 file system with these files at offset off of w, where all must be zero before. The same
// files give the same bytes: clusters are given out in the order of the paths, each file in one piece.
//
// It is written here because go-diskfs takes times from the process's environment, points the `..` of top folders
// at the root's cluster and leaves the count of free clusters unset, all of which fsck.vfat or we would have to mend.
func (f FAT) Write(ctx context.Context, w io.WriterAt, off int64, files []File) error {
	l, err := f.layout()
	if err != nil {
		return err
	}
	root, err := fatTree(files)
	if err != nil {
		return err
	}
	next := uint32(fatRoot)
	table := []uint32{0x0ffffff8, fatEnd} // media type; clean
	root.allocate(l, &next, &table)
	if free := int64(l.clusters) + fatRoot - int64(next); free < 0 {
		return fmt.Errorf("cannot fit the boot files into the boot partition of %d MiB: %d KiB are missing; raise disk.boot of the board", f.Bytes>>20, -free*int64(l.clusterBytes)>>10)
	}
	for _, part := range f.headers(l, next) {
		if _, err := w.WriteAt(part.data, off+part.off); err != nil {
			return fmt.Errorf("cannot write the boot partition: %w", err)
		}
	}
	raw := make([]byte, 0, 4*len(table))
	for _, v := range table {
		raw = binary.LittleEndian.AppendUint32(raw, v)
	}
	for i := range int64(2) {
		if _, err := w.WriteAt(raw, off+(int64(l.reserved)+i*int64(l.fatSectors))*fatSector); err != nil {
			return fmt.Errorf("cannot write the boot partition: %w", err)
		}
	}
	return root.write(ctx, f, l, 0, func(cluster uint32, at int64, p []byte) error {
		_, err := w.WriteAt(p, off+l.data+int64(cluster-fatRoot)*int64(l.clusterBytes)+at)
		return err
	})
}

type fatLayout struct {
	sectors, reserved, fatSectors, clusters uint32
	clusterBytes                            uint32
	data                                    int64 // offset of the first cluster
}

// layout chooses the largest cluster up to 4 KiB that leaves enough clusters for FAT32, and starts the data at a
// multiple of 4 KiB, which flash memory likes.
func (f FAT) layout() (fatLayout, error) {
	if f.Bytes%fatSector != 0 || f.Bytes/fatSector > 1<<32-1 {
		return fatLayout{}, fmt.Errorf("cannot make a FAT32 file system of %d bytes", f.Bytes)
	}
	l := fatLayout{sectors: uint32(f.Bytes / fatSector)}
	for spc := uint32(8); spc > 0; spc /= 2 {
		l.clusterBytes = spc * fatSector
		// Each table needs four bytes for each cluster; one more sector than necessary does no harm.
		l.fatSectors = (l.sectors/spc+fatRoot)*4/fatSector + 1
		l.reserved = fatReserved
		for (l.reserved+2*l.fatSectors)%8 != 0 {
			l.reserved++
		}
		used := l.reserved + 2*l.fatSectors
		if used >= l.sectors {
			continue
		}
		l.clusters = (l.sectors - used) / spc
		l.data = int64(used) * fatSector
		if l.clusters >= fatMinimum {
			return l, nil
		}
	}
	return fatLayout{}, fmt.Errorf("cannot make a FAT32 file system of %d MiB: it needs at least 34 MiB; raise disk.boot of the board", f.Bytes>>20)
}

type fatPart struct {
	off  int64
	data []byte
}

// headers are boot sector and FSInfo sector, and the copies of both. next is the first free cluster.
func (f FAT) headers(l fatLayout, next uint32) []fatPart {
	le := binary.LittleEndian
	b := make([]byte, fatSector)
	copy(b, "\xeb\x58\x90SKERRY  ")
	le.PutUint16(b[11:], fatSector)
	b[13] = byte(l.clusterBytes / fatSector)
	le.PutUint16(b[14:], uint16(l.reserved))
	b[16] = 2                // tables
	b[21] = 0xf8             // fixed disk
	le.PutUint16(b[24:], 63) // geometry that nobody asks for
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[32:], l.sectors)
	le.PutUint32(b[36:], l.fatSectors)
	le.PutUint32(b[44:], fatRoot)
	le.PutUint16(b[48:], 1) // sector of FSInfo
	le.PutUint16(b[50:], 6) // sector of the copy
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], f.Serial)
	copy(b[71:], fmt.Sprintf("%-11.11sFAT32   ", f.Label))
	b[510], b[511] = 0x55, 0xaa

	info := make([]byte, fatSector)
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], l.clusters+fatRoot-next) // free
	le.PutUint32(info[492:], next)
	info[510], info[511] = 0x55, 0xaa
	return []fatPart{{0, b}, {fatSector, info}, {6 * fatSector, b}, {7 * fatSector, info}}
}

// fatNode is a file, or a folder with children in the order of their names.
type fatNode struct {
	name     string
	file     *File
	children []*fatNode
	cluster  uint32 // first one, 0 for an empty file
	bytes    uint32
	short    [11]byte
	long     bool // needs a long name too
}

func fatTree(files []File) (*fatNode, error) {
	root := &fatNode{}
	for i := range files {
		dir := root
		elems := strings.Split(files[i].Path, "/")
		for _, e := range elems[:len(elems)-1] {
			child := dir.child(e)
			if child == nil {
				child = &fatNode{name: e}
				dir.children = append(dir.children, child)
			}
			dir = child
		}
		base := path.Base(files[i].Path)
		if dir.file != nil || dir.child(base) != nil || files[i].Bytes > fatMaxFile {
			return nil, fmt.Errorf("cannot put %s into the boot partition: its name is taken or it has more than 4 GiB", files[i].Path)
		}
		dir.children = append(dir.children, &fatNode{name: base, file: &files[i], bytes: uint32(files[i].Bytes)})
	}
	return root, root.nameAll()
}

// child finds a name as FAT does, without regard to case.
func (n *fatNode) child(name string) *fatNode {
	for _, c := range n.children {
		if strings.EqualFold(c.name, name) {
			return c
		}
	}
	return nil
}

// nameAll sorts the folder and gives each entry a short name.
func (n *fatNode) nameAll() error {
	sort.Slice(n.children, func(i, j int) bool { return n.children[i].name < n.children[j].name })
	taken := map[[11]byte]bool{}
	for _, c := range n.children {
		var err error
		if c.short, c.long, err = shortName(c.name, taken); err != nil {
			return err
		}
		taken[c.short] = true
		if c.file == nil {
			if err := c.nameAll(); err != nil {
				return err
			}
		}
	}
	return nil
}

// shortName makes the 8.3 name: the name itself in capitals if that is one, else its first letters, a tilde and a number. The boot ROM
// of a Raspberry Pi knows only such names and looks for BOOTCODE.BIN.
func shortName(name string, taken map[[11]byte]bool) (short [11]byte, long bool, err error) {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~"
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(allowed, r) {
				return r
			}
			return '_'
		}, strings.ReplaceAll(strings.ToUpper(s), ".", ""))
	}
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	ext = strings.TrimPrefix(ext, ".")
	s, e := clean(stem), clean(ext)
	put := func(s string) {
		copy(short[:], fmt.Sprintf("%-8.8s%-3.3s", s, e))
	}
	put(s)
	if s == strings.ToUpper(stem) && e == strings.ToUpper(ext) && len(s) <= 8 && len(e) <= 3 && s != "" && !taken[short] {
		return short, s != stem || e != ext, nil
	}
	for i := 1; i < 1e6; i++ {
		tail := fmt.Sprintf("~%d", i)
		put(s[:min(len(s), 8-len(tail))] + tail)
		if !taken[short] {
			return short, true, nil
		}
	}
	return short, true, errors.New("cannot name a file of the boot partition: too many alike")
}

// entries is how many directory entries the folder has; the root has a label, other folders have . and .. instead.
func (n *fatNode) entries(isRoot bool) int {
	count := 2
	if isRoot {
		count = 1
	}
	for _, c := range n.children {
		count += 1 + len(longEntries(c))
	}
	return count
}

// allocate gives clusters to the folder, then to what is in it.
func (n *fatNode) allocate(l fatLayout, next *uint32, table *[]uint32) {
	bytes := int64(n.bytes)
	if n.file == nil {
		bytes = int64(n.entries(*next == fatRoot)) * fatEntry
	}
	count := uint32((bytes + int64(l.clusterBytes) - 1) / int64(l.clusterBytes))
	if count > 0 {
		n.cluster = *next
		for i := uint32(1); i < count; i++ {
			*table = append(*table, *next+i)
		}
		*table = append(*table, fatEnd)
		*next += count
	}
	for _, c := range n.children {
		c.allocate(l, next, table)
	}
}

// write writes the folder and what is in it; parent is the first cluster of its parent, 0 for the root as FAT has it.
func (n *fatNode) write(ctx context.Context, f FAT, l fatLayout, parent uint32, put func(cluster uint32, at int64, p []byte) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n.file != nil {
		return n.writeFile(ctx, put)
	}
	var raw []byte
	self := n.cluster
	if n.cluster == fatRoot {
		self = 0
		raw = f.appendEntry(raw, [11]byte([]byte(fmt.Sprintf("%-11.11s", f.Label))), attrLabel, 0, 0)
	} else {
		raw = f.appendEntry(raw, [11]byte([]byte(".          ")), attrDir, n.cluster, 0)
		raw = f.appendEntry(raw, [11]byte([]byte("..         ")), attrDir, parent, 0)
	}
	for _, c := range n.children {
		for _, e := range longEntries(c) {
			raw = append(raw, e[:]...)
		}
		if c.file != nil {
			raw = f.appendEntry(raw, c.short, attrArchive, c.cluster, c.bytes)
		} else {
			raw = f.appendEntry(raw, c.short, attrDir, c.cluster, 0)
		}
	}
	if err := put(n.cluster, 0, raw); err != nil {
		return fmt.Errorf("cannot write the boot partition: %w", err)
	}
	for _, c := range n.children {
		if err := c.write(ctx, f, l, self, put); err != nil {
			return err
		}
	}
	return nil
}

func (n *fatNode) writeFile(ctx context.Context, put func(cluster uint32, at int64, p []byte) error) error {
	r, err := n.file.Open()
	if err != nil {
		return fmt.Errorf("cannot write %s to the boot partition: %w", n.file.Path, err)
	}
	defer r.Close()
	buf := make([]byte, 1<<20)
	for at := int64(0); at < n.file.Bytes; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, err := io.ReadFull(r, buf[:min(int64(len(buf)), n.file.Bytes-at)])
		if err == nil {
			err = put(n.cluster, at, buf[:k])
		}
		if err != nil {
			return fmt.Errorf("cannot write %s to the boot partition: %w", n.file.Path, err)
		}
		at += int64(k)
	}
	return nil
}

func (f FAT) appendEntry(b []byte, name [11]byte, attr byte, cluster, size uint32) []byte {
	le := binary.LittleEndian
	t := time.Unix(f.Date, 0).UTC()
	// Two-second steps since 1980.
	date := uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day())
	clock := uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	var e [fatEntry]byte
	copy(e[:], name[:])
	e[11] = attr
	le.PutUint16(e[14:], clock)
	le.PutUint16(e[16:], date)
	le.PutUint16(e[18:], date)
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], date)
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], size)
	return append(b, e[:]...)
}

// longEntries are the entries that carry a node's long name, last part first.
func longEntries(n *fatNode) [][fatEntry]byte {
	if !n.long {
		return nil
	}
	const perEntry = 13
	var sum byte
	for _, c := range n.short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	units := utf16.Encode([]rune(n.name))
	count := (len(units) + perEntry - 1) / perEntry
	out := make([][fatEntry]byte, count)
	for i := range out {
		seq := count - i
		e := &out[i]
		e[0] = byte(seq)
		if i == 0 {
			e[0] |= 0x40 // last part
		}
		e[11], e[13] = attrLongName, sum
		for k := range perEntry {
			u := uint16(0xffff)
			switch pos := (seq-1)*perEntry + k; {
			case pos < len(units):
				u = units[pos]
			case pos == len(units):
				u = 0
			}
			// Five, six and two characters, around the fields that old systems look at.
			at := 1 + 2*k
			if k >= 11 {
				at = 28 + 2*(k-11)
			} else if k >= 5 {
				at = 14 + 2*(k-5)
			}
			binary.LittleEndian.PutUint16(e[at:], u)
		}
	}
	return out
}
