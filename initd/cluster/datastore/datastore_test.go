package datastore

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// values opens a database as Start does and lists what it holds below a prefix.
func values(t *testing.T, dir string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	backend, err := open(ctx, &wg, filepath.Join(dir, databaseName), "WAL", "FULL")
	if err != nil {
		t.Fatal(err)
	}
	defer wg.Wait()
	defer cancel()
	_, list, err := backend.List(ctx, "/registry/test/", "/registry/test0", 0, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, kv := range list {
		out = append(out, kv.Key+"="+string(kv.Value))
	}
	slices.Sort(out)
	return out
}

func seed(value string) func() ([]Entry, error) {
	return func() ([]Entry, error) {
		return []Entry{{"/registry/test/a", []byte(value)}, {"/registry/test/b", []byte(value)}}, nil
	}
}

func TestSeed(t *testing.T) {
	dir := t.TempDir()
	start := func(s func() ([]Entry, error)) error {
		store, err := Start(Config{Dir: dir, Socket: filepath.Join(t.TempDir(), "s"), Sync: SyncFull, Seed: s})
		if err == nil {
			store.Stop()
		}
		return err
	}
	if err := start(func() ([]Entry, error) { return nil, errors.New("no seed") }); err == nil {
		t.Error("a database was made without the seed")
	}
	if _, err := os.Stat(filepath.Join(dir, databaseName)); err == nil {
		t.Error("a failed attempt left a database")
	}
	// What a power cut leaves of an attempt is in nobody's way.
	if err := os.WriteFile(filepath.Join(dir, databaseName+".new"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := start(seed("first")); err != nil {
		t.Fatal(err)
	}
	if err := start(seed("second")); err != nil {
		t.Fatal(err)
	}
	want := []string{"/registry/test/a=first", "/registry/test/b=first"}
	if got := values(t, dir); !slices.Equal(got, want) {
		t.Errorf("the database holds %q, want %q", got, want)
	}
}

// What a change writes depends on it (docs/decisions/0011), and SQLite ignores the setting in silence when it comes too late.
func TestPageSize(t *testing.T) {
	dir := t.TempDir()
	if err := create(Config{Dir: dir, Seed: seed("1")}, filepath.Join(dir, databaseName)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	if got := binary.BigEndian.Uint16(b[16:]); got != pageBytes { // the format's description, 1.3.2
		t.Errorf("pages have %d bytes, want %d", got, pageBytes)
	}
}

func TestCopyOfOneInUse(t *testing.T) {
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	store, err := Start(Config{Dir: dir, Socket: filepath.Join(t.TempDir(), "s"), Sync: SyncFull, Seed: seed("1")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Stop()
	if err := Copy(t.Context(), dir, to); err != nil {
		t.Fatal(err)
	}
	if got, want := values(t, to), []string{"/registry/test/a=1", "/registry/test/b=1"}; !slices.Equal(got, want) {
		t.Errorf("the copy has %v, want %v", got, want)
	}
	if err := Copy(t.Context(), dir, to); err == nil {
		t.Error("a copy was overwritten")
	}
	missing := filepath.Join(t.TempDir(), "none")
	if err := Copy(t.Context(), missing, filepath.Join(missing, "copy")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a datastore that is not there was copied: %v", err)
	}
}
