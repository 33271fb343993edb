package datastore

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// BenchmarkHeartbeat renews one lease, as each kubelet does every ten seconds, in the datastore of a small cluster. Besides the time
// it tells the bytes that the process hands to the disk for one change, checkpoints included and compaction not: they wear out memory
// cards. TMPDIR has to be on a disk.
func BenchmarkHeartbeat(b *testing.B) {
	for _, sync := range []Sync{SyncFull, SyncNormal} {
		b.Run(string(sync), func(b *testing.B) { benchmarkHeartbeat(b, sync) })
	}
}

func benchmarkHeartbeat(b *testing.B, s Sync) {
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	dir := b.TempDir()
	name := filepath.Join(dir, databaseName)
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.IntN(256))
		}
		return b
	}
	err := create(Config{Dir: dir, Sync: s, Seed: func() ([]Entry, error) {
		var all []Entry
		for i := range 400 {
			all = append(all, Entry{fmt.Sprintf("/registry/kind-%d/namespace/object-%d", i%20, i), text(500 + random.IntN(2000))})
		}
		return all, nil
	}}, name)
	if err != nil {
		b.Fatal(err)
	}
	backend, err := open(ctx, &wg, name, "WAL", s.pragma())
	if err != nil {
		b.Fatal(err)
	}
	const key = "/registry/leases/kube-node-lease/node"
	lease := text(500)
	revision, err := backend.Create(ctx, key, lease, 0)
	if err != nil {
		b.Fatal(err)
	}
	before := written(b)
	for b.Loop() {
		var updated bool
		if revision, _, updated, err = backend.Update(ctx, key, lease, revision, 0); err != nil || !updated {
			b.Fatal("not updated: ", err)
		}
	}
	b.ReportMetric(float64(written(b)-before)/float64(b.N), "disk-B/op")
}

// BenchmarkGet reads one small object, as the API server does before it changes one.
func BenchmarkGet(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	name := filepath.Join(b.TempDir(), databaseName)
	seed := func() ([]Entry, error) { return []Entry{{"/registry/a", make([]byte, 800)}}, nil }
	if err := create(Config{Dir: filepath.Dir(name), Seed: seed}, name); err != nil {
		b.Fatal(err)
	}
	backend, err := open(ctx, &wg, name, "WAL", "NORMAL")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, kv, err := backend.Get(ctx, "/registry/a", 0, false); err != nil || kv == nil {
			b.Fatal("not read: ", err)
		}
	}
}

// written is what this process has made the kernel write to disks, in bytes (proc_pid_io(5)).
func written(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip(err)
	}
	_, text, _ = bytes.Cut(text, []byte("\nwrite_bytes: "))
	var n int64
	if _, err := fmt.Sscan(string(text), &n); err != nil {
		b.Fatal("cannot read /proc/self/io: ", err)
	}
	return n
}
