package stick

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/update"
)

// A candidate is a bundle that a trusted key has signed, for this kind of device.
type candidate struct {
	name     string
	manifest *bundle.Manifest
	id       string // the SHA-256 of its header
}

// take writes and hands over the newest bundle of a volume. When the disk was pulled out meanwhile, what was written stays, and is gone
// on with when it comes back.
func (w *Watcher) take(ctx context.Context, v Volume) (found finding, handedOver bool, err error) {
	files, release, err := v.Open()
	if err != nil {
		// It may be any disk, and no bundle may be on it.
		return finding{note: fmt.Sprintf("%s is not searched for bundles: %v", v.Name, err)}, false, nil
	}
	open := true
	closeOnce := func() error {
		if !open {
			return nil
		}
		open = false
		return release()
	}
	defer func() { err = errors.Join(err, closeOnce()) }()

	newest, complaints, err := w.newest(files)
	if err != nil {
		return finding{}, false, err
	}
	switch {
	case newest == nil && len(complaints) == 0:
		return finding{}, false, nil
	case newest == nil:
		return finding{problem: fmt.Sprintf("%s has no bundle for this device: %s", v.Name, strings.Join(complaints, "; "))}, false, nil
	case newest.manifest.Version == w.Updater.Running.Version:
		return finding{note: fmt.Sprintf("version %s of %s on %s runs already", newest.manifest.Version, newest.name, v.Name)}, false, nil
	}
	memory, err := w.remembered()
	if err != nil {
		return finding{}, false, err
	}
	taken := entry{v.ID, newest.id}
	rec, err := w.Updater.Status()
	if err != nil {
		return finding{}, false, err
	}
	// One that is written and was never tried is gone on with: the power went, or the machine was restarted, before it was.
	if waits := rec.Upgrade.State == update.Written && rec.Upgrade.Bundle == newest.id; memory.has(taken) && !waits {
		return finding{note: fmt.Sprintf("%s on %s was taken from there before, and is not again; upgrade by hand if you mean it", newest.name, v.Name)}, false, nil
	}
	if err := w.write(ctx, files, *newest); err != nil {
		return finding{}, false, fmt.Errorf("%s: %w", newest.name, err)
	}
	// Nothing is read from the disk any more: who sees that may pull it out.
	if err := closeOnce(); err != nil {
		return finding{}, false, err
	}
	if err := w.remember(memory.without(taken).with(taken)); err != nil {
		return finding{}, false, fmt.Errorf("version %s is written, and not tried: %w", newest.manifest.Version, err)
	}
	w.doing(fmt.Sprintf("trying version %s from %s; it may be pulled out", newest.manifest.Version, v.Name))
	if err := w.Written(ctx); err != nil {
		err = fmt.Errorf("version %s is written and cannot be tried: %w; try it by hand, or plug the disk in again", newest.manifest.Version, err)
		return finding{}, false, errors.Join(err, w.remember(memory.without(taken)))
	}
	return finding{}, true, nil
}

// newest finds the bundle with the highest version that fits; complaints are about all that does not.
func (w *Watcher) newest(files fs.FS) (best *candidate, complaints []string, err error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read its top folder: %w", err)
	}
	for _, e := range entries {
		// Some systems leave files like ._name.skb beside those that they copy.
		if !strings.EqualFold(path.Ext(e.Name()), ".skb") || strings.HasPrefix(e.Name(), ".") || !e.Type().IsRegular() {
			continue
		}
		c, err := w.open(files, e.Name())
		if err != nil {
			complaints = append(complaints, fmt.Sprintf("%s: %v", e.Name(), err))
			continue
		}
		if best == nil || cmp.Or(compareVersions(c.manifest.Version, best.manifest.Version), cmp.Compare(c.manifest.Created, best.manifest.Created)) > 0 {
			best = c
		}
	}
	return best, complaints, nil
}

// open reads the header of a bundle.
func (w *Watcher) open(files fs.FS, name string) (*candidate, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := w.Updater.Open(f)
	if err != nil {
		return nil, err
	}
	m, run := b.Manifest(), w.Updater.Running
	if m.Board != run.Board || m.Architecture != run.Architecture {
		return nil, fmt.Errorf("it is for board %s (%s), and this is %s (%s)", m.Board, m.Architecture, run.Board, run.Architecture)
	}
	sum := sha256.Sum256(b.Header())
	return &candidate{name, m, hex.EncodeToString(sum[:])}, nil
}

// write writes a bundle to its end.
func (w *Watcher) write(ctx context.Context, files fs.FS, c candidate) (err error) {
	f, err := files.Open(c.name)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := w.Updater.Open(f)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(b.Header()); hex.EncodeToString(sum[:]) != c.id {
		return errors.New("the file has changed while it was looked at; plug the disk in again")
	}
	writer, err := w.Updater.Begin(b, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writer.Close()) }()
	writer.Progress = func(done, of int) {
		w.doing(fmt.Sprintf("writing version %s from %s: %d of %d chunks; do not pull the disk out", c.manifest.Version, c.name, done, of))
	}
	if s, ok := f.(io.Seeker); ok && writer.Chunk() > 0 {
		if _, err := s.Seek(c.manifest.Offset(writer.Chunk()), io.SeekStart); err != nil {
			return err
		}
		if err := b.Resume(writer.Chunk(), f); err != nil {
			return err
		}
	}
	err = writer.Run(ctx)
	if _, refused := errors.AsType[*update.RefusedError](err); err != nil && !refused {
		return fmt.Errorf("%w; what was written stays: plug the disk in again to go on", err)
	}
	return err
}
