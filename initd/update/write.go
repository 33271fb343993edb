package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
)

// An artefact is one of the two that are written: where to, and how far.
type artefact struct {
	*bundle.Artefact
	medium Medium
	next   int   // into its chunks
	at     int64 // in bytes
}

// A Writer writes a bundle to the slot that does not run. It has the lock until Close.
type Writer struct {
	// Progress, if set, is called after each chunk with how many chunks there are on the medium or on their way.
	Progress func(done, of int)

	*session
	bundle *bundle.Reader
	parts  []*artefact // root, boot image
	chunk  int
}

// Begin checks whether a bundle fits this device, and makes the slot that does not run ready to be written: from then on
// it has nothing to boot. A bundle that was begun before is gone on with. What does not fit is refused with a [RefusedError]
// or a [BusyError], and nothing is changed.
//
// The bundle must come from [Updater.Open]. force overrides refusals that are for the operator to decide: a version that runs
// already, and one that has failed before.
func (u *Updater) Begin(b *bundle.Reader, force bool) (*Writer, error) {
	s, err := u.session()
	if err != nil {
		return nil, err
	}
	w := &Writer{session: s, bundle: b}
	if err := w.begin(force); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Writer) begin(force bool) error {
	m := w.bundle.Manifest()
	if err := w.check(m, force); err != nil {
		return err
	}
	target := w.Running.Slot.Other()
	if err := w.openParts(m, target); err != nil {
		return err
	}
	sum := sha256.Sum256(w.bundle.Header())
	id := hex.EncodeToString(sum[:])
	up := w.rec.Upgrade
	if up.Bundle == id && up.Target == target && up.Version == m.Version && (up.State == Writing || up.State == Written) {
		w.skip(up.Chunk)
		return nil
	}
	next := w.in(Verified)
	next.Upgrade = Upgrade{
		State: Verified, Version: m.Version, From: w.Running.Version, Target: target,
		Bundle: id, Chunks: len(m.Chunks), Boot: w.parts[1].Size, Floor: m.Floor, Keys: m.Keys,
		Started: w.Now().UTC().Truncate(time.Second),
	}
	if err := w.enter(next); err != nil {
		return err
	}
	// What runs, and can be asked for an upgrade, is what to go back to.
	if err := w.Slots.MarkGood(w.Running.Slot); err != nil {
		return err
	}
	if err := w.Slots.Remove(target); err != nil {
		return err
	}
	return w.enter(w.in(Writing))
}

// check refuses what does not fit.
func (w *Writer) check(m *bundle.Manifest, force bool) error {
	up, run := w.rec.Upgrade, w.Running
	const untouched = "bundle refused, nothing was written: "
	mine, err := w.Slots.Status(run.Slot)
	if err != nil {
		return err
	}
	other, err := w.Slots.Status(run.Slot.Other())
	if err != nil {
		return err
	}
	floor := max(w.rec.Floor, run.Floor)
	failed, hasFailed := w.rec.failure(m.Version)
	switch {
	case up.State == Trying:
		return &BusyError{up, errors.New("wait until it is committed or rolled back")}
	case up.State == RolledBack && up.Target == run.Slot && up.Version == run.Version && other.Bootable():
		return &BusyError{up, errors.New("the machine is about to restart")}
	case !mine.Good && other.Bootable():
		return refuse(untouched+"slot %s, which runs, is not marked good yet, and slot %s is needed in case that it fails; try again when the device is ready", run.Slot, run.Slot.Other())
	case m.Board != run.Board:
		return refuse(untouched+"it is for board %s, and this is %s", m.Board, run.Board)
	case m.Architecture != run.Architecture:
		return refuse(untouched+"it is for architecture %s, and this is %s", m.Architecture, run.Architecture)
	case m.Floor < floor:
		return refuse(untouched+"its security floor %d is below %d, that of a version that ran here: it may have holes that are known; build it anew from a newer version", m.Floor, floor)
	case m.Version == run.Version && !force:
		return &RefusedError{fmt.Sprintf(untouched+"version %s runs already; force it to write it again", m.Version), true}
	case hasFailed && !force:
		return &RefusedError{fmt.Sprintf(untouched+"version %s has failed here before (%s); force it to try again", m.Version, failed.Reason), true}
	}
	for _, name := range []string{bundle.RootArtefact, bundle.BootArtefact(string(run.Slot.Other()))} {
		if m.Artefact(name) == nil {
			return refuse(untouched+"it has no artefact %s", name)
		}
	}
	if err := w.trusted(w.rec).Apply(m.Keys); err != nil {
		return refuse(untouched+"%v", err)
	}
	return nil
}

