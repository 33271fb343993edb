package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/update"
)

// A failure is a release that must be rolled back.
type failure struct {
	name string
	// reason is a pattern for all of what the device says afterwards.
	reason string
	// attempts are those that process 1 sees.
	attempts int
	// cut: the attempts after the first one are ended as soon as they have begun. The boot loader has counted them by then, and what
	// is shown at last must be the reason of the first one. A version that is found unhealthy gets no further attempt.
	cut bool
}

var failures = []failure{
	{"panic", `the kernel crashed: Kernel panic - not syncing: sysrq triggered crash, during boot step healthy`, update.Tries, false},
	{"kill", `the kernel crashed: Kernel panic - not syncing: Attempted to kill init! exitcode=0x[0-9a-f]{8}, during boot step healthy`, 1, true},
	{"hang", `the machine was reset \(kernel crash, hang or loss of power\) during boot step healthy`, 1, true},
	{"never", `not ready after 1m0s: saboteur is starting`, 1, false},
	{"unhealthy", `not healthy after 1m: check shop: .*`, 1, false},
}

// TestRollback gives a device versions that it must not keep.
func TestRollback(t *testing.T) {
	t.Parallel()
	var steps []step
	for _, f := range failures {
		steps = append(steps, step{f.name, f.test})
	}
	newDevice(t).steps(t, append(steps, step{"damaged root file system", damagedRoot}))
}

// failedAttempts bounds, on hardware, three attempts of which none ends before its watchdog or deadline.
const failedAttempts = 6 * time.Minute

func (f failure) test(t *testing.T, d *device) {
	file := withFloor(t, f.name, 2)
	d.fails(t, f, header(t, file).Manifest().Version, "node", "upgrade", file)
}

// damagedRoot changes one byte of what was written before it is tried.
func damagedRoot(t *testing.T, d *device) {
	_, _, err := d.skerry(t, upgradeTime, "node", "upgrade", "--no-try", second(t))
	must(t, err)
	flipByte(t, d.config.Disk, "skerry-root-b", 1088) // see TestChangedRootIsRefused
	const reason = `boot step root failed: .*; the root file system of slot b is damaged or was not written completely`
	d.fails(t, failure{reason: reason, cut: true}, "0.2.0", "node", "try") // who would count attempts is in that file system
}

// fails runs a command that makes the device try a version in slot b which must not be kept. Version 0.1.0 must run as before, and
// the device must say why.
func (d *device) fails(t *testing.T, f failure, version string, command ...string) {
	t.Helper()
	kept := "skerry-root-a"
	before, content, from := d.state(t), d.content(t, kept), d.Console.Next()
	wait := d.begin(t, failedAttempts, command...)
	if f.cut {
		d.cutAttempts(t, from, version)
	}
	err := wait()
	if err == nil || !strings.Contains(err.Error(), "has rolled version "+version+" back and runs version 0.1.0 again") {
		t.Fatalf("skerry %s: %v; want that it tells of the rollback", strings.Join(command, " "), err)
	}
	t.Log(err)
	d.waitReady(t)
	s := d.state(t)
	if !regexp.MustCompile(`^` + f.reason + `$`).MatchString(s.Update.Reason) {
		t.Errorf("the reason is %q, want %q", s.Update.Reason, f.reason)
	}
	if !strings.Contains(err.Error(), s.Update.Reason) {
		t.Errorf("the command does not tell the reason: %v", err)
	}
	upgrade, err := json.Marshal(v1.Update{
		State: "rolled back", Version: version, From: "0.1.0", Target: "b", Chunk: 21, Chunks: 21, Attempts: f.attempts, Reason: s.Update.Reason,
	})
	must(t, err)
	d.expect(t, fmt.Sprintf(`
version 0.1.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":true,"present":true,"good":true}
{"name":"b","version":%q,"running":false,"present":true,"good":false}
%s
%s`, version, upgrade, failedLines(before, version, s.Update.Reason)))
	if after := d.content(t, kept); after != content {
		t.Errorf("the slot that is kept has %s, and had %s", after, content)
	}
	if committed(s, version) == nil {
		t.Error("the tests take a version that was rolled back for a committed one")
	}
}

// failedLines are the versions that had failed before, and a new one, as summary writes them.
func failedLines(before v1.State, version, reason string) string {
	var b strings.Builder
	for _, f := range before.Update.Failed {
		if f.Version != version {
			fmt.Fprintf(&b, "failed %s: %s\n", f.Version, f.Reason)
		}
	}
	fmt.Fprintf(&b, "failed %s: %s\n", version, reason)
	return b.String()
}

// cutAttempts lets the first attempt of a version end by itself, and presses the reset button when the kernels of the others have
// started.
func (d *device) cutAttempts(t *testing.T, from int, version string) {
	t.Helper()
	begins := regexp.QuoteMeta("skerry "+version+" ") + `.* starting: modules`
	from = d.waitConsole(t, from, begins, upgradeTime).Number + 1
	for range update.Tries - 1 {
		from = d.waitConsole(t, from, begins, failedAttempts/3).Number + 1
		must(t, d.Reset(patience(t, 10*time.Second)))
	}
}
