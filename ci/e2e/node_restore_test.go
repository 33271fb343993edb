package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// restoredSnapshot takes the cluster back to a snapshot: what was deleted since is there again, what was made since is gone, and can
// be had back.
func restoredSnapshot(t *testing.T, d *device) {
	k := d.node.client(t)
	k.do(t, "create", "configmap", "deleted-since", "--from-literal=key=value")
	out, _, err := d.skerry(t, time.Minute, "node", "snapshot", "create", "--json")
	must(t, err)
	var made struct{ Name string }
	must(t, json.Unmarshal([]byte(out), &made))
	k.do(t, "delete", "configmap", "deleted-since")
	k.do(t, "create", "configmap", "made-since")

	from := d.Console.Next()
	_, _, err = d.skerry(t, 20*time.Second, "node", "snapshot", "restore", made.Name, "--yes")
	must(t, err)
	d.waitConsole(t, from, bootLoader, time.Minute)
	k = recovered(t, d.node)
	if got := k.do(t, "get", "configmap", "deleted-since", "-o", "jsonpath={.data.key}"); got != "value" {
		t.Errorf("what was deleted after the snapshot holds %q", got)
	}
	if got := k.do(t, "get", "configmap", "made-since", "--ignore-not-found", "-o", "name"); got != "" {
		t.Errorf("what was made after the snapshot is still there: %s", got)
	}
	if out, _, err := d.skerry(t, 20*time.Second, "node", "snapshot", "list"); err != nil || !strings.Contains(out, "replaced") {
		t.Errorf("the datastore from before the restore is no snapshot: %v\n%s", err, out)
	}
}

// resetCluster deletes the cluster. The device makes a new one, which takes pods.
func resetCluster(t *testing.T, d *device) {
	before := d.state(t)
	reset(t, d, "data")
	k := d.node.client(t)
	if got := k.do(t, "get", "pods", "-o", "name"); got != "" {
		t.Errorf("pods of the old cluster: %s", got)
	}
	k.apply(t, "web.yaml")
	k.rollout(t, "deployment/web")
	if s := d.state(t); s.MachineID != before.MachineID || s.Version != before.Version || len(s.Problems) > 0 {
		t.Errorf("the device is %s, version %s, with problems %q; it was %s, version %s", s.MachineID, s.Version, s.Problems, before.MachineID, before.Version)
	}
}
