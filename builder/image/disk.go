package image

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
	"github.com/skerryos/skerry/builder/progress"
)

// Names of partitions. With a GPT the data partition is made by the device on its first boot; an MBR image has a small one, which the
// device grows.
const (
	PartitionESP   = "skerry-esp"
	PartitionRootA = "skerry-root-a"
	PartitionRootB = "skerry-root-b"
	PartitionData  = "skerry-data"
)

const (
	mib    = 1 << 20
	sector = 512
)

// rootTypes are the partition types of root file systems, by GOARCH
// (https://uapi-group.org/specifications/specs/discoverable_partitions_specification/).
var rootTypes = map[string]gpt.Type{
	"amd64": gpt.LinuxRootX86_64,
	"arm64": gpt.LinuxRootArm64,
	"arm":   gpt.LinuxRootArm,
}

// guid is an identifier that depends on the plan and on what it is for (RFC 9562, version 8).
func guid(planDigest, purpose string) uuid.UUID {
	sum := sha256.Sum256([]byte("skerry " + purpose + " " + planDigest))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return uuid.UUID(sum[:16])
}

// partition is one partition of the disk; start and bytes are multiples of 1 MiB.
type partition struct {
	name  string
	start int64
	bytes int64
}

// A diskTable is a kind of partition table.
type diskTable struct {
	// data is the size of the data partition in the image, in bytes; 0 if the device makes it on its first boot.
	data int64
	// after is how many bytes the table takes behind the partitions.
	after int64
	write func(f backend.WritableFile, p *plan.Plan, digest string, parts []partition, size int64) error
}

var diskTables = map[string]diskTable{
	profile.GPT: {after: mib, write: writeGPT},
	profile.MBR: {data: mib, write: writeMBR},
}

// layout returns the partitions of a plan's disk and the size of the image, in bytes.
func layout(p *plan.Plan) ([]partition, int64, error) {
	table, ok := diskTables[p.Disk.Table]
	if !ok {
		return nil, 0, fmt.Errorf("cannot lay out a disk with partition table %q: there are %s", p.Disk.Table, strings.Join(slices.Sorted(maps.Keys(diskTables)), ", "))
	}
	parts := []partition{
		{name: PartitionESP, bytes: p.Disk.BootBytes},
		{name: PartitionRootA, bytes: p.Disk.RootBytes},
		{name: PartitionRootB, bytes: p.Disk.RootBytes},
	}
	if table.data > 0 {
		parts = append(parts, partition{name: PartitionData, bytes: table.data})
	}
	next := int64(mib)
	for i := range parts {
		if parts[i].bytes <= 0 || parts[i].bytes%mib != 0 {
			return nil, 0, fmt.Errorf("cannot lay out partition %s: %d bytes are not a multiple of 1 MiB", parts[i].name, parts[i].bytes)
		}
		parts[i].start = next
		next += parts[i].bytes
	}
	return parts, next + table.after, nil
}

// writeGPT writes protective MBR and both partition tables.
func writeGPT(f backend.WritableFile, p *plan.Plan, digest string, parts []partition, size int64) error {
	root, ok := rootTypes[p.Target.GOARCH]
	if !ok {
		return fmt.Errorf("cannot write the partition table: no partition type is known for the root of %s", p.Target.GOARCH)
	}
	kinds := map[string]gpt.Type{PartitionESP: gpt.EFISystemPartition, PartitionRootA: root, PartitionRootB: root}
	t := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: guid(digest, "disk").String()}
	for i, part := range parts {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1,
			Start: uint64(part.start / sector),
			End:   uint64((part.start+part.bytes)/sector) - 1,
			Size:  uint64(part.bytes),
			Type:  kinds[part.name],
			Name:  part.name,
			GUID:  guid(digest, part.name).String(),
		})
	}
	if err := t.Write(f, size); err != nil {
		return fmt.Errorf("cannot write the partition table: %w", err)
	}
	return nil
}

// Types of MBR partitions.
const (
	mbrFAT32 = 0x0c
	mbrLinux = 0x83
)

// writeMBR writes a partition table with up to four primary partitions; the first one is active. An MBR has no names: what a partition
// is for follows from its number.
func writeMBR(f backend.WritableFile, _ *plan.Plan, digest string, parts []partition, _ int64) error {
	const signatureAt, entriesAt, entrySize = 440, 446, 16
	le := binary.LittleEndian
	b := make([]byte, sector)
	id := guid(digest, "disk")
	copy(b[signatureAt:], id[:4])
	for i, part := range parts {
		first, count := part.start/sector, part.bytes/sector
		if first+count > math.MaxUint32 {
			return fmt.Errorf("cannot write the partition table: partition %s ends behind the 2 TiB that an MBR can describe", part.name)
		}
		e := b[entriesAt+i*entrySize:][:entrySize]
		e[4] = mbrLinux
		if part.name == PartitionESP {
			e[0], e[4] = 0x80, mbrFAT32
		}
		// Cylinders, heads and sectors of an address that does not fit there: nobody has used them for thirty years.
		copy(e[1:], "\xfe\xff\xff")
		copy(e[5:], "\xfe\xff\xff")
		le.PutUint32(e[8:], uint32(first))
		le.PutUint32(e[12:], uint32(count))
	}
	b[510], b[511] = 0x55, 0xaa
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("cannot write the partition table: %w", err)
	}
	return nil
}

