package main

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

func TestPrintStatus(t *testing.T) {
	at := time.Date(2026, 11, 27, 8, 0, 0, 0, time.FixedZone("CET", 3600))
	s := nodeStatus{
		Node: "192.0.2.7", Fingerprint: "SHA256:x",
		Status: &v1.State{
			Version: "2.0.0", Board: "x86-64", Slot: "b", Phase: v1.Degraded, Message: "the node is not Ready", Hostname: "edge", MachineID: "12",
			Addresses: []string{"192.0.2.7", "2001:db8::7"},
			Services:  []v1.Service{{Name: "containerd", State: "ready"}, {Name: "skerryd", State: "restarting", Status: "waiting for the datastore", Restarts: 3}},
			Problems:  []string{"the clock is not set: see ntp", "the node is not Ready: see its log"},
			Tries:     2, Trial: true, Deadline: at.Add(5 * time.Minute), Booted: at,
			Checks: []v1.Check{{Name: "clock", Passed: true}, {Name: "node", Reason: "NotReady"}},
			Slots:  []v1.Slot{{Name: "a", Version: "1.0.0", Present: true, Good: true}, {Name: "b", Version: "2.0.0", Running: true, Present: true, Tries: 2}},
			Update: &v1.Update{State: "trying", Version: "2.0.0", Changed: at, Activity: "waiting for health",
				Failed: []v1.FailedVersion{{Version: "1.5.0", Reason: "no network", Time: at}}},
		},
		Memory: &v1.Memory{Total: 2 << 30, Available: 1 << 30, Anonymous: 300 << 20, Processes: []v1.Process{{Name: "skerryd", PSS: 250 << 20}}},
		Disk:   &v1.Disk{Devices: []v1.BlockDevice{{Name: "mmcblk0", ReadBytes: 3 << 20, WrittenBytes: 5 << 20}}},
	}
	want := `device     edge (192.0.2.7), machine 12
key        SHA256:x
phase      degraded: the node is not Ready
problems   the clock is not set: see ntp
           the node is not Ready: see its log
version    2.0.0 for board x86-64, in slot b, on trial until 2026-11-27 07:05:00 UTC, 2 more starts
slots      a: 1.0.0, good
           b: 2.0.0, running, not marked good, 2 tries left
update     to version 2.0.0: trying (2026-11-27 07:00:00 UTC)
           now: waiting for health
           version 1.5.0 was rolled back: no network (2026-11-27 07:00:00 UTC)
checks     clock: passed
           node: not passed, NotReady
services   containerd: ready
           skerryd: restarting, restarted 3 times, waiting for the datastore
addresses  192.0.2.7, 2001:db8::7
booted     2026-11-27 07:00:00 UTC, by a clock that no time server has set
memory     1.0 GiB of 2.0 GiB available, 300.0 MiB of programs
           skerryd: 250.0 MiB
disks      mmcblk0: 3.0 MiB read, 5.0 MiB written since the boot
`
	if got := printed(t, s); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	// A device that has just started, or is of an older version, says little.
	s = nodeStatus{Node: "192.0.2.7", Fingerprint: "SHA256:x", Status: &v1.State{Version: "1.0.0", Board: "x86-64", Slot: "a", Phase: v1.Starting, Tries: -1}}
	want = `device     without a name (192.0.2.7)
key        SHA256:x
phase      starting
version    1.0.0 for board x86-64, in slot a
update     none
addresses  none
`
	if got := printed(t, s); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func printed(t *testing.T, s nodeStatus) string {
	t.Helper()
	var b strings.Builder
	if err := s.print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDescribeUpdate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		update *v1.Update
		want   string
	}{
		{"none", nil, "none"},
		{"idle", &v1.Update{State: "idle"}, "none"},
		{"idle with a reason", &v1.Update{State: "idle", Reason: "the record was damaged"}, "idle\nreason: the record was damaged"},
		{"writing", &v1.Update{State: "writing", Version: "2.0.0", Chunk: 3, Chunks: 8}, "to version 2.0.0: writing, 3 of 8 chunks"},
		{"rolled back", &v1.Update{State: "rolled back", Version: "2.0.0", Reason: "slow", Failed: []v1.FailedVersion{{Version: "2.0.0", Reason: "slow"}}},
			"to version 2.0.0: rolled back\nreason: slow"},
	} {
		if got := strings.Join(describeUpdate(tt.update), "\n"); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
