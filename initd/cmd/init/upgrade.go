package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skerryos/skerry/initd/boot"
	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/snapshot"
	"github.com/skerryos/skerry/initd/update"
)

// errGivenUp ends the boot of a slot that is given up.
var errGivenUp = errors.New("this slot was given up; the other one is booted next")

// upgrade finds out whether this boot is the trial of an upgrade or the way back from one, and keeps or restores the datastore
// before anything opens it.
func (r *root) upgrade(context.Context) error {
	explained := false
	defer func() {
		if r.crashed && !explained {
			r.problem("the kernel crashed before this boot; its last words are kept: skerry node logs crash")
		}
	}()
	updater, err := newUpdater(r.cmdline, r.disk, r.slots)
	if err != nil {
		return r.cannotUpgrade(err)
	}
	r.updater = updater
	before, err := updater.Status()
	if err != nil {
		r.problem(err.Error())
		return nil
	}
	words, err := r.lastWords().Read()
	if err != nil {
		r.problem(err.Error())
	}
	verdict, err := updater.AtBoot(r.lastFailure(words, before.Upgrade))
	if err != nil {
		r.problem("upgrades: " + err.Error())
	}
	if words != (machine.Words{}) {
		r.logf("slot %s, version %s, has left: %s", words.Slot, words.Version, words.Text)
		if err := r.lastWords().Clear(); err != nil {
			r.problem(err.Error())
		}
	}
	rec, err := updater.Status()
	if err != nil {
		r.problem(err.Error())
		return nil
	}
	up := rec.Upgrade
	// A version that crashes on trial is not this one's problem.
	explained = r.crash != "" && strings.Contains(up.Reason, r.crash)
	r.showUpgrade(up)
	switch verdict {
	case update.Restart:
		return errGivenUp
	case update.Trial:
		r.trial.Store(true)
		r.state.trial()
		r.logf("version %s in slot %s is on trial, attempt %d of %d", up.Version, up.Target, up.Attempts, update.Tries)
		return r.keepDatastore(up)
	}
	return r.restoreDatastore(up)
}

// cannotUpgrade is about a version that could never be replaced by another one: it is not kept where there is one that could.
func (r *root) cannotUpgrade(why error) error {
	mine, err1 := r.slots.Status(r.cmdline.slot)
	other, err2 := r.slots.Status(r.cmdline.slot.Other())
	if err1 == nil && err2 == nil && !mine.Good && other.Bootable() {
		return fmt.Errorf("this version could never be upgraded: %w", why)
	}
	r.problem("the device cannot be upgraded: " + why.Error())
	return nil
}

// showUpgrade puts the outcome of an upgrade where people look.
func (r *root) showUpgrade(up update.Upgrade) {
	if up.State == update.RolledBack && up.Target != r.cmdline.slot {
		r.state.notice(up.String())
	}
}

// upgradeID names an upgrade for the snapshot that is taken for it: a second attempt with one bundle is another upgrade.
func upgradeID(up update.Upgrade) string {
	return fmt.Sprintf("%s %s", up.Bundle, up.Started.Format("20060102T150405Z"))
}

// keepDatastore takes a snapshot before the first start on a new slot, and none before further attempts: those may find
// what the first one has made of the datastore. What was asked for before is done before.
func (r *root) keepDatastore(up update.Upgrade) error {
	store := newSnapshots()
	r.putBack(store, up.From)
	_, ok, err := store.Find(upgradeID(up))
	if err == nil && !ok {
		_, _, err = store.Take(snapshot.Info{Version: up.From, Reason: snapshot.Upgrade, For: upgradeID(up)})
	}
	if err != nil {
		// Without it there is no way back.
		return fmt.Errorf("the datastore cannot be kept for a rollback: %w", err)
	}
	return nil
}

// restoreDatastore puts the snapshot of an upgrade back that was rolled back, once, or what a person has asked for. After a
// version that had been kept the datastore stays, with what was made since, unless a person goes back.
func (r *root) restoreDatastore(up update.Upgrade) error {
	store := newSnapshots()
	version := r.cmdline.version
	if up.State == update.RolledBack && up.Target != r.cmdline.slot && !up.Kept {
		version = up.Version
		info, ok, err := store.Find(upgradeID(up))
		if err == nil && ok {
			// In this order: the request is on the disk before it is forgotten whom the snapshot was for.
			err = errors.Join(owe(oweOutcome), stateRoom.use(func() error { return store.Request(info.Name) }), store.Release(info.Name))
		}
		if err != nil {
			r.problem("the datastore stays as the new version has left it: " + err.Error())
		}
	}
	r.putBack(store, version)
	return nil
}

// putBack makes the snapshot the datastore that was asked for, in place of one of that version.
func (r *root) putBack(store *snapshot.Store, version string) {
	// In the datastore that comes back the node may be cordoned: that of an upgrade was taken when it was drained.
	name, err := store.Requested()
	if err == nil && name != "" {
		err = owe(oweUncordon)
	}
	if err != nil {
		r.problem(err.Error())
	}
	name, err = store.Apply(version)
	if err != nil {
		r.problem(err.Error())
		if withdrawn, err := store.Withdraw(); err != nil {
			r.problem(err.Error())
		} else if withdrawn != "" {
			r.problem(fmt.Sprintf("the datastore is the one from before this boot; when there is room for it: skerry node snapshot restore %s", withdrawn))
		}
	}
	if name != "" {
		r.logf("snapshot %s is the datastore now", name)
	}
}

func (p *process) lastWords() machine.LastWords { return machine.LastWords{Path: p.disk.Path} }

// leave keeps why this boot ends, as far as there is a disk to keep it on.
func (p *process) leave(text string) {
	if p.disk == nil {
		return
	}
	err := p.lastWords().Write(machine.Words{Slot: string(p.cmdline.slot), Version: p.cmdline.version, Text: text})
	if err != nil {
		p.logf("%v", err)
	}
}

// follow leaves, while a slot is on trial, how far this boot has come: a machine that hangs or crashes cannot say it later.
func (p *process) follow(step boot.Step) {
	if p.trial.Load() {
		p.leave(silent + step.Name)
	}
}

// silent is how the words of a boot begin that was ended by nobody who could say why.
const silent = "the machine was reset (kernel crash, hang or loss of power) during boot step "

// lastFailure is why the boot before this one failed, when that was of the slot of the upgrade: what init has left on the
// disk, and what the kernel has.
func (r *root) lastFailure(words machine.Words, up update.Upgrade) string {
	if words.Slot != string(up.Target) || words.Version != up.Version {
		if up.State == update.Trying {
			return r.crash // a kernel that has crashed before init could write
		}
		return ""
	}
	if r.crash != "" && strings.HasPrefix(words.Text, silent) {
		return fmt.Sprintf("%s, during boot step %s", r.crash, strings.TrimPrefix(words.Text, silent))
	}
	return words.Text
}

// crashSigns are how the kernel says that it cannot go on, the surest first.
var crashSigns = []string{"Kernel panic - not syncing: ", "Oops: ", "BUG: "}

// crashReason finds in the kernel's last words why it has crashed: one line, empty if they do not tell.
func crashReason(dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return ""
	}
	slices.Sort(files)
	for _, sign := range crashSigns {
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(text)) {
				if i := strings.Index(line, sign); i >= 0 {
					return "the kernel crashed: " + strings.TrimSpace(line[i:])
				}
			}
		}
	}
	return ""
}