// writeDisk writes the whole disk image to name, by way of name.partial: nothing half-written ever has the final name.
// It returns the image's digest and size.
func writeDisk(ctx context.Context, name string, p *plan.Plan, root *artifact.Root, boot *bootFiles, pr progress.Reporter) (digest string, size int64, err error) {
	parts, size, err := layout(p)
	if err != nil {
		return "", 0, err
	}
	if root.Bytes > p.Disk.RootBytes {
		return "", 0, fmt.Errorf("cannot put the root file system of %s into its partition: it has %s, the partition %s; raise disk.root of board %s to at least %dMiB, or take something out of profile %s",
			p.Name, progress.Bytes(root.Bytes), progress.Bytes(p.Disk.RootBytes), p.Board, (root.Bytes+mib-1)/mib, p.Profile)
	}
	content := root.Bytes
	for _, b := range boot.files {
		content += b.Bytes
	}
	partial := name + ".partial"
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return "", 0, fmt.Errorf("cannot write the disk image: %w", err)
	}
	task := pr.Start("write "+filepath.Base(name), content)
	defer func() {
		task.Done(err)
		f.Close()
		if err != nil {
			_ = os.Remove(partial)
			err = explainFull(err, name, content)
		}
	}()
	w := &sparseFile{File: f, size: size, task: task}
	if err := fillDisk(ctx, w, p, parts, root, boot); err != nil {
		return "", 0, err
	}
	if digest, err = w.digest(ctx); err != nil {
		return "", 0, fmt.Errorf("cannot read the disk image back: %w", err)
	}
	if err := f.Sync(); err != nil {
		return "", 0, fmt.Errorf("cannot write the disk image: %w", err)
	}
	if err := os.Rename(partial, name); err != nil {
		return "", 0, fmt.Errorf("cannot write the disk image: %w", err)
	}
	return digest, size, syncDir(filepath.Dir(name))
}

// fillDisk writes everything that is not zero into the file.
func fillDisk(ctx context.Context, w *sparseFile, p *plan.Plan, parts []partition, root *artifact.Root, boot *bootFiles) error {
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	// What is not written stays a hole: the empty slot costs no space on the workstation.
	if err := w.Truncate(w.size); err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	if err := diskTables[p.Disk.Table].write(w, p, digest, parts, w.size); err != nil {
		return err
	}
	if len(boot.state) > 0 {
		if _, err := w.WriteAt(boot.state, boot.stateOffset); err != nil {
			return fmt.Errorf("cannot write the boot state: %w", err)
		}
	}
	id := guid(digest, "boot file system")
	fat := FAT{Bytes: parts[0].bytes, Label: "SKERRY-BOOT", Date: p.SourceDate, Serial: binary.BigEndian.Uint32(id[:4])}
	if err := fat.Write(ctx, w, parts[0].start, boot.files); err != nil {
		return err
	}
	r, err := root.Content().Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := artifact.Copy(ctx, io.NewOffsetWriter(w, parts[1].start), r); err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	return nil
}

// sparseFile remembers where it was written to, so that its digest need not read the holes, which are most of it.
type sparseFile struct {
	*os.File
	size    int64
	task    progress.Task
	written []extent
}

// extent is the bytes from start until before end.
type extent struct{ start, end int64 }

func (f *sparseFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.task.Add(int64(n))
	if last := len(f.written) - 1; last >= 0 && f.written[last].end == off {
		f.written[last].end += int64(n)
	} else {
		f.written = append(f.written, extent{off, off + int64(n)})
	}
	return n, err
}

// digest is the SHA-256 of the whole file, holes included.
func (f *sparseFile) digest(ctx context.Context) (string, error) {
	sort.Slice(f.written, func(i, j int) bool { return f.written[i].start < f.written[j].start })
	h := sha256.New()
	var at int64
	for _, e := range append(f.written, extent{f.size, f.size}) {
		if e.start > at {
			if _, err := artifact.Copy(ctx, h, io.LimitReader(zeros{}, e.start-at)); err != nil {
				return "", err
			}
			at = e.start
		}
		if e.end > at {
			if _, err := artifact.Copy(ctx, h, io.NewSectionReader(f.File, at, e.end-at)); err != nil {
				return "", err
			}
			at = e.end
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// zeros is an endless reader of zeros. The reader's buffer is cleared once for each read, which is cheap beside a digest.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// explainFull says what to do about a full disk.
func explainFull(err error, name string, content int64) error {
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return fmt.Errorf("%w; %s needs %s: free some space there, or give another folder with --output; a former image is untouched",
		err, filepath.Base(name), progress.Bytes(content))
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, fs.ErrInvalid) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	return nil
}
