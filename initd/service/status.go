package service

import "time"

// A State is where a unit is in its life.
type State string

// The states of a unit.
const (
	// Waiting: a unit that it comes after has not started yet.
	Waiting State = "waiting"
	// Starting: its process runs but is not ready.
	Starting State = "starting"
	// Ready: it does its work.
	Ready State = "ready"
	// Stopping: it was asked to end, or says that it does.
	Stopping State = "stopping"
	// Restarting: it ended and is started again after a delay.
	Restarting State = "restarting"
	// Done: it ended well and is not started again.
	Done State = "done"
	// Failed: it ended badly, or could not be started, and is not started again by itself.
	Failed State = "failed"
	// Stopped: it was stopped together with the device's other services.
	Stopped State = "stopped"
)

// up says that a unit has done what those after it wait for.
func (s State) up() bool { return s == Ready || s == Done }

// Status is a snapshot of one unit.
type Status struct {
	Unit        string
	Description string
	State       State
	// Since is when the unit came into this state.
	Since time.Time
	// PID is the main process, or 0.
	PID int
	// Restarts counts how often it was started again by itself.
	Restarts int
	// Text is what the service says about itself (sd_notify STATUS=), printable.
	Text string
	// Reason is how it last ended, or why it does not start; empty while nothing of the kind happened.
	Reason string
	// NextStart is when it is started again, in state Restarting.
	NextStart time.Time
	// attempted says that a first start came to a result, good or bad: those after it go on.
	attempted bool
}
