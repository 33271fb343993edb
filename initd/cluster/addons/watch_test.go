package addons

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func await(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("no signal after %s", what)
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "sub/a.yaml", "")
	d, _, _ := newCluster(t).start(dir)
	changed := d.watch(t.Context())
	await(t, changed, "start")

	write(t, dir, "b.yaml", "1")
	await(t, changed, "a new file")
	write(t, dir, "sub/a.yaml", "2")
	await(t, changed, "a change in a directory that was there")
	write(t, dir, "new/deep/c.yaml", "3")
	await(t, changed, "a new directory")
	write(t, dir, "new/deep/c.yaml", "4")
	await(t, changed, "a change in a new directory")
	if err := os.Remove(filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	await(t, changed, "a removal")
}
