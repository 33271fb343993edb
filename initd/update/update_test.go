package update_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
	. "github.com/skerryos/skerry/initd/update"
	. "github.com/skerryos/skerry/initd/update/updatetest"
)

var golden = flag.Bool("update", false, "write golden files")

// booted is a device of the factory that runs and is good.
func booted(t *testing.T) *machine {
	t.Helper()
	m := factory("1.0.0")
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.processOne(goal{}); err != nil {
		t.Fatal(err)
	}
	m.up = true
	return m
}

func (m *machine) must(t *testing.T, g goal, old string) {
	t.Helper()
	if err := m.drive(g, old); err != nil {
		t.Fatalf("%s: %v", g.name, err)
	}
}

func (m *machine) status(t *testing.T) Record {
	t.Helper()
	r, err := m.updater().Status()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// all is everything that a refusal must not change.
func (m *machine) all() string {
	return m.Slots.String() + string(m.Store.Now) + string(m.Roots[slot.A].Now) + string(m.Roots[slot.B].Now) + string(m.Scratch.Now)
}

func TestRefusals(t *testing.T) {
	good := Bundle(t, "2.0.0", Owner, nil)
	for _, c := range []struct {
		name    string
		prepare func(*testing.T, *machine)
		bundle  []byte
		want    string
		forced  string // what it says when forced; empty: it is done
	}{
		{name: "another board", bundle: Bundle(t, "2.0.0", Owner, func(m *bundle.Manifest) { m.Board = "pi4" }),
			want: "it is for board pi4, and this is x86-64", forced: "board"},
		{name: "another architecture", bundle: Bundle(t, "2.0.0", Owner, func(m *bundle.Manifest) { m.Architecture = "arm64" }),
			want: "it is for architecture arm64, and this is amd64", forced: "architecture"},
		{name: "below the floor", bundle: Bundle(t, "2.0.1", Owner, func(m *bundle.Manifest) { m.Floor = 6 }), prepare: func(t *testing.T, m *machine) {
			m.must(t, goal{version: "2.0.0", bundle: Bundle(t, "2.0.0", Owner, func(m *bundle.Manifest) { m.Floor = 7 })}, "1.0.0")
		}, want: "its security floor 6 is below 7", forced: "floor"},
		{name: "below the image's own floor", bundle: good, prepare: func(_ *testing.T, m *machine) { m.Running.Floor = 3 },
			want: "its security floor 0 is below 3", forced: "floor"},
		{name: "runs already", bundle: Bundle(t, "1.0.0", Owner, nil), want: "version 1.0.0 runs already"},
		{name: "has failed", bundle: good, prepare: func(t *testing.T, m *machine) {
			m.must(t, goal{version: "2.0.0", bundle: good, unhealthy: true}, "1.0.0")
		}, want: "version 2.0.0 has failed here before (containerd did not start)"},
		{name: "is on trial", bundle: Bundle(t, "3.0.0", Owner, nil), prepare: func(t *testing.T, m *machine) {
			u := m.updater()
			if err := errors.Join(write(u, bytes.NewReader(good), false), u.Try()); err != nil {
				t.Fatal(err)
			}
		}, want: "there is one already: upgrade to version 2.0.0 in slot b: trying", forced: "one already"},
		{name: "is about to go back", bundle: Bundle(t, "3.0.0", Owner, nil), prepare: func(t *testing.T, m *machine) {
			m.must(t, goal{version: "2.0.0", bundle: good}, "1.0.0")
			if err := m.updater().Rollback("it is slow"); err != nil {
				t.Fatal(err)
			}
		}, want: "version 2.0.0 in slot b: rolled back, it is slow", forced: "restart"},
		{name: "not healthy yet", bundle: good, prepare: func(t *testing.T, m *machine) {
			if err := errors.Join(m.Slots.Install(slot.B, bytes.NewReader(Image(slot.B, "1.0.0")), BootSize, 1), m.Slots.MarkGood(slot.B), m.Slots.MarkBad(slot.A)); err != nil {
				t.Fatal(err)
			}
		}, want: "slot a, which runs, is not marked good yet", forced: "not marked good"},
		{name: "another upgrade is running", bundle: good, prepare: func(_ *testing.T, m *machine) { m.Locked = true },
			want: "only one upgrade at a time; there is one already: no upgrade is under way (locked)", forced: "locked"},
		{name: "root partition too small", bundle: good, prepare: func(_ *testing.T, m *machine) { m.Roots[slot.B].Capacity = RootSize - 1 },
			want: "artefact root has 12288 bytes, and the root partition of slot b has room for 12287", forced: "room"},
		{name: "data partition full", bundle: good, prepare: func(_ *testing.T, m *machine) { m.Scratch.Capacity = BootSize - 1 },
			want: "artefact boot-b has 3072 bytes, and the data partition has room for 3071", forced: "room"},
		{name: "not our key", bundle: Bundle(t, "2.0.0", Next, nil), want: "which is not trusted", forced: "not trusted"},
		{name: "leaves no key", bundle: Bundle(t, "2.0.0", Owner, func(m *bundle.Manifest) { m.Keys.Retire = []string{bundle.KeyID(Owner.Public)} }),
			want: "no trusted key would be left", forced: "no trusted key"},
		{name: "cut off in its head", bundle: good[:100], want: "EOF", forced: "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := booted(t)
			if c.prepare != nil {
				c.prepare(t, m)
			}
			before := m.all()
			err := write(m.updater(), bytes.NewReader(c.bundle), false)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if m.all() != before {
				t.Error("refused, but something was changed")
			}
			err = write(m.updater(), bytes.NewReader(c.bundle), true)
			if (err == nil) != (c.forced == "") || (err != nil && !strings.Contains(err.Error(), c.forced)) {
				t.Errorf("forced: error %v, want %q", err, c.forced)
			}
			var refused *RefusedError
			if errors.As(err, &refused) && refused.Forceable {
				t.Error("said to be forceable after it was forced")
			}
			if err != nil && m.all() != before {
				t.Error("forced and refused, but something was changed")
			}
		})
	}
}

