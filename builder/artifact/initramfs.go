package artifact

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"

	"github.com/skerryos/skerry/builder/plan"
)

// initramfsRecipe is part of the key of initramfs images; raise it when initramfs.go makes other bytes of a tree.
const initramfsRecipe = 1

// InitProgram is the name of the plan's program that becomes /init.
const InitProgram = "init"

// Initramfs makes the initramfs: init, the modules that are needed to reach the root file system, and nothing else.
func (b *Builder) Initramfs(ctx context.Context, p *plan.Plan) (Artifact, error) {
	t, err := b.initramfsTree(ctx, p)
	if err != nil {
		return Artifact{}, err
	}
	key, err := Key("initramfs", initramfsRecipe, libraryVersion("github.com/klauspost/compress"), t.keyEntries(), p.SourceDate)
	if err != nil {
		return Artifact{}, err
	}
	a, _, err := Make(ctx, b.Store, "initramfs", key, func(ctx context.Context, f *os.File) (struct{}, error) {
		var total int64
		for _, e := range t.Entries() {
			total += e.Content.Bytes
		}
		task := b.Progress.Start("make initramfs", total)
		err := WriteInitramfs(ctx, f, t, p.SourceDate, task.Add)
		task.Done(err)
		return struct{}{}, err
	})
	return a, err
}

func (b *Builder) initramfsTree(ctx context.Context, p *plan.Plan) (*Tree, error) {
	programs, err := b.Programs(ctx, p)
	if err != nil {
		return nil, err
	}
	init, ok := programs[InitProgram]
	if !ok {
		return nil, fmt.Errorf("cannot make the initramfs of %s: the plan has no program named %q", p.Name, InitProgram)
	}
	index, err := b.Modules(ctx, p)
	if err != nil {
		return nil, err
	}
	t := &Tree{}
	const origin = "builder"
	add := func(e Entry) {
		if err == nil {
			err = t.Add(e)
		}
	}
	add(Entry{Path: "/init", Mode: 0o755, Content: init, Origin: "program init"})
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/sysroot"} {
		add(Entry{Path: d, Mode: fs.ModeDir | 0o755, Origin: origin})
	}
	digest, derr := p.Digest()
	if derr != nil {
		return nil, derr
	}
	// The presence of this file tells programs that they run in an initramfs: os-release(5).
	add(Entry{Path: "/etc/initrd-release", Mode: 0o644, Content: BytesContent(osRelease(p, digest)), Origin: origin})
	add(Entry{Path: "/etc/build-time", Mode: 0o644, Content: BytesContent(decimalLine(p.SourceDate)), Origin: origin})
	if err != nil {
		return nil, err
	}
	return t, index.AddBootModules(t, p)
}

// WriteInitramfs writes the tree as a cpio archive in the "newc" format, compressed with zstd
// (https://docs.kernel.org/driver-api/early-userspace/buffer-format.html). add is told of each file's bytes.
func WriteInitramfs(ctx context.Context, w io.Writer, t *Tree, sourceDate int64, add func(int64)) error {
	// One goroutine: the bytes then depend on nothing but the input. The window of this level is 8 MiB, which the
	// kernel's decompressor accepts.
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("cannot compress the initramfs: %w", err)
	}
	c := cpio.NewWriter(z)
	for _, e := range t.Entries() {
		if e.Path == "/" {
			continue
		}
		if err := writeCpioEntry(ctx, c, e, sourceDate); err != nil {
			return fmt.Errorf("cannot write the initramfs: %s: %w", e.Path, err)
		}
		add(e.Content.Bytes)
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("cannot write the initramfs: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("cannot write the initramfs: %w", err)
	}
	return nil
}

func writeCpioEntry(ctx context.Context, w *cpio.Writer, e Entry, date int64) error {
	h := &cpio.Header{
		Name:    strings.TrimPrefix(e.Path, "/"),
		Mode:    cpio.FileMode(e.Mode.Perm()),
		ModTime: time.Unix(date, 0),
	}
	switch {
	case e.isDir():
		h.Mode |= cpio.TypeDir
		h.Links = 2
		return w.WriteHeader(h)
	case e.isLink():
		h.Mode |= cpio.TypeSymlink
		h.Size = int64(len(e.Target))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(w, e.Target)
		return err
	}
	h.Mode |= cpio.TypeReg
	h.Size = e.Content.Bytes
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	r, err := e.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = Copy(ctx, w, r)
	return err
}
