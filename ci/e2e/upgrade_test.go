package e2e

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	remote "github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/initd/bundle"
)

// TestUpgrade upgrades a device to the other slot and back, and goes on with bundles that it must refuse.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	d.steps(t, []step{
		{"ready with the first version", firstVersion},
		{"refused before a byte is written", refusedBundles},
		{"a stream that ends too early is gone on with", truncatedStream},
		{"one upgrade at a time", oneAtATime},
		{"push to slot b", toSecond},
		{"push back to slot a", toThird},
		{"a lower security floor is refused", lowerFloor},
		{"a committed version is rolled back by hand", rolledBackByHand},
		{"a version that was rolled back is refused", failedVersion},
		{"a version that is not healthy is kept by hand", keptByHand},
	})
}

func firstVersion(t *testing.T, d *device) {
	t.Logf("the device is ready after %.1f s", d.Uptime().Seconds())
	d.expect(t, `
version 0.1.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":true,"present":true,"good":true}
{"name":"b","running":false,"present":false,"good":false}
{"state":"idle","floor":0}
`)
}

// second and third are the releases that devices of TestUpgrade are upgraded to: with a security floor, so that there is one which
// was committed.
func second(t *testing.T) string { return withFloor(t, "second", 2) }
func third(t *testing.T) string  { return withFloor(t, "third", 2) }

func withFloor(t *testing.T, name string, floor uint64) string {
	t.Helper()
	file := release(t, name) // makes the key, too
	return reseal(t, file, developmentKey(t), func(m *bundle.Manifest) { m.Floor = floor })
}

func toSecond(t *testing.T, d *device) {
	d.upgradeTo(t, second(t))
	d.expect(t, `
version 0.2.0 in slot b, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":false,"present":true,"good":true}
{"name":"b","version":"0.2.0","running":true,"present":true,"good":true}
{"state":"committed","version":"0.2.0","from":"0.1.0","target":"b","chunk":21,"chunks":21,"attempts":1,"floor":2}
`)
}

func toThird(t *testing.T, d *device) {
	d.upgradeTo(t, third(t))
	d.expect(t, `
version 0.3.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.3.0","running":true,"present":true,"good":true}
{"name":"b","version":"0.2.0","running":false,"present":true,"good":true}
{"state":"committed","version":"0.3.0","from":"0.2.0","target":"a","chunk":21,"chunks":21,"attempts":1,"floor":2}
`)
}

// A rejection is a bundle that the device must not take, and how it says so.
type rejection struct {
	name, file, want string
}

// reject hands over bundles that the device must refuse, and compares its disk and what it says of itself before and after.
func reject(t *testing.T, d *device, list []rejection) {
	t.Helper()
	s := d.state(t)
	other := "a"
	if s.Slot == "a" {
		other = "b"
	}
	read := func() string { return d.content(t, "skerry-root-"+other, "skerry-esp") }
	before, disk := summary(s), read()
	for _, r := range list {
		t.Run(r.name, func(t *testing.T) {
			if got := d.refusal(t, r.file, remote.UpgradeOptions{}); got != r.want {
				t.Errorf("it says\n%s\nwant\n%s", got, r.want)
			}
			if after := read(); after != disk {
				t.Errorf("something was written: the disk has\n%s\nand had\n%s", after, disk)
			}
			if after := summary(d.state(t)); after != before {
				t.Errorf("the device says\n%s\nand before\n%s", after, before)
			}
		})
	}
}

func refusedBundles(t *testing.T, d *device) {
	file := release(t, "second")
	own := developmentKey(t)
	stranger, strangers := newKey(t, "stranger")
	signed := func(change func(*bundle.Manifest)) string { return reseal(t, file, own, change) }
	_, room, err := partition(d.config.Disk, "skerry-root-b")
	must(t, err)
	reject(t, d, []rejection{
		{"untrusted key", reseal(t, file, strangers, func(*bundle.Manifest) {}),
			"403 bundle refused, nothing was written: it is signed with key " + stranger.ID + ", which is not trusted; trusted are: " + own.ID + " (forceable: false)"},
		{"changed manifest", reseal(t, file, nil, func(m *bundle.Manifest) { m.Version = "0.2.1" }),
			"403 bundle refused, nothing was written: its manifest is not what key " + own.ID + " has signed: it was damaged or tampered with; " +
				"fetch it again from where it was made (forceable: false)"},
		{"other board", signed(func(m *bundle.Manifest) { m.Board = "raspberry-pi" }),
			"412 bundle refused, nothing was written: it is for board raspberry-pi, and this is x86-64 (forceable: false)"},
		{"other architecture", signed(func(m *bundle.Manifest) { m.Architecture = "arm64" }),
			"412 bundle refused, nothing was written: it is for architecture arm64, and this is amd64 (forceable: false)"},
		{"larger than the partition", hollow(t, own, room+4096),
			fmt.Sprintf("412 bundle refused, nothing was written: artefact root has %d bytes, and the root partition of slot b has room for %d (forceable: false)", room+4096, room)},
		{"version that runs", signed(func(m *bundle.Manifest) { m.Version = "0.1.0" }),
			"412 bundle refused, nothing was written: version 0.1.0 runs already; force it to write it again (forceable: true)"},
	})
}

