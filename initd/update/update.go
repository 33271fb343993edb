package update

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
)

// A Medium is where an artefact is written to: a partition, or a file.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns when all that was written is on the medium, and what is read after that comes from there.
	Sync() error
	// Size is how many bytes it takes.
	Size() int64
}

// Running is what the machine runs.
type Running struct {
	Slot                         slot.Name
	Version, Board, Architecture string
	// Floor is the security floor of the image, 0 if it does not say.
	Floor uint64
}

// Tries is how often the boot loader starts a new slot before it takes the old one again.
const Tries = 3

// saveEvery is how many bytes are written between two notes of how far it is: few enough to lose little, and so many that
// flash memory is hardly written for the notes.
const saveEvery = 64 << 20

// A Config is what an Updater needs of the machine.
type Config struct {
	Running Running
	// Keys are those of the image.
	Keys  []bundle.PublicKey
	Slots slot.Backend
	Store Store
	// Root opens the root partition of a slot, Scratch a file where the boot image waits until it is installed.
	Root    func(slot.Name) (Medium, error)
	Scratch func() (Medium, error)
	// Lock keeps all other processes out until it is closed, or this process ends. It fails at once if another one is in.
	Lock func() (io.Closer, error)
	Now  func() time.Time
	// SaveEvery is how many bytes are written between two notes of how far it is; 0 is 64 MiB.
	SaveEvery int64
}

// An Updater drives upgrades.
type Updater struct {
	Config
}

// New makes an Updater.
func New(c Config) *Updater {
	if c.SaveEvery == 0 {
		c.SaveEvery = saveEvery
	}
	return &Updater{c}
}

// A RefusedError says why a bundle is not written, or something else not done. Nothing was changed.
type RefusedError struct {
	Reason string
	// Forceable: it is done when it is forced.
	Forceable bool
}

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Sprintf(format, args...)}
}

// A BusyError says that another process is at it.
type BusyError struct {
	Upgrade Upgrade
	err     error
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("refused, nothing was changed: only one upgrade at a time; there is one already: %v (%v)", e.Upgrade, e.err)
}

func (e *BusyError) Unwrap() error { return e.err }

// Status is what the device remembers of upgrades.
func (u *Updater) Status() (Record, error) {
	r, err := load(u.Store)
	if err != nil {
		return Record{}, err
	}
	return *r, nil
}

// Open opens a bundle with the keys that the device trusts.
func (u *Updater) Open(r io.Reader) (*bundle.Reader, error) {
	rec, err := load(u.Store)
	if err != nil {
		return nil, err
	}
	return u.trusted(rec).Open(r)
}

func (u *Updater) trusted(r *Record) *bundle.Keys {
	keys := r.Keys
	keys.Trust(u.Keys...)
	return &keys
}

// A session has the lock, and the record to itself.
type session struct {
	*Updater
	rec  *Record
	lock io.Closer
}

func (u *Updater) session() (*session, error) {
	lock, err := u.Lock()
	if err != nil {
		rec, lerr := load(u.Store)
		if lerr != nil {
			return nil, errors.Join(err, lerr)
		}
		return nil, &BusyError{rec.Upgrade, err}
	}
	rec, err := load(u.Store)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &session{u, rec, lock}, nil
}

func (s *session) close() error { return s.lock.Close() }

// enter writes the next state. The record in memory is changed only when the one on the medium is.
func (s *session) enter(next Record) error {
	from, to := s.rec.Upgrade.State, next.Upgrade.State
	if !slices.Contains(row(from).Next, to) {
		return fmt.Errorf("an upgrade cannot go from %s to %s", from, to)
	}
	next.Upgrade.Changed = s.Now().UTC().Truncate(time.Second)
	data, err := encode(next)
	if err == nil {
		err = s.Store.Save(data)
	}
	if err != nil {
		return fmt.Errorf("cannot note that the upgrade is %s; it stays %s: %w", to, from, err)
	}
	*s.rec = next
	return nil
}

// in is the record with the upgrade in that state.
func (s *session) in(to State) Record {
	next := *s.rec
	next.Upgrade.State = to
	return next
}

// Try lets the boot loader try the slot that was written. The caller restarts the machine after that. When it fails the
// slot has nothing to boot, and trying again is allowed.
func (u *Updater) Try() (err error) {
	s, err := u.session()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	up := s.rec.Upgrade
	if up.State != Written {
		return refuse("there is nothing to try: %v", up)
	}
	scratch, err := u.Scratch()
	if err != nil {
		return fmt.Errorf("cannot read the boot image of slot %s: %w", up.Target, err)
	}
	defer func() { err = errors.Join(err, scratch.Close()) }()
	next := s.in(Trying)
	next.Upgrade.Attempts, next.Upgrade.Reason = 0, ""
	if err := s.enter(next); err != nil {
		return err
	}
	if err := u.Slots.Install(up.Target, io.NewSectionReader(scratch, 0, up.Boot), up.Boot, Tries); err != nil {
		// If not even that can be noted the next boot does it.
		next := s.in(Written)
		next.Upgrade.Reason = err.Error()
		return errors.Join(err, u.Slots.Remove(up.Target), s.enter(next))
	}
	return nil
}

// Rollback gives the new version up, whether it waits for its trial, is on trial or committed. The caller restarts the machine
// after that. It refuses when there is nothing to go back to.
func (u *Updater) Rollback(reason string) (err error) {
	s, err := u.session()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.rec.Upgrade.State == Trying && !s.onTarget() {
		return s.rollBack(s.in(RolledBack), reason) // before the restart that would have tried it
	}
	other, err := u.Slots.Status(u.Running.Slot.Other())
	if err != nil {
		return err
	}
	if !other.Bootable() {
		return refuse("cannot go back, nothing was changed: slot %s has no system that works", u.Running.Slot.Other())
	}
	next := s.in(RolledBack)
	if up := s.rec.Upgrade; up.Target != u.Running.Slot || up.Version != u.Running.Version {
		next.Upgrade = Upgrade{State: RolledBack, Version: u.Running.Version, Target: u.Running.Slot, Started: u.Now().UTC().Truncate(time.Second)}
	}
	return s.rollBack(next, reason)
}

// rollBack writes the failure down and marks the slot bad.
func (s *session) rollBack(next Record, reason string) error {
	next.Upgrade.Reason = reason
	next.Failed = slices.Clone(next.Failed)
	next.condemn(Failure{next.Upgrade.Version, reason, s.Now().UTC().Truncate(time.Second)})
	if err := s.enter(next); err != nil {
		return err
	}
	return s.Slots.MarkBad(next.Upgrade.Target)
}
