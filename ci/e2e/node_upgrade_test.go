package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/vm"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// nodeUpgradeTime bounds, on hardware, an upgrade of a machine with Kubernetes: transfer, drain, restart and trial.
const nodeUpgradeTime = 4 * time.Minute

// newManagedNode is a machine of the image in the build folder, with a workstation that may manage it: the one that has made the
// image. It also takes upgrades from an origin, when it is told to ask, and from USB sticks.
func newManagedNode(t *testing.T, o *origin) *device {
	t.Helper()
	own, err := os.UserConfigDir()
	must(t, err)
	return newManaged(t, filepath.Join(*build, imageName), filepath.Join(own, "skerry"), func(c *vm.Config) {
		c.USB = true
		writeBootFile(t, c.Disk, "user-data", o.userData())
	})
}

// newManaged is a machine of an image, with a workstation that has that configuration. change may be nil.
func newManaged(t *testing.T, image, config string, change func(*vm.Config)) *device {
	t.Helper()
	port, err := vm.FreePort(0)
	must(t, err)
	n := newNodeOf(t, image, diskBytes, func(c *vm.Config) {
		c.Forwards = append(c.Forwards, vm.Forward{Host: port, Guest: v1.Port})
		if change != nil {
			change(c)
		}
	})
	d := &device{node: n, address: fmt.Sprintf("127.0.0.1:%d", port), home: filepath.Join(n.folder, "workstation")}
	// A copy, because it gets to know this machine.
	must(t, os.CopyFS(filepath.Join(d.home, "skerry"), os.DirFS(config)))
	return d
}

// nodeRelease is the bundle of another version of the image in the build folder, by the one who made that. Beside an emulated machine
// it takes minutes, so a test asks for it before it switches one on where it can.
func nodeRelease(t *testing.T, name string) string {
	t.Helper()
	own, err := os.UserConfigDir()
	must(t, err)
	file := releases(name + ".skb")
	_, _, err = skerry(t.Context(), own, "bundle", "create", profileFile(name), "--output", *build, "--file", file)
	must(t, err)
	return file
}

// A transport brings a bundle to a device, and returns when that keeps the version, within limit on hardware.
type transport func(t *testing.T, d *device, file, version string, limit time.Duration)

func push(t *testing.T, d *device, file, _ string, limit time.Duration) {
	_, _, err := d.skerry(t, limit, "node", "upgrade", file)
	must(t, err)
}

// upgradedNode upgrades to the other slot. Workloads, volumes and objects are there afterwards, the node takes pods, and Kubernetes
// knows of it.
func upgradedNode(t *testing.T, d *device, by transport, file, version, slot string) {
	k := d.node.client(t)
	eventually(t, time.Minute, "store a value", func(ctx context.Context) error { return store(ctx, k, "upgraded", "before "+version) })
	begun := time.Now()
	by(t, d, file, version, nodeUpgradeTime)
	t.Logf("%.0f s to version %s", time.Since(begun).Seconds(), version)
	s := d.state(t)
	must(t, committed(s, version))
	if s.Slot != slot {
		t.Errorf("slot %s runs, want %s", s.Slot, slot)
	}
	k = recovered(t, d.node)
	expectStored(t, k, "upgraded", "before "+version)
	d.heardOf(t, k, "committed", version, "UpgradeCommitted")
}

// heardOf waits until the node takes pods, and says on itself and in an Event what became of the upgrade.
func (d *device) heardOf(t *testing.T, k kubectl, outcome, version, event string) {
	t.Helper()
	eventually(t, time.Minute, "Kubernetes hears of the upgrade", func(ctx context.Context) error {
		got, err := k.try(ctx, "get", "nodes", "-o", `jsonpath={.items[0].metadata.annotations.skerry\.internal/upgrade} {.items[0].metadata.annotations.skerry\.internal/upgrade-version} {.items[0].spec.unschedulable}{.items[0].metadata.annotations.skerry\.internal/cordoned-for-upgrade}`)
		if want := outcome + " " + version; err == nil && strings.TrimSpace(got) != want {
			err = fmt.Errorf("the node says %q, want %q", got, want)
		}
		if err != nil {
			return err
		}
		events, err := k.try(ctx, "get", "events", "--field-selector", "involvedObject.kind=Node,reason="+event, "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(events, version) {
			err = fmt.Errorf("the events are %q, and none tells of version %s", events, version)
		}
		return err
	})
}

// rolledBackNode upgrades to a version whose API server never gets ready. The old version runs again, with all that the cluster held
// before, and says why.
func rolledBackNode(t *testing.T, d *device) {
	k := d.node.client(t)
	k.do(t, "create", "configmap", "kept", "--from-literal=key=value")
	before := d.state(t).Version
	_, _, err := d.skerry(t, 3*nodeUpgradeTime, "node", "upgrade", nodeRelease(t, "node-port"))
	if err == nil {
		t.Fatal("a version whose API server never gets ready was kept")
	}
	t.Logf("the command says: %v", err)
	s := d.state(t)
	if s.Update.State != "rolled back" || s.Version != before {
		t.Errorf("version 0.5.0-port was not rolled back: the device says\n%s", summary(s))
	}
	if !strings.Contains(s.Update.Reason, "skerryd") {
		t.Errorf("the reason is %q, and does not name the service that never got ready", s.Update.Reason)
	}
	k = recovered(t, d.node)
	expectStored(t, k, "upgraded", "before "+before)
	if got := k.do(t, "get", "configmap", "kept", "-o", "jsonpath={.data.key}"); got != "value" {
		t.Errorf("the object that was made before the upgrade holds %q", got)
	}
	d.heardOf(t, k, "rolled back", "0.5.0-port", "UpgradeRolledBack")
}
