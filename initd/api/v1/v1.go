// Package v1 is the vocabulary of the device API: the JSON that a device answers with, and the two files that process 1
// writes for it. It has no code and imports next to nothing, so that process 1 stays small and the command line builds on
// every system.
//
// A field is never renamed and never changes its meaning or unit within v1: devices in the field are older or newer than
// the program that asks them. Readers ignore fields that they do not know.
package v1

import "time"

// Where process 1 writes what the API answers from, and where the API finds the rest. Both JSON files are replaced as a
// whole, by rename.
const (
	StatePath      = "/run/skerry/state.json"
	TimelinePath   = "/run/skerry/timeline.json"
	LogDir         = "/run/skerry/log"
	KubeconfigPath = "/etc/skerry/kubeconfig"
	TokenPath      = "/var/lib/skerry/server/node-token"
	SocketPath     = "/run/skerry/api.sock"
)

// PreviousLogDirs are where the logs of the boot before are, depending on how it ended; the newest counts.
var PreviousLogDirs = []string{"/var/lib/skerry/machine/log", CrashDir}

// CrashDir has what the last crash left.
const CrashDir = "/var/lib/skerry/machine/crash/0"

// Port is where devices serve the API: HTTPS by TCP, for clients with a certificate.
const Port = 7443

// Where the device keeps what it proves itself with, and where its image says whose certificates it accepts: PEM, one
// certificate authority after the other. Without authorities a device does not listen on the network.
const (
	ServerKeyPath  = "/var/lib/skerry/machine/api.key"
	ServerCertPath = "/var/lib/skerry/machine/api.crt"
	ClientsPath    = "/usr/lib/skerry/api/clients.pem"
)

// Roles stand in the organization (O) of a client's certificate. A reader may ask, an admin may also change, and read secrets.
const (
	RoleAdmin  = "skerry:admin"
	RoleReader = "skerry:reader"
)

// MDNSService is how devices are found in a network (RFC 6763). The TXT records of an instance are id=ID (a keyed hash
// of the machine identifier), version=V, board=B, slot=S and phase=P.
const MDNSService = "_skerry._tcp"

// HostPort is the name of the virtio-serial port over which a virtual machine's host speaks the device API.
const HostPort = "org.skerry.host.0"

// A Phase says in one word how the machine is.
type Phase string

// The phases of a machine, in the order of its life.
const (
	// Starting: the boot sequence is under way.
	Starting Phase = "starting"
	// Ready: all services are ready.
	Ready Phase = "ready"
	// Degraded: the machine is of use, but something is wrong: see State.Problems.
	Degraded Phase = "degraded"
	// Failed: the boot sequence cannot go on; the machine restarts soon.
	Failed Phase = "failed"
	// Stopping: services are being stopped for a restart or to switch off.
	Stopping Phase = "stopping"
)

// State is the answer to GET /v1/status.
type State struct {
	Version string `json:"version"` // of the image
	Board   string `json:"board"`
	Slot    string `json:"slot"` // "a" or "b": the one that is running
	Phase   Phase  `json:"phase"`
	// Message is what the machine is doing or why it is in this phase, in a sentence for people.
	Message  string `json:"message"`
	Hostname string `json:"hostname"`
	// Addresses are where the machine can be reached, IPv4 first, without prefix lengths.
	Addresses []string  `json:"addresses"`
	Services  []Service `json:"services"`
	// Problems are what is wrong and what to do about it, one sentence each; empty when all is well.
	Problems []string `json:"problems"`
	// Tries is how many more boots the running slot has before the boot loader gives it up; -1 when it is marked good.
	Tries int `json:"tries"`
	// TimeSynced says that the clock was set by a time server since the boot.
	TimeSynced bool `json:"timeSynced"`
	// Trial: the running slot was written by an upgrade and must become healthy before Deadline, or it is given up.
	Trial    bool      `json:"trial,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
	// Checks are the health checks of this boot: the built-in ones and the operator's.
	Checks []Check `json:"checks,omitempty"`
	// Booted is when the kernel started, as the clock says now.
	Booted time.Time `json:"booted,omitzero"`

	// What follows is known by the device API and not by process 1.

	// MachineID is as in machine-id(5); it stays the same until a reset of everything.
	MachineID string `json:"machineID,omitempty"`
	// Slots are both slots, a first.
	Slots []Slot `json:"slots,omitempty"`
	// Update is the upgrade under way, or the last one.
	Update *Update `json:"update,omitempty"`
}

// A Check is a health check and its last result.
type Check struct {
	Name string `json:"name"`
	// Passed is the last result; Reason says why it is not passed, or what was seen.
	Passed bool   `json:"passed"`
	Reason string `json:"reason,omitempty"`
}

// A Slot is what the boot loader thinks of it.
type Slot struct {
	Name    string `json:"name"`              // "a" or "b"
	Version string `json:"version,omitempty"` // as far as it is known
	Running bool   `json:"running"`
	// Present: it has something to boot. Good: it is booted without counting.
	Present bool `json:"present"`
	Good    bool `json:"good"`
	// Tries are left for a slot that is not good.
	Tries int `json:"tries,omitempty"`
}

// Update is what the device remembers of the last upgrade; docs/upgrades.md has the states.
type Update struct {
	// State is one of "idle", "verified", "writing", "written", "trying", "committed" and "rolled back".
	State string `json:"state"`
	// Activity is what the device is doing about it at this moment, in words; empty when that is nothing.
	Activity string `json:"activity,omitempty"`
	// Version is the new one, From the one before, Target the slot of the new one.
	Version string `json:"version,omitempty"`
	From    string `json:"from,omitempty"`
	Target  string `json:"target,omitempty"`
	// Bundle is the SHA-256 of the header of the bundle, in hexadecimal. A transfer of this bundle may go on from Chunk, of so many Chunks.
	Bundle string `json:"bundle,omitempty"`
	Chunk  int    `json:"chunk,omitempty"`
	Chunks int    `json:"chunks,omitempty"`
	// Attempts is how often the new slot was started before it was good.
	Attempts int `json:"attempts,omitempty"`
	// Reason says why it went no further, or back.
	Reason  string    `json:"reason,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Changed time.Time `json:"changed,omitzero"`
	// Floor is the security floor: bundles below it are refused.
	Floor uint64 `json:"floor"`
	// Failed are versions that were rolled back, and are tried again only when forced.
	Failed []FailedVersion `json:"failed,omitempty"`
}

