package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	remote "github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/initd/bundle"
)

// TestUpgradePowerCut pulls the plug of a device in each state of an upgrade. Each time a whole slot must run afterwards, and the
// upgrade go on. initd/update has the test that does so before each single write; this one has a kernel, a disk and a boot loader.
func TestUpgradePowerCut(t *testing.T) {
	t.Parallel()
	newDevice(t).steps(t, []step{
		{"while writing", cutWriting},
		{"when written", cutWritten},
		{"before the restart into the trial, and during the trial", cutTrying},
		{"just after the commit", cutCommitted},
		{"during the rollback", cutRollback},
		{"upgrades go on, and a retired key is refused", retiredKey},
	})
}

// cutWriting sends six chunks, which the device notes when the stream ends, then four more, which it has no time to note.
func cutWriting(t *testing.T, d *device) {
	file := release(t, "second")
	f, _ := open(t, file)
	length := header(t, file).Manifest().Offset(6)
	if status, text := d.post(t, io.LimitReader(f, length), length); status != 400 {
		t.Fatalf("half a bundle is answered with %d %s", status, text)
	}
	s := d.sendSlowly(t, file, 10)
	d.Kill()
	s.stop() // before it finds the device again
	d.start()
	d.waitReady(t)
	d.expect(t, `
version 0.1.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":true,"present":true,"good":true}
{"name":"b","version":"0.2.0","running":false,"present":false,"good":false}
{"state":"writing","version":"0.2.0","from":"0.1.0","target":"b","chunk":6,"chunks":21,"floor":0}
`)
	_, complaints, err := d.skerry(t, upgradeTime, "node", "upgrade", file)
	must(t, err)
	if !strings.Contains(complaints, "send from chunk 6 of 21 on") {
		t.Errorf("the transfer does not go on where it was: %s", complaints)
	}
	d.expect(t, `
version 0.2.0 in slot b, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":false,"present":true,"good":true}
{"name":"b","version":"0.2.0","running":true,"present":true,"good":true}
{"state":"committed","version":"0.2.0","from":"0.1.0","target":"b","chunk":21,"chunks":21,"attempts":1,"floor":0}
`)
}

func cutWritten(t *testing.T, d *device) {
	_, _, err := d.skerry(t, upgradeTime, "node", "upgrade", "--no-try", release(t, "third"))
	must(t, err)
	d.powerCut(t)
	d.waitReady(t)
	d.expect(t, `
version 0.2.0 in slot b, ready, -1 tries, problems []
{"name":"a","version":"0.3.0","running":false,"present":false,"good":false}
{"name":"b","version":"0.2.0","running":true,"present":true,"good":true}
{"state":"written","version":"0.3.0","from":"0.2.0","target":"a","chunk":21,"chunks":21,"floor":0}
`)
}

// onTrial is what process 1 says when it boots a version in slot a that is not kept yet.
const onTrial = `version 0.3.0 in slot a is on trial, attempt %d of 3`

// cutTrying pulls the plug when the boot image is installed and the machine goes down, and again in the boot that comes of it.
func cutTrying(t *testing.T, d *device) {
	from := d.Console.Next()
	_, err := d.client(t).Try(patience(t, 20*time.Second))
	must(t, err)
	d.waitConsole(t, from, `stopping: restarting`, 20*time.Second)
	d.powerCut(t)
	d.waitConsole(t, 0, fmt.Sprintf(onTrial, 1), time.Minute)
	d.powerCut(t)
	d.waitConsole(t, 0, fmt.Sprintf(onTrial, 2), time.Minute)
}

// cutCommitted goes on with the second attempt.
func cutCommitted(t *testing.T, d *device) {
	d.waitConsole(t, 0, `version 0.3.0 in slot a is committed`, upgradeTime)
	d.powerCut(t)
	d.waitReady(t)
	d.expect(t, `
version 0.3.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.3.0","running":true,"present":true,"good":true}
{"name":"b","version":"0.2.0","running":false,"present":true,"good":true}
{"state":"committed","version":"0.3.0","from":"0.2.0","target":"a","chunk":21,"chunks":21,"attempts":2,"floor":0}
`)
}

func cutRollback(t *testing.T, d *device) {
	from := d.Console.Next()
	_, _, err := d.skerry(t, 20*time.Second, "node", "rollback", "--reason", "the camera is not found")
	must(t, err)
	d.waitConsole(t, from, `stopping: restarting`, 20*time.Second)
	d.powerCut(t)
	d.waitReady(t)
	d.expect(t, `
version 0.2.0 in slot b, ready, -1 tries, problems []
{"name":"a","version":"0.3.0","running":false,"present":true,"good":false}
{"name":"b","version":"0.2.0","running":true,"present":true,"good":true}
{"state":"rolled back","version":"0.3.0","from":"0.2.0","target":"a","chunk":21,"chunks":21,"attempts":2,"reason":"the camera is not found","floor":0}
failed 0.3.0: the camera is not found
`)
}

// retiredKey commits a bundle that replaces the key, and then tries one that the old key has signed, and one of the new key.
func retiredKey(t *testing.T, d *device) {
	file, own := release(t, "third"), developmentKey(t)
	key, signer := newKey(t, "next")
	d.upgradeTo(t, reseal(t, file, own, func(m *bundle.Manifest) {
		m.Keys = bundle.KeyChange{Add: []string{key.Public}, Retire: []string{own.ID}}
	}), "--force") // it was rolled back
	next := release(t, "second")
	reject(t, d, []rejection{{"retired key", next,
		"403 bundle refused, nothing was written: it is signed with key " + own.ID + ", which is retired; sign it with a key that is still trusted (forceable: false)"}})
	f, size := open(t, reseal(t, next, signer, func(*bundle.Manifest) {}))
	outcome, err := d.client(t).Upgrade(patience(t, upgradeTime), f, size, remote.UpgradeOptions{NoTry: true})
	must(t, err)
	if outcome.State != "written" {
		t.Errorf("a bundle of the new key ends as %+v", outcome)
	}
}