// counting counts what is read of a stream.
type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func TestResume(t *testing.T) {
	m := booted(t)
	all := Bundle(t, "2.0.0", Owner, nil)
	b, err := m.updater().Open(bytes.NewReader(all))
	if err != nil {
		t.Fatal(err)
	}
	const from = 7
	cut := int(b.Manifest().Offset(from)) + 3
	if err := write(m.updater(), bytes.NewReader(all[:cut]), false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a bundle that is cut off: %v", err)
	}
	if got := m.status(t).Upgrade; got.State != Writing || got.Chunk != from {
		t.Fatalf("%v", got)
	}
	// Another stream begins in the middle, as with HTTP ranges.
	u := m.updater()
	w, err := u.Begin(b, false)
	if err != nil {
		t.Fatal(err)
	}
	if w.Chunk() != from {
		t.Fatalf("goes on from chunk %d", w.Chunk())
	}
	// Only one at a time.
	var busy *BusyError
	if err := write(m.updater(), bytes.NewReader(all), true); !errors.As(err, &busy) || busy.Upgrade.Version != "2.0.0" {
		t.Errorf("a second upgrade: %v", err)
	}
	rest := &counting{Reader: bytes.NewReader(all[b.Manifest().Offset(from):])}
	if err := b.Resume(from, rest); err != nil {
		t.Fatal(err)
	}
	var steps []int
	w.Progress = func(done, _ int) { steps = append(steps, done) }
	if err := errors.Join(w.Run(context.Background()), w.Close()); err != nil {
		t.Fatal(err)
	}
	if want := len(all) - int(b.Manifest().Offset(from)); rest.n != want || steps[0] != from+1 || steps[len(steps)-1] != len(b.Manifest().Chunks) {
		t.Errorf("read %d bytes, want %d; progress %v", rest.n, want, steps)
	}
	if got := m.status(t).Upgrade; got.State != Written {
		t.Errorf("%v", got)
	}
	// Sent once more, it is there already.
	if err := write(m.updater(), bytes.NewReader(all[:m.headerSize(t, all)]), false); err != nil {
		t.Error(err)
	}
	// Another bundle takes its place.
	m.must(t, goal{version: "3.0.0", bundle: Bundle(t, "3.0.0", Owner, nil)}, "1.0.0")
}

func (m *machine) headerSize(t *testing.T, skb []byte) int64 {
	t.Helper()
	b, err := m.updater().Open(bytes.NewReader(skb))
	if err != nil {
		t.Fatal(err)
	}
	return b.Manifest().Offset(0)
}

