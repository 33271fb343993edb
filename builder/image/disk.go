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
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"github.com/diskfs/go-diskfs/backend"
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
func writeTable(f backend.WritableFile, p *plan.Plan, digest string, parts []partition, size int64) error {
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
	if err := t.Write(f, size); err != nil {
		return fmt.Errorf("cannot write the partition table: %w", err)
	}
	return nil
}

// writeDisk writes the whole disk image to name, by way of name.partial: nothing half-written ever has the final name.
// It returns the image's digest and size.
func writeDisk(ctx context.Context, name string, p *plan.Plan, root *artifact.Root, boot []File, pr progress.Reporter) (digest string, size int64, err error) {
	parts, size, err := layout(p)
	if err != nil {
		return "", 0, err
	}
	if root.Bytes > p.Disk.RootBytes {
		return "", 0, fmt.Errorf("cannot put the root file system of %s into its partition: it has %s, the partition %s; raise disk.root of board %s to at least %dMiB, or take something out of profile %s",
			p.Name, progress.Bytes(root.Bytes), progress.Bytes(p.Disk.RootBytes), p.Board, (root.Bytes+mib-1)/mib, p.Profile)
	}
	content := root.Bytes
	for _, b := range boot {
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
func fillDisk(ctx context.Context, w *sparseFile, p *plan.Plan, parts []partition, root *artifact.Root, boot []File) error {
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	// What is not written stays a hole: the empty slot costs no space on the workstation.
	if err := w.Truncate(w.size); err != nil {
		return fmt.Errorf("cannot write the disk image: %w", err)
	}
	if err := writeTable(w, p, digest, parts, w.size); err != nil {
		return err
	}
	id := guid(digest, "boot file system")
	fat := FAT{Bytes: parts[0].bytes, Label: "SKERRY-BOOT", Date: p.SourceDate, Serial: binary.BigEndian.Uint32(id[:4])}
	if err := fat.Write(ctx, w, parts[0].start, boot); err != nil {
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
