// Package image turns artefacts into a disk image: partition table, boot partition with boot loader and unified kernel
// image, root file system of slot a, an empty slot b. It writes the software bill of materials and the build's manifest
// beside it.
//
// The same plan, sources and packages give the same bytes, wherever and whenever they are put together.
package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
)

// diskRecipe is part of what an image is known by; raise it when this package makes other bytes of the same artefacts.
const diskRecipe = 2

// A Result says what a build made.
type Result struct {
	// Image, SBOM and Manifest are paths.
	Image    string `json:"image"`
	SBOM     string `json:"sbom"`
	Manifest string `json:"manifest"`
	// Boot is the folder with vmlinuz, initrd and cmdline, for virtual machines that boot without a boot loader.
	Boot   string `json:"boot"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
	// Content is how many bytes of the image are not holes.
	Content int64 `json:"contentBytes"`
	// Plan is the plan's digest, RootHash that of the root file system's verity tree.
	Plan     string `json:"plan"`
	RootHash string `json:"rootHash"`
	// Unchanged tells that all outputs were there already.
	Unchanged bool `json:"unchanged"`
}

// Build makes the image of a plan and what goes with it in the folder dir. Until all is well the former outputs stay
// as they are.
func Build(ctx context.Context, b *artifact.Builder, p *plan.Plan, dir string) (*Result, error) {
	a, err := makeArtefacts(ctx, b, p, dir)
	if err != nil {
		return nil, err
	}
	root, programs := a.root, a.programs
	parts, err := bootParts(ctx, b, p, a, "a")
	if err != nil {
		return nil, err
	}
	digest, err := p.Digest()
	if err != nil {
		return nil, err
	}
	r := &Result{
		Image:    filepath.Join(dir, p.Name+".img"),
		SBOM:     filepath.Join(dir, p.Name+".cdx.json"),
		Manifest: filepath.Join(dir, p.Name+".manifest.json"),
		Boot:     filepath.Join(dir, "boot", p.Board),
		Plan:     digest,
		RootHash: root.RootHash,
	}
	key, err := artifact.Key("disk", diskRecipe, digest, root.SHA256, parts.keys)
	if err != nil {
		return nil, err
	}
	disk, err := makeDisk(ctx, b, r.Image, p, key, root, parts)
	if err != nil {
		return nil, err
	}
	if err := parts.writeDirect(r.Boot); err != nil {
		return nil, err
	}
	r.SHA256, r.Bytes, r.Content, r.Unchanged = disk.SHA256, disk.Bytes, disk.Content, disk.unchanged
	if err := writeSBOM(ctx, b, r, p, programs); err != nil {
		return nil, err
	}
	if err := writeManifest(b, r, p, programs, root, parts); err != nil {
		return nil, err
	}
	return r, nil
}

// artefacts are what both slots are made of, on the disk and in a bundle.
type artefacts struct {
	programs  map[string]artifact.Content
	root      *artifact.Root
	initramfs artifact.Artifact
}

// makeArtefacts makes them, or takes those of the last build if they would be the same.
func makeArtefacts(ctx context.Context, b *artifact.Builder, p *plan.Plan, dir string) (*artefacts, error) {
	if loaders[p.BootLoader] == nil {
		return nil, fmt.Errorf("cannot build %s: boot loader %q is not known; there are: %s", p.Name, p.BootLoader, strings.Join(slices.Sorted(maps.Keys(loaders)), ", "))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the output folder: %w", err)
	}
	if err := artifact.MarkOutput(dir); err != nil {
		return nil, err
	}
	if err := b.Prepare(ctx, p); err != nil {
		return nil, err
	}
	a := &artefacts{}
	var err error
	if a.programs, err = b.Programs(ctx, p); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		a.root, err = b.Root(gctx, p)
		return err
	})
	g.Go(func() (err error) {
		a.initramfs, err = b.Initramfs(gctx, p)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return a, nil
}

// diskState is what is known about the image that was written last. It is kept with the artefacts.
type diskState struct {
	Key      string `json:"key"`
	SHA256   string `json:"sha256"`
	Bytes    int64  `json:"bytes"`
	Content  int64  `json:"content"`
	Modified int64  `json:"modified"` // Unix nanoseconds

	unchanged bool
}

// makeDisk writes the image, unless the file is the one that was written last from the same inputs. Size and time of
// change serve to tell: whoever boots the image itself writes to it, and so makes the next build write it anew.
func makeDisk(ctx context.Context, b *artifact.Builder, name string, p *plan.Plan, key string, root *artifact.Root, parts *bootFiles) (diskState, error) {
	states, err := b.Store.Dir("disk")
	if err != nil {
		return diskState{}, err
	}
	stateFile := filepath.Join(states, filepath.Base(name)+".json")
	if s, ok := readDiskState(stateFile, name); ok && s.Key == key {
		s.unchanged = true
		return s, nil
	}
	digest, size, err := writeDisk(ctx, name, p, root, parts, b.Progress)
	if err != nil {
		return diskState{}, err
	}
	s := diskState{Key: key, SHA256: digest, Bytes: size, Content: root.Bytes}
	for _, f := range parts.files {
		s.Content += f.Bytes
	}
	info, err := os.Stat(name)
	if err != nil {
		return diskState{}, fmt.Errorf("cannot look at the disk image: %w", err)
	}
	s.Modified = info.ModTime().UnixNano()
	line, err := json.Marshal(s)
	if err != nil {
		return diskState{}, fmt.Errorf("cannot encode the state of the disk image: %w", err)
	}
	if err := renameio.WriteFile(stateFile, line, 0o644); err != nil {
		return diskState{}, fmt.Errorf("cannot keep the state of the disk image: %w", err)
	}
	return s, nil
}

// readDiskState returns what is known about the image, if it is still the file that this was said of.
func readDiskState(stateFile, name string) (diskState, bool) {
	var s diskState
	line, err := os.ReadFile(stateFile)
	if err != nil || json.Unmarshal(line, &s) != nil {
		return s, false
	}
	info, err := os.Stat(name)
	if err != nil || info.Size() != s.Bytes || info.ModTime().UnixNano() != s.Modified {
		return s, false
	}
	return s, true
}

// writeOutput writes a small output, unless it is there already.
func writeOutput(name string, data []byte) error {
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, data) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the former %s: %w", filepath.Base(name), err)
	}
	if err := renameio.WriteFile(name, data, 0o644, renameio.WithTempDir(filepath.Dir(name))); err != nil {
		return fmt.Errorf("cannot write %s: %w", filepath.Base(name), err)
	}
	return nil
}
