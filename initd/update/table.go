// Package update is the upgrade of a device: it writes a bundle to the slot that does not run, lets the boot loader try
// that slot, and keeps it or goes back. What it is doing stands in a record on the data partition, so that it survives the
// end of the process and of power at any moment; [Table] says how.
//
// Two processes use it. The one with the device API calls [Updater.Open], [Updater.Begin], [Writer.Run] and [Updater.Try],
// and restarts the machine. Process 1 calls [Updater.AtBoot] at every boot before the services start, [Updater.Commit] when
// the machine is healthy, and [Updater.NoteFailure] before it restarts because the machine is not.
package update

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A State is how far an upgrade has come.
type State string

// The states, in the order of an upgrade that goes well.
const (
	Idle       State = "idle"
	Verified   State = "verified"
	Writing    State = "writing"
	Written    State = "written"
	Trying     State = "trying"
	Committed  State = "committed"
	RolledBack State = "rolled back"
)

// A Row is a state in the table.
type Row struct {
	State State
	// Means says what is true when the state is on the medium.
	Means string
	// Then is what is done next, and only after the state is on the medium.
	Then string
	// Restart is what happens when the machine or the process starts anew in this state.
	Restart string
	// Next are the states that may follow; no other one is ever written.
	Next []State
	// atBoot is Restart, as far as process 1 does it.
	atBoot func(*session, string) (Verdict, error)
}

// Table is the whole state machine.
func Table() []Row {
	return []Row{
		{Idle, "there is no upgrade", "nothing",
			"nothing", []State{Verified, RolledBack}, (*session).bootIdle},
		{Verified, "bundle fits this device: signature, board, architecture, floor, sizes", "mark the running slot good, remove the other slot's boot image",
			"wait for a bundle, begin anew", []State{Verified, Writing, RolledBack, Idle}, (*session).bootUnfinished},
		{Writing, "the other slot has nothing to boot; chunks before the noted one are on the medium", "write chunks, sync, note how far; at the end read all back and compare",
			"wait for the same bundle, go on from the noted chunk; begin anew with another one", []State{Writing, Written, Verified, Idle}, (*session).bootUnfinished},
		{Written, "root partition is right, boot image lies ready beside it", "wait for the word to try it",
			"wait for the word to try it, or for another bundle", []State{Trying, Verified, Idle}, (*session).bootUnfinished},
		{Trying, "the boot loader may have the new slot", "install the boot image with its tries, restart; count the attempt at each boot; when healthy mark it good",
			"new slot booted: on trial, or committed if it is marked good; old slot booted: rolled back, or written if the boot image is not there",
			[]State{Trying, Written, Committed, RolledBack, Idle}, (*session).bootTrying},
		{Committed, "new slot is good; its floor and key changes hold", "nothing",
			"nothing; old slot booted: rolled back", []State{Verified, RolledBack, Idle}, (*session).bootCommitted},
		{RolledBack, "the new version has failed or was given up; the reason is kept", "mark the new slot bad, restart if it runs",
			"mark the new slot bad, restart if it runs", []State{Verified, RolledBack, Idle}, (*session).bootRolledBack},
	}
}

// row finds a state's row. A state that another version has written is unknown here, and means that there is no upgrade.
func row(s State) Row {
	t := Table()
	if i := slices.IndexFunc(t, func(r Row) bool { return r.State == s }); i >= 0 {
		return t[i]
	}
	return t[0]
}

// WriteTable prints the table, a state after the other.
func WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range Table() {
		var next []string
		for _, s := range r.Next {
			next = append(next, string(s))
		}
		fmt.Fprintf(t, "%s\tmeans\t%s\n\tthen\t%s\n\tafter a restart\t%s\n\tnext\t%s\n",
			r.State, r.Means, r.Then, r.Restart, strings.Join(next, ", "))
	}
	return t.Flush()
}
