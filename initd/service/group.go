package service

import (
	"os/exec"
	"syscall"
	"time"
)

// Groups makes the group of processes of each unit: Cgroups on the device.
type Groups interface {
	// Group returns the group of a unit, with the unit's limits set. It is called before each start, while the unit has no
	// process that the supervisor knows of.
	Group(u *Unit) (Group, error)
}

// A Group holds the processes of one unit, however deep they forked.
type Group interface {
	// Place makes cmd start inside the group; release is called when it has started or failed to.
	Place(cmd *exec.Cmd) (release func(), err error)
	// Contains says whether the process is in the group now.
	Contains(pid int) bool
	// Signal sends a signal to every process of the group.
	Signal(sig syscall.Signal) error
	// Kill ends every process of the group at once, also those that just fork.
	Kill() error
	// AwaitEmpty returns true as soon as the group has no process, false when it still has some after the time.
	AwaitEmpty(within time.Duration) bool
	// OOMKills counts the processes of the group that the kernel killed because memory ran out.
	OOMKills() int
}