// A FailedVersion was rolled back.
type FailedVersion struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
}

// The parameters of POST /v1/upgrade. Its body is a bundle: the header, and then the chunks from ChunkHeader on. The
// answer is an Update: with state "written" when ParamTry is false; else the device goes on by itself (drains the node, restarts)
// and the answer is 202.
const (
	// ParamForce=true overrides refusals that are for the operator to decide, those with Error.Forceable.
	ParamForce = "force"
	// ParamTry=false leaves the slot written and does not restart; POST /v1/try does that later.
	ParamTry = "try"
	// ChunkHeader is a request header: the number of the first chunk in the body; 0 when it is missing.
	ChunkHeader = "Skerry-Chunk"
	// ParamReason is the reason of POST /v1/rollback, ParamScope that of POST /v1/reset.
	ParamReason = "reason"
	ParamScope  = "scope"
)

// The scopes of POST /v1/reset.
const (
	// ResetData: cluster, pods, images and volumes are deleted. Identity, configuration and system stay.
	ResetData = "data"
	// ResetEverything: the data partition is made anew and the configuration on the boot partition is deleted: the
	// device is as it was flashed, but with the version that runs.
	ResetEverything = "everything"
)

// Snapshots is the answer to GET /v1/snapshots, newest first.
type Snapshots struct {
	Snapshots []Snapshot `json:"snapshots"`
}

// A Snapshot is a copy of the cluster's datastore, and the answer to POST /v1/snapshots.
type Snapshot struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Bytes   int64     `json:"bytes"`
	// Version is that of the system that the datastore belonged to.
	Version string `json:"version,omitempty"`
	// Reason says why it was taken: "upgrade", "asked", or "replaced" by a restore.
	Reason string `json:"reason"`
}

// A Service is one supervised process.
type Service struct {
	Name string `json:"name"` // of its unit, without ".service"
	// State is one of "waiting", "starting", "ready", "restarting", "stopping", "stopped", "done", "failed".
	State string `json:"state"`
	// Status is the service's own last STATUS= line.
	Status string `json:"status,omitempty"`
	// Restarts counts how often it was started again after it ended by itself.
	Restarts int `json:"restarts"`
}

// Timeline is the answer to GET /v1/timeline: what the boot spent its time on.
type Timeline struct {
	Steps []Step `json:"steps"`
}

// A Step of the boot. Times are seconds since the kernel started.
type Step struct {
	Name  string  `json:"name"`
	Stage string  `json:"stage"` // "initramfs" or "root"
	Start float64 `json:"start"`
	// End is 0 while the step is under way.
	End   float64 `json:"end,omitempty"`
	Error string  `json:"error,omitempty"`
}

// Memory is the answer to GET /v1/memory. All sizes are bytes.
type Memory struct {
	// Total, Available and Anonymous are MemTotal, MemAvailable and AnonPages of proc_meminfo(5).
	Total     uint64 `json:"total"`
	Available uint64 `json:"available"`
	Anonymous uint64 `json:"anonymous"`
	// Processes that have memory of their own, the largest PSS first; kernel threads have none.
	Processes []Process `json:"processes"`
}

// A Process and its share of the memory, from /proc/PID/smaps_rollup.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"` // its command as the kernel knows it, at most 15 bytes
	// PSS counts each page divided by the number of processes that have it mapped: the sum over all processes is the
	// memory that they use together.
	PSS uint64 `json:"pss"`
	// Private counts the pages that no other process has: what would be free if this one ended.
	Private uint64 `json:"private"`
	// Peak is the largest resident set that it has had (VmHWM of proc_pid_status(5)); pages of its program's file count, too.
	Peak uint64 `json:"peak,omitempty"`
}

// Disk is the answer to GET /v1/disk.
type Disk struct {
	Devices []BlockDevice `json:"devices"` // by name
}

// A BlockDevice and what went through it since the boot. A partition's device mapper device counts again what its disk
// counts.
type BlockDevice struct {
	Name         string `json:"name"` // as in /sys/block
	ReadBytes    uint64 `json:"readBytes"`
	WrittenBytes uint64 `json:"writtenBytes"`
}

// Accepted is the answer to what takes effect by a restart or by switching off: process 1 was told and stops the services now.
type Accepted struct {
	Action string `json:"action"` // "reboot", "poweroff", "rollback", "reset", "restore", "try", "fetch"
}

// Error is the body of every answer with a status of 400 or more.
type Error struct {
	Message string `json:"error"`
	// Hint is what to do next.
	Hint string `json:"hint,omitempty"`
	// Forceable: it is done with ParamForce.
	Forceable bool `json:"forceable,omitempty"`
	// Update is set when an upgrade was refused because of another one, or must go on from another chunk (status 409).
	Update *Update `json:"update,omitempty"`
}