// truncatedStream sends a part of a bundle as if it were the whole. The device must not try it, and must go on from there.
func truncatedStream(t *testing.T, d *device) {
	file := second(t)
	f, _ := open(t, file)
	m := header(t, file).Manifest()
	length := m.Offset(6) + 1000
	status, text := d.post(t, io.LimitReader(f, length), length)
	if want := fmt.Sprintf("cannot read chunk 6 of 21 of bundle, at byte %d: unexpected EOF", m.Offset(6)); status != 400 || !strings.Contains(text, want) {
		t.Errorf("the device answers %d %s; want 400 and %q", status, text, want)
	}
	d.expect(t, `
version 0.1.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":true,"present":true,"good":true}
{"name":"b","version":"0.2.0","running":false,"present":false,"good":false}
{"state":"writing","version":"0.2.0","from":"0.1.0","target":"b","chunk":6,"chunks":21,"floor":0}
`)
	_, complaints, err := d.skerry(t, upgradeTime, "node", "upgrade", "--no-try", file)
	must(t, err)
	if !strings.Contains(complaints, "send from chunk 6 of 21 on") {
		t.Errorf("the transfer does not go on where it was: %s", complaints)
	}
	d.expect(t, `
version 0.1.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":true,"present":true,"good":true}
{"name":"b","version":"0.2.0","running":false,"present":false,"good":false}
{"state":"written","version":"0.2.0","from":"0.1.0","target":"b","chunk":21,"chunks":21,"floor":0}
`)
}

// oneAtATime begins an upgrade while another one is under way, and lets that come to its end.
func oneAtATime(t *testing.T, d *device) {
	file := release(t, "third")
	s := d.sendSlowly(t, file, 3)
	got := d.refusal(t, second(t), remote.UpgradeOptions{})
	if want := "409 refused, nothing was changed: only one upgrade at a time; there is one already: upgrade to version 0.3.0 in slot b: writing, 0 of 21 chunks ("; !strings.HasPrefix(got, want) {
		t.Errorf("the second upgrade is answered with\n%s\nwant\n%s", got, want)
	}
	s.resume()
	must(t, <-s.ended)
	d.expect(t, `
version 0.1.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":true,"present":true,"good":true}
{"name":"b","version":"0.3.0","running":false,"present":false,"good":false}
{"state":"written","version":"0.3.0","from":"0.1.0","target":"b","chunk":21,"chunks":21,"floor":0}
`)
}

func lowerFloor(t *testing.T, d *device) {
	reject(t, d, []rejection{
		{"lower than what was committed", withFloor(t, "second", 1),
			"412 bundle refused, nothing was written: its security floor 1 is below 2, that of a version that ran here: it may have holes that are known; " +
				"build it anew from a newer version (forceable: false)"},
	})
}

func rolledBackByHand(t *testing.T, d *device) {
	from := d.Console.Next()
	_, _, err := d.skerry(t, 20*time.Second, "node", "rollback", "--reason", "the camera is not found")
	must(t, err)
	d.waitConsole(t, from, bootLoader, time.Minute)
	d.waitReady(t)
	d.expect(t, `
version 0.2.0 in slot b, ready, -1 tries, problems []
{"name":"a","version":"0.3.0","running":false,"present":true,"good":false}
{"name":"b","version":"0.2.0","running":true,"present":true,"good":true}
{"state":"rolled back","version":"0.3.0","from":"0.2.0","target":"a","chunk":21,"chunks":21,"attempts":1,"reason":"the camera is not found","floor":2}
failed 0.3.0: the camera is not found
`)
}

func failedVersion(t *testing.T, d *device) {
	reject(t, d, []rejection{
		{"not forced", third(t),
			"412 bundle refused, nothing was written: version 0.3.0 has failed here before (the camera is not found); force it to try again (forceable: true)"},
	})
}

// keptByHand keeps a version whose check never passes, before its time is up.
func keptByHand(t *testing.T, d *device) {
	ended := make(chan error, 1)
	wait := d.begin(t, upgradeTime, "node", "upgrade", withFloor(t, "unhealthy", 2))
	go func() { ended <- wait() }()
	eventually(t, upgradeTime, "the trial", func(ctx context.Context) error {
		select {
		case err := <-ended:
			t.Fatalf("the upgrade has ended before its trial: %v", err)
		default:
		}
		s, err := d.tryState(t)
		if err != nil {
			return err
		}
		if s.Update.State != "trying" || s.Version != "0.4.0-unhealthy" {
			return fmt.Errorf("version %s runs, and the upgrade is %s", s.Version, s.Update.State)
		}
		return nil
	})
	_, _, err := d.skerry(t, 20*time.Second, "node", "commit")
	must(t, err)
	must(t, <-ended)
	must(t, committed(d.state(t), "0.4.0-unhealthy"))
}
