package image

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/initd/bundle"
)

// bootChunk is the size of the pieces that the boot images of both slots are cut into. Those of systemd-boot differ in one letter of
// the command line: the smaller the pieces, the less is stored twice. Those of U-Boot are the same, and stored once.
const bootChunk = 1 << 20

// BundleOptions are what a bundle has beside the image.
type BundleOptions struct {
	// File is where it is written; empty: NAME-VERSION.skb in the output folder.
	File string
	// Floor is the security floor, if it is higher than the image's; see bundle.Manifest.
	Floor uint64
	// Keys is what the bundle does to the keys that a device trusts.
	Keys bundle.KeyChange
	// Sign signs the manifest; the trusted comment is part of what is signed.
	Sign func(manifest []byte, trustedComment string) ([]byte, error)
}

// A BundleResult says what was made.
type BundleResult struct {
	Bundle  string `json:"bundle"`
	Version string `json:"version"`
	Board   string `json:"board"`
	Bytes   int64  `json:"bytes"`
	// Plain is how many bytes a device writes: one slot's root and boot image.
	Plain  int64 `json:"slotBytes"`
	Chunks int   `json:"chunks"`
}

// Bundle writes the signed bundle that brings devices to what Build would make of the same plan: the same bytes of a slot.
func Bundle(ctx context.Context, b *artifact.Builder, p *plan.Plan, dir string, o BundleOptions) (*BundleResult, error) {
	a, err := makeArtefacts(ctx, b, p, dir)
	if err != nil {
		return nil, err
	}
	content, err := a.root.Content().Open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	sources := []bundle.Source{{Name: bundle.RootArtefact, Size: a.root.Bytes, Content: until{ctx, content}}}
	r := &BundleResult{Bundle: o.File, Version: p.Version, Board: p.Board, Plain: a.root.Bytes}
	for _, slot := range []string{"a", "b"} {
		f, err := bootParts(ctx, b, p, a, slot)
		if err != nil {
			return nil, err
		}
		image, err := f.image.Open()
		if err != nil {
			return nil, err
		}
		defer image.Close()
		sources = append(sources, bundle.Source{
			Name: bundle.BootArtefact(slot), Size: f.image.Bytes, Content: until{ctx, image}, ChunkSize: bootChunk, Alike: slot == "b",
		})
		if slot == "a" {
			r.Plain += f.image.Bytes
		}
	}
	if r.Bundle == "" {
		r.Bundle = filepath.Join(dir, fmt.Sprintf("%s-%s.skb", p.Name, p.Version))
	}
	out, err := renameio.NewPendingFile(r.Bundle, renameio.WithPermissions(0o644), renameio.WithTempDir(filepath.Dir(r.Bundle)))
	if err != nil {
		return nil, fmt.Errorf("cannot write the bundle: %w", err)
	}
	defer out.Cleanup()
	task := b.Progress.Start("write "+filepath.Base(r.Bundle), 0)
	m, err := bundle.Create(out, bundle.Manifest{
		Board: p.Board, Architecture: p.Target.GOARCH, Version: p.Version, Floor: max(o.Floor, p.Floor), Created: p.SourceDate, Keys: o.Keys,
	}, sources, func(manifest []byte) ([]byte, error) {
		// No date but that of the plan, so that the same plan gives the same bytes.
		return o.Sign(manifest, fmt.Sprintf("skerry %s for %s, %d", p.Version, p.Board, p.SourceDate))
	})
	task.Done(err)
	if err != nil {
		return nil, explainFull(err, r.Bundle, r.Plain)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return nil, fmt.Errorf("cannot write the bundle: %w", err)
	}
	r.Bytes, r.Chunks = m.Size(), len(m.Chunks)
	return r, nil
}

// until is content that cannot be read any more when the context is done.
type until struct {
	ctx     context.Context
	content io.ReaderAt
}

func (u until) ReadAt(b []byte, offset int64) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.content.ReadAt(b, offset)
}
