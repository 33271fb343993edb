package update

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// A Verdict is what a boot is.
type Verdict string

// The verdicts.
const (
	// Normal: nothing is on trial. A slot that is not good yet, as the factory's, may still be marked good by Commit.
	Normal Verdict = "normal"
	// Trial: the slot must become healthy in time.
	Trial Verdict = "trial"
	// Restart: the slot was given up, and the other one is booted next.
	Restart Verdict = "restart"
)

// AtBoot says what this boot is, and brings to its end what was cut. lastFailure is why the boot before this one failed, as
// far as the machine has kept it; it may be empty. With an error the machine goes on as if the verdict stood, and shows it.
func (u *Updater) AtBoot(lastFailure string) (verdict Verdict, err error) {
	s, err := u.session()
	if err != nil {
		return Normal, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.stale() {
		return Normal, s.reset("the disk has another system than the upgrade has left there")
	}
	return row(s.rec.Upgrade.State).atBoot(s, lastFailure)
}

// onTarget: the slot of the upgrade runs.
func (s *session) onTarget() bool { return s.rec.Upgrade.Target == s.Running.Slot }

// stale: the record is not about what is on the disk, which was written by another way than an upgrade.
func (s *session) stale() bool {
	up := s.rec.Upgrade
	switch up.State {
	case Trying, Committed, RolledBack:
		if s.onTarget() {
			return up.Version != s.Running.Version
		}
		return up.From != "" && up.From != s.Running.Version
	}
	return false
}

// reset drops the upgrade.
func (s *session) reset(reason string) error {
	next := *s.rec
	next.Upgrade = Upgrade{State: Idle, Reason: reason}
	return s.enter(next)
}

func (s *session) bootIdle(string) (Verdict, error) { return Normal, nil }

// bootUnfinished is a boot while the other slot is written. That the target runs means that somebody has made it bootable by
// other means, and then it must not be written.
func (s *session) bootUnfinished(string) (Verdict, error) {
	if s.onTarget() {
		return Normal, s.reset(fmt.Sprintf("slot %s was to be written, and was booted", s.Running.Slot))
	}
	return Normal, nil
}

func (s *session) bootTrying(lastFailure string) (Verdict, error) {
	up := s.rec.Upgrade
	status, err := s.Slots.Status(up.Target)
	if s.onTarget() {
		if err != nil {
			return Trial, err
		}
		if status.Good {
			// The power went between marking it good and noting it.
			return Normal, s.commit()
		}
		next := s.in(Trying)
		next.Upgrade.Attempts++
		if lastFailure != "" {
			next.Upgrade.Reason = lastFailure
		}
		return Trial, s.enter(next)
	}
	if err != nil {
		return Normal, err
	}
	if !status.Present {
		// The power went before the boot image was installed.
		return Normal, s.enter(s.in(Written))
	}
	reason := up.Reason
	switch {
	case lastFailure != "":
		reason = lastFailure
	case reason != "":
	case status.Bootable() && up.Attempts == 0:
		reason = fmt.Sprintf("the boot loader did not start slot %s", up.Target)
	default:
		reason = fmt.Sprintf("slot %s was started %d times, did not become healthy, and has left no reason", up.Target, max(up.Attempts, status.Done))
	}
	return Normal, s.rollBack(s.in(RolledBack), reason)
}

func (s *session) bootCommitted(string) (Verdict, error) {
	up := s.rec.Upgrade
	if s.onTarget() {
		return Normal, nil
	}
	next := s.in(RolledBack)
	next.Upgrade.Kept = true
	return Normal, s.rollBack(next, fmt.Sprintf("slot %s had become healthy, and the boot loader took slot %s all the same", up.Target, s.Running.Slot))
}

// bootRolledBack makes sure that the boot loader knows, too. It restarts only when that changes anything.
func (s *session) bootRolledBack(string) (Verdict, error) {
	up := s.rec.Upgrade
	target, err := s.Slots.Status(up.Target)
	if err != nil || !target.Bootable() {
		return Normal, err
	}
	if !s.onTarget() {
		return Normal, s.Slots.MarkBad(up.Target)
	}
	other, err := s.Slots.Status(up.Target.Other())
	if err != nil || !other.Bootable() {
		return Normal, err
	}
	if err := s.Slots.MarkBad(up.Target); err != nil {
		return Normal, err
	}
	return Restart, nil
}

// NoteFailure keeps why this boot of a slot on trial is given up. The machine is restarted after that, and the boot loader
// tries again or takes the old slot.
func (u *Updater) NoteFailure(reason string) (err error) {
	s, err := u.session()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.rec.Upgrade.State != Trying || !s.onTarget() {
		return nil
	}
	next := s.in(Trying)
	next.Upgrade.Reason = reason
	return s.enter(next)
}

// Commit marks the running slot good, and when it is the one on trial, notes that the upgrade has come to its end. In this
// order: a good slot is booted again, so that what was not noted is noted at the next boot; the other way round the record
// might tell of a commit while the boot loader goes back.
//
// A version that was given up is not kept, while there is another one to boot.
func (u *Updater) Commit() (err error) {
	if rec, err := load(u.Store); err == nil && u.givenUp(rec.Upgrade) {
		return refuse("version %s in slot %s was given up and is not kept: %s; restart the machine", u.Running.Version, u.Running.Slot, rec.Upgrade.Reason)
	}
	if err := u.Slots.MarkGood(u.Running.Slot); err != nil {
		return err
	}
	if rec, err := load(u.Store); err != nil || rec.Upgrade.State != Trying {
		return err
	}
	s, err := u.session()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.rec.Upgrade.State != Trying || !s.onTarget() {
		return nil
	}
	return s.commit()
}

// givenUp: the running version was rolled back, and the machine is about to restart into the other slot.
func (u *Updater) givenUp(up Upgrade) bool {
	if up.State != RolledBack || up.Target != u.Running.Slot || up.Version != u.Running.Version {
		return false
	}
	other, err := u.Slots.Status(u.Running.Slot.Other())
	return err == nil && other.Bootable()
}

// commit notes it, with all that holds from now on.
func (s *session) commit() error {
	next := s.in(Committed)
	up := &next.Upgrade
	next.Floor = max(next.Floor, up.Floor)
	next.Failed = slices.Clone(next.Failed)
	next.forgive(up.Version)
	up.Reason = ""
	if !up.Keys.Empty() {
		keys := s.trusted(s.rec)
		// The change was possible when the upgrade began. If it no longer is, the version is good all the same.
		if err := keys.Apply(up.Keys); err != nil {
			up.Reason = err.Error()
		} else {
			next.Keys = *keys
		}
	}
	return s.enter(next)
}

func encode(r Record) ([]byte, error) { return json.MarshalIndent(r, "", "  ") }
