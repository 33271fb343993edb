// Package v1 is the vocabulary of the device API: the JSON that a device answers with, and the two files that process 1
// writes for it. It has no code and imports nothing, so that process 1 stays small and the command line builds on
// every system.
//
// A field is never renamed and never changes its meaning or unit within v1: devices in the field are older or newer than
// the program that asks them. Readers ignore fields that they do not know.
package v1

// Where process 1 writes what the API answers from, and where the API finds the rest. Both JSON files are replaced as a
// whole, by rename.
const (
	StatePath      = "/run/skerry/state.json"
	TimelinePath   = "/run/skerry/timeline.json"
	LogDir         = "/run/skerry/log"
	KubeconfigPath = "/etc/skerry/kubeconfig"
	SocketPath     = "/run/skerry/api.sock"
)

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

// Accepted is the answer to POST /v1/reboot and /v1/poweroff: process 1 was told and stops the services now.
type Accepted struct {
	Action string `json:"action"` // "reboot" or "poweroff"
}

// Error is the body of every answer with a status of 400 or more.
type Error struct {
	Message string `json:"error"`
	// Hint is what to do next.
	Hint string `json:"hint,omitempty"`
}