func TestCancel(t *testing.T) {
	m := booted(t)
	u := m.updater()
	b, err := u.Open(bytes.NewReader(Bundle(t, "2.0.0", Owner, nil)))
	if err != nil {
		t.Fatal(err)
	}
	w, err := u.Begin(b, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("the operator went away")
	w.Progress = func(done, _ int) {
		if done == 5 {
			cancel(reason)
		}
	}
	if err := errors.Join(w.Run(ctx), w.Close()); !errors.Is(err, reason) {
		t.Errorf("error %v", err)
	}
	if got := m.status(t).Upgrade; got.State != Writing || got.Chunk != 5 {
		t.Errorf("%v", got)
	}
}

// A disk that gives back other bytes than were written is found out before anything can be booted.
func TestReadBack(t *testing.T) {
	m := booted(t)
	all := Bundle(t, "2.0.0", Owner, nil)
	broken := func() error { m.Roots[slot.B].Now[5] = RootFS("2.0.0")[5] ^ 1; return nil }
	m.Scratch.OnStep = broken // the boot image comes after the root
	err := write(m.updater(), bytes.NewReader(all), false)
	m.Scratch.OnStep = nil
	if err == nil || !strings.Contains(err.Error(), "artefact root was written, and reads back with SHA-256") {
		t.Fatalf("error %v", err)
	}
	if got := m.status(t).Upgrade; got.State != Writing || got.Chunk != 0 || got.Reason == "" {
		t.Errorf("%+v", got)
	}
	if err := m.updater().Try(); err == nil || !strings.Contains(err.Error(), "there is nothing to try") {
		t.Errorf("error %v", err)
	}
	m.must(t, goal{version: "2.0.0", bundle: all}, "1.0.0")
}

// A full boot partition.
type fullBackend struct{ slot.Backend }

func (fullBackend) Install(slot.Name, io.Reader, int64, int) error {
	return errors.New("no space left")
}

func TestInstallFails(t *testing.T) {
	m := booted(t)
	u := m.updater()
	if err := write(u, bytes.NewReader(Bundle(t, "2.0.0", Owner, nil)), false); err != nil {
		t.Fatal(err)
	}
	slots := u.Slots
	u.Slots = fullBackend{slots}
	if err := u.Try(); err == nil {
		t.Fatal("installed")
	}
	if got := m.status(t).Upgrade; got.State != Written || got.Reason != "no space left" {
		t.Errorf("%+v", got)
	}
	u.Slots = slots
	if err := u.Try(); err != nil {
		t.Error(err)
	}
}

// Key changes and floor hold when the version is committed, and not before.
func TestKeysAndFloor(t *testing.T) {
	change := func(m *bundle.Manifest) {
		m.Floor, m.Keys = 7, bundle.KeyChange{Add: []string{Next.Public.String()}, Retire: []string{bundle.KeyID(Owner.Public)}}
	}
	opens := func(m *machine, by Signer) bool {
		_, err := m.updater().Open(bytes.NewReader(Bundle(t, "9.9.9", by, nil)))
		return err == nil
	}
	m := booted(t)
	m.must(t, goal{version: "2.0.0", bundle: Bundle(t, "2.0.0", Owner, change), unhealthy: true}, "1.0.0")
	if !opens(m, Owner) || opens(m, Next) || m.status(t).Floor != 0 {
		t.Error("a version that was rolled back has changed keys or floor")
	}
	m.must(t, goal{version: "2.0.1", bundle: Bundle(t, "2.0.1", Owner, change)}, "1.0.0")
	if opens(m, Owner) || !opens(m, Next) || m.status(t).Floor != 7 {
		t.Error("a version that was committed has not changed keys or floor")
	}
	if got := m.status(t).Failed; len(got) != 1 || got[0].Version != "2.0.0" {
		t.Errorf("%v", got)
	}
}

// Rollback before the machine was restarted takes the new slot back, not the one that runs.
func TestRollbackBeforeTrial(t *testing.T) {
	m := booted(t)
	u := m.updater()
	if err := errors.Join(write(u, bytes.NewReader(Bundle(t, "2.0.0", Owner, nil)), false), u.Try(), u.Rollback("changed my mind")); err != nil {
		t.Fatal(err)
	}
	m.up = false
	if err := m.PowerOn(); err != nil || m.Running.Version != "1.0.0" {
		t.Errorf("version %s runs, %v", m.Running.Version, err)
	}
	if err := m.updater().Rollback("again"); err == nil || !strings.Contains(err.Error(), "slot b has no system that works") {
		t.Errorf("error %v", err)
	}
}

// A disk that was flashed anew, with the data partition kept, has a record of something else.
func TestStaleRecord(t *testing.T) {
	m := booted(t)
	m.must(t, goal{version: "2.0.0", bundle: Bundle(t, "2.0.0", Owner, nil)}, "1.0.0")
	fresh := factory("5.0.0")
	fresh.Store = m.Store
	if err := fresh.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if v, err := fresh.updater().AtBoot(""); v != Normal || err != nil {
		t.Errorf("%s, %v", v, err)
	}
	if got := fresh.status(t).Upgrade; got.State != Idle || got.Reason == "" {
		t.Errorf("%+v", got)
	}
}

func TestDamagedRecord(t *testing.T) {
	m := booted(t)
	m.Store.Now = []byte(`{"upgrade": {"sta`)
	if v, err := m.updater().AtBoot(""); v != Normal || err != nil {
		t.Errorf("%s, %v", v, err)
	}
	m.must(t, goal{version: "2.0.0", bundle: Bundle(t, "2.0.0", Owner, nil)}, "1.0.0")
	// A state of a later version, which has rolled back to this one.
	m.Store.Now = []byte(`{"upgrade": {"state": "pondering", "mood": "good"}, "floor": 7}`)
	if got := m.status(t); got.Upgrade.State != Idle || got.Floor != 7 {
		t.Errorf("%+v", got)
	}
}

func TestReasonOfLastBoot(t *testing.T) {
	m := booted(t)
	u := m.updater()
	if err := errors.Join(write(u, bytes.NewReader(Bundle(t, "2.0.0", Owner, nil)), false), u.Try()); err != nil {
		t.Fatal(err)
	}
	for range Tries + 1 {
		if err := m.PowerOn(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.updater().AtBoot("kernel panic: not syncing"); err != nil {
		t.Fatal(err)
	}
	if got := m.status(t).Upgrade; got.State != RolledBack || got.Reason != "kernel panic: not syncing" {
		t.Errorf("%+v", got)
	}
}

// The record of a device in the field must stay readable.
func TestRecord(t *testing.T) {
	m := booted(t)
	m.must(t, goal{version: "1.1.0", bundle: Bundle(t, "1.1.0", Owner, nil), unhealthy: true}, "1.0.0")
	if err := write(m.updater(), bytes.NewReader(Bundle(t, "2.0.0", Owner, func(m *bundle.Manifest) {
		m.Floor, m.Keys = 7, bundle.KeyChange{Add: []string{Next.Public.String()}}
	})), false); err != nil {
		t.Fatal(err)
	}
	compare(t, "record.json", m.Store.Now)
	var table bytes.Buffer
	if err := WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	compare(t, "table.txt", table.Bytes())
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *golden {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s", name, got)
	}
}

func TestTable(t *testing.T) {
	var states []State
	for _, r := range Table() {
		states = append(states, r.State)
	}
	for _, r := range Table() {
		for _, n := range r.Next {
			if !slices.Contains(states, n) {
				t.Errorf("%s leads to %s, which is no state", r.State, n)
			}
		}
	}
}

func TestFileStore(t *testing.T) {
	s := FileStore(filepath.Join(t.TempDir(), "update.json"))
	if _, err := s.Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	for _, text := range []string{"one", "two"} {
		if err := s.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(); string(got) != text || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// Whoever is still about to keep a version that was given up meanwhile does not.
func TestCommitAfterRollback(t *testing.T) {
	m := booted(t)
	if err := errors.Join(write(m.updater(), bytes.NewReader(Bundle(t, "2.0.0", Owner, nil)), false), m.updater().Try()); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.updater().AtBoot(""); err != nil {
		t.Fatal(err)
	}
	if err := m.updater().Rollback("it is slow"); err != nil {
		t.Fatal(err)
	}
	if err := m.updater().Commit(); err == nil || !strings.Contains(err.Error(), "was given up and is not kept: it is slow") {
		t.Errorf("committed: %v", err)
	}
	if s, err := m.Slots.Status(slot.B); err != nil || s.Bootable() {
		t.Errorf("slot b is %+v, %v", s, err)
	}
}

// When the boot loader goes back from a version that was committed, nobody has said that what was made since is to be given up.
func TestWhoGoesBackFromACommit(t *testing.T) {
	upgraded := func() *machine {
		m := booted(t)
		m.must(t, goal{version: "2.0.0", bundle: Bundle(t, "2.0.0", Owner, nil)}, "1.0.0")
		return m
	}
	m := upgraded()
	m.Running.Slot, m.Running.Version = slot.A, "1.0.0" // chosen in the boot loader's menu
	if _, err := m.updater().AtBoot(""); err != nil {
		t.Fatal(err)
	}
	if up := m.status(t).Upgrade; up.State != RolledBack || !up.Kept {
		t.Errorf("the boot loader went back: %+v", up)
	}
	m = upgraded()
	if err := m.updater().Rollback("it is slow"); err != nil {
		t.Fatal(err)
	}
	if up := m.status(t).Upgrade; up.State != RolledBack || up.Kept {
		t.Errorf("a person went back: %+v", up)
	}
}
