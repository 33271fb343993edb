package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// device is a datastore with some content, and its snapshots.
func device(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	s := &Store{Dir: filepath.Join(dir, "snapshots"), Datastore: filepath.Join(dir, "db")}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.Now = func() time.Time { now = now.Add(time.Minute); return now }
	return s
}

func write(t *testing.T, s *Store, content string) {
	t.Helper()
	if err := os.MkdirAll(s.Datastore, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"state.db", "state.db-wal"} {
		if err := os.WriteFile(filepath.Join(s.Datastore, name), []byte(name+" "+content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// content is what a folder holds, as one text; "none" when it is not there, and "torn" when its files do not belong together.
func content(dir string) string {
	var all []string
	for _, name := range []string{"state.db", "state.db-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			all = append(all, strings.TrimPrefix(string(b), name+" "))
		}
	}
	switch {
	case len(all) == 0:
		return "none"
	case len(all) == 1 || all[0] != all[1]:
		return "torn"
	}
	return all[0]
}

func describe(t *testing.T, s *Store) string {
	t.Helper()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{"datastore " + content(s.Datastore)}
	for _, i := range list {
		lines = append(lines, fmt.Sprintf("%s of %s for %q: %s, %d bytes", i.Name, i.Version, i.For, content(filepath.Join(s.Dir, i.Name, dataDir)), i.Bytes))
	}
	return strings.Join(lines, "\n")
}

func TestTakeAndRestore(t *testing.T) {
	s := device(t)
	if _, ok, err := s.Take(Info{Reason: Upgrade}); ok || err != nil {
		t.Fatalf("a snapshot of nothing: %v, %v", ok, err)
	}
	write(t, s, "one")
	taken, ok, err := s.Take(Info{Version: "1", Reason: Upgrade, For: "u1"})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	write(t, s, "two")
	if err := s.Request(taken.Name); err != nil {
		t.Fatal(err)
	}
	restored, err := s.Apply("2")
	if err != nil || restored != taken.Name {
		t.Fatal(restored, err)
	}
	if again, err := s.Apply("2"); again != "" || err != nil {
		t.Errorf("restored twice: %q, %v", again, err)
	}
	want := `datastore one
20260102-030605-replaced of 2 for "": two, 28 bytes
20260102-030505-upgrade of 1 for "u1": one, 28 bytes`
	if got := describe(t, s); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if found, ok, err := s.Find("u1"); !ok || err != nil || found.Name != taken.Name {
		t.Errorf("found %v, %v, %v", found, ok, err)
	}
	if _, ok, err := s.Find("u2"); ok || err != nil {
		t.Errorf("found what is not there: %v", err)
	}
}

func TestOnlyAFewStay(t *testing.T) {
	s := device(t)
	var names []string
	for i := range 5 {
		write(t, s, fmt.Sprint(i))
		taken, _, err := s.Take(Info{Reason: Asked})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, taken.Name)
		if i == 1 {
			if err := s.Request(taken.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range list {
		got = append(got, i.Name)
	}
	// The one that is asked for stays, too.
	if want := []string{names[4], names[3], names[2], names[1]}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A clock that was years ahead, and a disk that has lost files, must not keep a device from taking snapshots: without one there is
// no upgrade.
func TestClockSetBackAndDamage(t *testing.T) {
	s := device(t)
	write(t, s, "one")
	take := func() Info {
		t.Helper()
		taken, ok, err := s.Take(Info{Reason: Upgrade})
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		return taken
	}
	now := s.Now
	s.Now = func() time.Time { return now().AddDate(10, 0, 0) }
	first, second, third := take(), take(), take()
	s.Now = now
	fourth, fifth := take(), take()
	var got []string
	list, err := s.List()
	for _, i := range list {
		got = append(got, i.Name)
	}
	if want := []string{third.Name, second.Name, fifth.Name}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v without %s and %s", got, err, want, first.Name, fourth.Name)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(s.path(second.Name), dataDir)),
		os.WriteFile(filepath.Join(s.path(third.Name), infoFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	sixth := take()
	if list, err := s.List(); err != nil || len(list) != 2 || list[0].Name != sixth.Name {
		t.Errorf("%v, %v", list, err)
	}
}

func TestMistakes(t *testing.T) {
	s := device(t)
	for _, name := range []string{"", "..", "a/b", "none", "x.new", "restore"} {
		if err := s.Request(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q was requested: %v", name, err)
		}
	}
	if _, err := s.Adopt(Info{Reason: Asked}, func(string) error { return errors.New("no room") }); err == nil {
		t.Error("a snapshot that could not be filled was taken")
	}
	if got := describe(t, s); got != "datastore none" {
		t.Error(got)
	}
	// One that was removed by hand after it was asked for.
	write(t, s, "one")
	taken, _, err := s.Take(Info{Reason: Asked})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Request(taken.Name), os.RemoveAll(s.path(taken.Name))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply("1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("restored from nothing: %v", err)
	}
	if name, err := s.Apply("1"); name != "" || err != nil || content(s.Datastore) != "one" {
		t.Errorf("%q, %v, datastore %s", name, err, content(s.Datastore))
	}
}

// What could not be put back is not put back at some later time, unless the datastore is in the middle of it.
func TestWithdraw(t *testing.T) {
	for _, c := range []struct{ fails, want string }{
		{"copy", "old, withdrawn"},
		{"copied", "old, withdrawn"},
		{"name", "none, still asked for"},
	} {
		s := device(t)
		write(t, s, "snapshot")
		taken, _, err := s.Take(Info{Reason: Asked})
		write(t, s, "old")
		if err := errors.Join(err, s.Request(taken.Name)); err != nil {
			t.Fatal(err)
		}
		s.cut = func(step string) error {
			if strings.HasPrefix(step, c.fails) {
				return errors.New("no space left")
			}
			return nil
		}
		if _, err := s.Apply("1"); err == nil {
			t.Errorf("%s: applied", c.fails)
		}
		s.cut = nil
		name, err := s.Withdraw()
		got := content(s.Datastore)
		switch name {
		case taken.Name:
			got += ", withdrawn"
		case "":
			got += ", still asked for"
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.fails, got, err, c.want)
		}
	}
}

// The power goes before each step in turn, and then machines boot until nothing is left to do: the datastore is the
// snapshot, the one it has replaced is kept, and between them there never was a torn one.
func TestPowerCuts(t *testing.T) {
	errCut := errors.New("power cut")
	cuts := 0
	for n := 0; ; n++ {
		s := device(t)
		write(t, s, "good")
		if _, _, err := s.Take(Info{Version: "1", Reason: Upgrade, For: "u"}); err != nil {
			t.Fatal(err)
		}
		write(t, s, "bad")
		left, reached := n, ""
		s.cut = func(step string) error {
			if left--; left == -1 {
				reached = step
				return errCut
			}
			if left < -1 {
				return errCut // nothing happens after it
			}
			return nil
		}
		taken, _, err := s.Find("u")
		if err != nil {
			t.Fatal(err)
		}
		requested := s.Request(taken.Name)
		if requested == nil {
			_, err = s.Apply("2")
		}
		cutHere := requested != nil || err != nil
		if cutHere && !errors.Is(errors.Join(requested, err), errCut) {
			t.Fatal(requested, err)
		}
		if c := content(s.Datastore); c == "torn" {
			t.Errorf("cut at %q: the datastore is torn", reached)
		}
		s.cut = nil
		if requested != nil {
			if err := s.Request(taken.Name); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Apply("2"); err != nil {
			t.Errorf("cut at %q: %v", reached, err)
		}
		got := describe(t, s)
		if !strings.HasPrefix(got, "datastore good\n") || !strings.Contains(got, `-replaced of 2 for "": bad, 28 bytes`) || strings.Contains(got, "torn") {
			t.Errorf("cut at %q: got\n%s", reached, got)
		}
		if entries, err := os.ReadDir(filepath.Dir(s.Datastore)); err != nil || len(entries) != 2 {
			t.Errorf("cut at %q: %v, %v beside the datastore", reached, entries, err)
		}
		if !cutHere {
			break
		}
		cuts++
	}
	if cuts < 7 {
		t.Errorf("only %d steps were cut", cuts)
	}
	t.Logf("%d power cuts", cuts)
}
