package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/vm"
)

// TestReset makes a device that was configured what it was when it was flashed.
func TestReset(t *testing.T) {
	t.Parallel()
	d := newDeviceOf(t, func(c *vm.Config) {
		writeBootFile(t, c.Disk, "user-data", "#cloud-config\nhostname: plant-7\n")
	})
	before := d.state(t)
	if before.Hostname != "plant-7" {
		t.Fatalf("the device calls itself %q", before.Hostname)
	}
	// Nobody is asked, so nobody has agreed.
	_, _, err := d.skerry(t, 20*time.Second, "node", "reset", "--scope", "everything")
	if err == nil || !strings.Contains(err.Error(), "nothing was done; give --yes") {
		t.Fatalf("a reset that nobody has confirmed: %v", err)
	}
	reset(t, d, "data")
	if s := d.state(t); s.MachineID != before.MachineID || s.Hostname != "plant-7" {
		t.Errorf("after a reset of the data the device is %s (%s), and was %s (plant-7)", s.MachineID, s.Hostname, before.MachineID)
	}
	reset(t, d, "everything")
	_, _, err = d.skerry(t, 20*time.Second, "node", "status")
	if err == nil || !strings.Contains(err.Error(), "is not the one that was known by this address") {
		t.Fatalf("a device that was reset is met as if it were the old one: %v", err)
	}
	key := strings.Fields(err.Error()[strings.LastIndex(err.Error(), "--fingerprint "):])[1]
	if !strings.Contains(consoleText(d), key) {
		t.Errorf("the console does not show the key %s", key)
	}
	_, _, err = d.skerry(t, 20*time.Second, "node", "status", "--fingerprint", key)
	must(t, err)
	if s := d.state(t); s.MachineID == before.MachineID || s.Hostname == "plant-7" || s.Version != before.Version || len(s.Problems) > 0 {
		t.Errorf("after a reset of everything the device is %s (%s), version %s, with problems %q", s.MachineID, s.Hostname, s.Version, s.Problems)
	}
}

// reset resets a device and waits until it is ready again.
func reset(t *testing.T, d *device, scope string) {
	t.Helper()
	from := d.Console.Next()
	_, _, err := d.skerry(t, 20*time.Second, "node", "reset", "--scope", scope, "--yes")
	must(t, err)
	d.waitConsole(t, from, bootLoader, time.Minute)
	d.waitReady(t)
}

// consoleText is all that the console has shown since power-on.
func consoleText(d *device) string {
	var b strings.Builder
	for _, l := range d.Console.Lines(0) {
		b.WriteString(l.Text + "\n")
	}
	return b.String()
}