// openParts opens what is written to, and refuses what does not find room there.
func (w *Writer) openParts(m *bundle.Manifest, target slot.Name) error {
	open := func(name, where string, medium Medium, err error) error {
		if err != nil {
			return fmt.Errorf("cannot write artefact %s: %w", name, err)
		}
		a := &artefact{Artefact: m.Artefact(name), medium: medium}
		w.parts = append(w.parts, a)
		if a.Size > medium.Size() {
			return refuse("bundle refused, nothing was written: artefact %s has %d bytes, and %s has room for %d", name, a.Size, where, medium.Size())
		}
		return nil
	}
	root, err := w.Root(target)
	if err := open(bundle.RootArtefact, "the root partition of slot "+string(target), root, err); err != nil {
		return err
	}
	scratch, err := w.Scratch()
	return open(bundle.BootArtefact(string(target)), "the data partition", scratch, err)
}

// Close ends the writing, wherever it is, and lets others in.
func (w *Writer) Close() error {
	var failed []error
	for _, p := range w.parts {
		failed = append(failed, p.medium.Close())
	}
	return errors.Join(append(failed, w.close())...)
}

// Chunk is the chunk to go on from. The stream may begin there, after [bundle.Reader.Resume], or before.
func (w *Writer) Chunk() int { return w.chunk }

// skip goes to a chunk.
func (w *Writer) skip(to int) {
	for ; w.chunk < to; w.chunk++ {
		for _, p := range w.parts {
			if p.has(w.chunk) {
				p.pass(w.bundle.Manifest().Chunks[w.chunk].Size)
			}
		}
	}
}

func (a *artefact) has(chunk int) bool { return a.next < len(a.Chunks) && a.Chunks[a.next] == chunk }

func (a *artefact) pass(n int64) { a.next, a.at = a.next+1, a.at+n }

// Run writes what is left of the bundle, and reads it back. When it fails, what was written stays, and can be gone on
// with.
func (w *Writer) Run(ctx context.Context) error {
	if w.rec.Upgrade.State == Written {
		return nil
	}
	if err := w.write(ctx); err != nil {
		// It may be a long way to here: keep what there is, if that is possible.
		return errors.Join(err, w.save())
	}
	if err := w.save(); err != nil {
		return err
	}
	if err := w.readBack(); err != nil {
		next := w.in(Writing)
		next.Upgrade.Chunk, next.Upgrade.Reason = 0, err.Error()
		return errors.Join(err, w.enter(next))
	}
	return w.enter(w.in(Written))
}

func (w *Writer) write(ctx context.Context) error {
	if err := w.bundle.SkipTo(w.chunk); err != nil {
		return err
	}
	var unsaved int64
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		index, plain, err := w.bundle.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.place(index, plain); err != nil {
			return err
		}
		w.chunk = index + 1
		if w.Progress != nil {
			w.Progress(w.chunk, w.rec.Upgrade.Chunks)
		}
		if unsaved += int64(len(plain)); unsaved >= w.SaveEvery {
			unsaved = 0
			if err := w.save(); err != nil {
				return err
			}
		}
	}
}

// place writes a chunk wherever it belongs. Some belong to the boot image of the other slot only.
func (w *Writer) place(chunk int, plain []byte) error {
	for _, p := range w.parts {
		if !p.has(chunk) {
			continue
		}
		if _, err := p.medium.WriteAt(plain, p.at); err != nil {
			return fmt.Errorf("cannot write artefact %s at byte %d: %w", p.Name, p.at, err)
		}
		p.pass(int64(len(plain)))
	}
	return nil
}

// save notes how far it is, once that is on the medium.
func (w *Writer) save() error {
	if w.rec.Upgrade.Chunk == w.chunk {
		return nil
	}
	for _, p := range w.parts {
		if err := p.medium.Sync(); err != nil {
			return fmt.Errorf("cannot write artefact %s: %w", p.Name, err)
		}
	}
	next := w.in(Writing)
	next.Upgrade.Chunk, next.Upgrade.Reason = w.chunk, ""
	return w.enter(next)
}

// readBack compares what is on the medium with what the bundle says, as a whole: chunks were compared before they were
// written, but disks make mistakes, and what was written before a restart was never looked at again.
func (w *Writer) readBack() error {
	for _, p := range w.parts {
		hash := sha256.New()
		if _, err := io.Copy(hash, io.NewSectionReader(p.medium, 0, p.Size)); err != nil {
			return fmt.Errorf("cannot read artefact %s back: %w", p.Name, err)
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != p.SHA256 {
			return fmt.Errorf("artefact %s was written, and reads back with SHA-256 %s instead of %s: the disk may be failing; slot %s is not used; the upgrade begins anew",
				p.Name, got, p.SHA256, w.rec.Upgrade.Target)
		}
	}
	return nil
}
