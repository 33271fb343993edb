package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
)

// Names of GPT partitions. The data partition is made by the device on its first boot.
const (
	PartitionESP   = "skerry-esp"
	PartitionRootA = "skerry-root-a"
	PartitionRootB = "skerry-root-b"
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

// partition is one partition of the disk; Start and Bytes are multiples of 1 MiB.
type partition struct {
	name  string
	kind  gpt.Type
	start int64
	bytes int64
}

// layout returns the partitions of a plan's disk and the size of the image, in bytes.
func layout(p *plan.Plan) ([]partition, int64, error) {
	if p.Disk.Table != "gpt" {
		return nil, 0, fmt.Errorf("cannot lay out a disk with partition table %q: only gpt is supported", p.Disk.Table)
	}
	root, ok := rootTypes[p.Target.GOARCH]
	if !ok {
		return nil, 0, fmt.Errorf("cannot lay out a disk for %s: no partition type is known for its root", p.Target.GOARCH)
	}
	parts := []partition{
		{name: PartitionESP, kind: gpt.EFISystemPartition, bytes: p.Disk.BootBytes},
		{name: PartitionRootA, kind: root, bytes: p.Disk.RootBytes},
		{name: PartitionRootB, kind: root, bytes: p.Disk.RootBytes},
	}
	next := int64(mib)
	for i := range parts {
		if parts[i].bytes <= 0 || parts[i].bytes%mib != 0 {
			return nil, 0, fmt.Errorf("cannot lay out partition %s: %d bytes are not a multiple of 1 MiB", parts[i].name, parts[i].bytes)
		}
		parts[i].start = next
		next += parts[i].bytes
	}
	return parts, next + mib, nil
}

// writeTable writes protective MBR and both partition tables.
func writeTable(f *os.File, p *plan.Plan, digest string, parts []partition, size int64) error {
	t := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true, GUID: guid(digest, "disk").String()}
	for i, part := range parts {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1,
			Start: uint64(part.start / sector),
			End:   uint64((part.start+part.bytes)/sector) - 1,
			Size:  uint64(part.bytes),
			Type:  part.kind,
			Name:  part.name,
			GUID:  guid(digest, part.name).String(),
		})
	}
	w, err := file.New(f, false).Writable()
	if err != nil {
		return fmt.Errorf("cannot write the partition table: %w", err)
	}
	if err := t.Write(w, size); err != nil {
		return fmt.Errorf("cannot write the partition table: %w", err)
	}
	return nil
}

// writeDisk writes the whole disk image to name, by way of name.partial: nothing half-written ever has the final name.
func writeDisk(ctx context.Context, name string, p *plan.Plan, root *artifact.Root, boot []File, pr progress.Reporter) (err error) {
	parts, size, err := layout(p)
	if err != nil {
		return err
	}
	if root.Bytes > p.Disk.RootBytes {
		return fmt.Errorf("cannot put the root file system of %s into its partition: it has %s, the partition %s; raise disk.root of board %s to at least %dMiB, or take something out of profile %s",
			p.Name, progress.Bytes(root.Bytes), progress.Bytes(p.Disk.RootBytes), p.Board, (root.Bytes+mib-1)/mib, p.Profile)
	}
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	content := root.Bytes
	for _, b := range boot {
		content += b.Bytes
	}
	partial := name + ".partial"
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			_ = os.Remove(partial)
			err = explainFull(err, name, content)
		}
	}()

	task := pr.Start("write "+filepath.Base(name), content)
	defer func() { task.Done(err) }()
	// Everything that is not written stays a hole: the empty slot costs no space on this disk.
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	if err := writeTable(f, p, digest, parts, size); err != nil {
		return err
	}
	id := guid(digest, "boot file system")
	fat := FAT{Bytes: parts[0].bytes, Label: "SKERRY-BOOT", Date: p.SourceDate, Serial: uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])}
	if err := fat.Write(ctx, countingWriterAt{f, task}, parts[0].start, boot); err != nil {
		return err
	}
	r, err := root.Content().Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := artifact.Copy(ctx, io.NewOffsetWriter(countingWriterAt{f, task}, parts[1].start), r); err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	if err := os.Rename(partial, name); err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	return syncDir(filepath.Dir(name))
}

type countingWriterAt struct {
	f    *os.File
	task progress.Task
}

func (w countingWriterAt) WriteAt(p []byte, off int64) (int, error) {
	n, err := w.f.WriteAt(p, off)
	w.task.Add(int64(n))
	return n, err
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
