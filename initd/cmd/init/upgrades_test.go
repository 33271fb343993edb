package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/skerryos/skerry/initd/api"
	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/update/updatetest"
)

// A bench is a device whose API is asked for upgrades, and what it was seen to do.
type bench struct {
	*upgrades
	device *updatetest.Device
	did    chan string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	d := updatetest.NewDevice("1")
	if err := d.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if err := d.Updater().Commit(); err != nil {
		t.Fatal(err)
	}
	id := filepath.Join(t.TempDir(), "machine-id")
	if err := os.WriteFile(id, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bench{device: d, did: make(chan string, 8)}
	note := func(what string) func(context.Context) error {
		return func(context.Context) error { b.did <- what; return nil }
	}
	b.upgrades = &upgrades{
		Updater: d.Updater(), identity: id, drain: note("drain"), undrain: note("undrain"),
		reboot: func() error { b.did <- "reboot"; return nil },
	}
	return b
}

// describe is what the device says of its slots and upgrades.
func (b *bench) describe(t *testing.T) string {
	t.Helper()
	var s v1.State
	if err := b.Describe(&s); err != nil {
		t.Fatal(err)
	}
	s.Update.Bundle = "" // a sum
	var lines []string
	for _, part := range []any{s.MachineID, s.Problems, s.Slots, s.Update} {
		text, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(text))
	}
	return strings.Join(lines, "\n")
}

func (b *bench) upload(t *testing.T, skb []byte, from int, force bool) error {
	t.Helper()
	return b.Upload(t.Context(), bytes.NewReader(skb), from, force)
}

func TestUploadAndTry(t *testing.T) {
	b := newBench(t)
	skb := updatetest.Bundle(t, "2", updatetest.Owner, nil)
	if err := b.Try(); err == nil || !strings.Contains(err.Error(), "there is nothing to try") {
		t.Errorf("nothing was tried: %v", err)
	}
	if err := b.upload(t, skb, 0, false); err != nil {
		t.Fatal(err)
	}
	// Those who come second are told how it is, and change nothing.
	if err := b.Try(); err != nil {
		t.Fatal(err)
	}
	if got := <-b.did + " " + <-b.did; got != "drain reboot" {
		t.Errorf("the device did %s", got)
	}
	if err := b.tryNow(t.Context()); !errors.Is(err, errTrying) {
		t.Errorf("it was tried twice: %v", err)
	}
	err := b.upload(t, skb, 0, false)
	refusal, _ := errors.AsType[*api.Refusal](err)
	if refusal == nil || refusal.Status != 409 || refusal.Update == nil || refusal.Update.State != "trying" {
		t.Errorf("a second upgrade: %v", err)
	}
	want := `"0123456789abcdef"
null
[{"name":"a","version":"1","running":true,"present":true,"good":true},{"name":"b","version":"2","running":false,"present":true,"good":false,"tries":3}]
{"state":"trying","activity":"restarting","version":"2","from":"1","target":"b","chunk":N,"chunks":N,"started":"2025-11-25T19:46:40Z","changed":"2025-11-25T19:46:40Z","floor":0}`
	of := len(mustOpen(t, skb).Manifest().Chunks)
	if got := b.describe(t); got != strings.ReplaceAll(want, "N,", fmt.Sprint(of, ",")) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func mustOpen(t *testing.T, skb []byte) *bundle.Reader {
	t.Helper()
	b, err := bundle.OpenUnverified(bytes.NewReader(skb))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a client is told decides what it does next.
func TestRefusals(t *testing.T) {
	good := updatetest.Bundle(t, "2", updatetest.Owner, nil)
	for _, c := range []struct {
		name   string
		skb    []byte
		from   int
		status int
		force  bool
		text   string
	}{
		{"no bundle", []byte("hello, this is no bundle"), 0, 400, false, "cannot read bundle"},
		{"stranger", updatetest.Bundle(t, "2", updatetest.Next, nil), 0, 403, false, "not trusted"},
		{"other board", updatetest.Bundle(t, "2", updatetest.Owner, func(m *bundle.Manifest) { m.Board = "toaster" }), 0, 412, false, "toaster"},
		{"same version", updatetest.Bundle(t, "1", updatetest.Owner, nil), 0, 412, true, "runs already"},
		{"truncated", good[:len(good)-10], 0, 400, false, ""},
		{"gap", good, 3, 409, false, "must go on from chunk 0, not from 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			err := b.upload(t, c.skb, c.from, false)
			refusal, ok := errors.AsType[*api.Refusal](err)
			if !ok || refusal.Status != c.status || refusal.Forceable != c.force || !strings.Contains(refusal.Error(), c.text) || refusal.Hint == "" {
				t.Errorf("%v: %+v", err, refusal)
			}
			if b.device.Locked {
				t.Error("the device stays locked")
			}
			if s := b.describe(t); strings.Contains(s, `"activity"`) {
				t.Errorf("something still goes on: %s", s)
			}
		})
	}
}

// A transfer that was cut goes on from the chunk that the device says.
func TestUploadGoesOn(t *testing.T) {
	b := newBench(t)
	skb := updatetest.Bundle(t, "2", updatetest.Owner, nil)
	r := mustOpen(t, skb)
	head, chunks := len(r.Header()), len(r.Manifest().Chunks)
	half := int(r.Manifest().Offset(chunks / 2))
	if err := b.upload(t, skb[:half+1], 0, false); err == nil {
		t.Fatal("half a bundle is enough")
	}
	rec, err := b.Status()
	if err != nil || rec.Upgrade.Chunk != chunks/2 {
		t.Fatalf("chunk %d of %d, %v", rec.Upgrade.Chunk, chunks, err)
	}
	rest := append(bytes.Clone(skb[:head]), skb[half:]...)
	if err := b.upload(t, rest, chunks/2, false); err != nil {
		t.Fatal(err)
	}
	// With all of it there, the header is enough.
	if err := b.upload(t, skb[:head], chunks, false); err != nil {
		t.Error(err)
	}
}

// What cannot be tried leaves a node that takes pods, and says why.
func TestTryThatFails(t *testing.T) {
	b := newBench(t)
	if err := b.upload(t, updatetest.Bundle(t, "2", updatetest.Owner, nil), 0, false); err != nil {
		t.Fatal(err)
	}
	b.device.Scratch.Now[0] ^= 1 // the boot image is damaged meanwhile
	broken := errors.New("no space left on the boot partition")
	b.drain = func(context.Context) error {
		b.device.Slots.OnStep(func() error { return broken })
		return nil
	}
	b.undrain = func(context.Context) error { b.did <- "undrain"; b.device.Slots.OnStep(nil); return nil }
	if err := b.tryNow(t.Context()); !errors.Is(err, broken) {
		t.Errorf("tried: %v", err)
	}
	if got := <-b.did; got != "undrain" {
		t.Errorf("the device did %s", got)
	}
	if got := b.describe(t); !strings.Contains(got, `"reason":"the upgrade is written, but not tried: `) || strings.Contains(got, "activity") {
		t.Errorf("it says %s", got)
	}
}

func TestFetch(t *testing.T) {
	b := newBench(t)
	if err := b.Fetch(); err == nil {
		t.Error("a device without a URL fetches something")
	}
	b.asked = make(chan struct{}, 1)
	for range 3 {
		if err := b.Fetch(); err != nil {
			t.Fatal(err)
		}
	}
	<-b.asked
	b.report("sticks", "looking", "bad stick")
	if got := b.describe(t); !strings.Contains(got, `["sticks: bad stick"]`) || !strings.Contains(got, `"activity":"looking"`) {
		t.Error(got)
	}
	b.report("sticks", "", "")
	if got := b.describe(t); strings.Contains(got, "stick") {
		t.Error(got)
	}
}

var _ api.Upgrades = (*upgrades)(nil)

// What is about to be tried is not overwritten by another version; its own transfer may come again.
func TestNoOtherVersionWhileTrying(t *testing.T) {
	b := newBench(t)
	skb := updatetest.Bundle(t, "2", updatetest.Owner, nil)
	if err := b.upload(t, skb, 0, false); err != nil {
		t.Fatal(err)
	}
	if !b.claim() {
		t.Fatal("somebody tries it already")
	}
	err := b.upload(t, updatetest.Bundle(t, "3", updatetest.Owner, nil), 0, false)
	if refusal, _ := errors.AsType[*api.Refusal](err); refusal == nil || refusal.Status != 409 || !strings.Contains(err.Error(), "version 2 is about to be tried") {
		t.Errorf("another version: %v", err)
	}
	if err := b.upload(t, skb, 0, false); err != nil {
		t.Errorf("the same version: %v", err)
	}
}

// TestWhoseFault: what the disk does is not answered as if the client had sent a wrong bundle, and a lost connection not as if the disk had failed.
func TestWhoseFault(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for _, c := range []struct {
		name string
		err  error
		want int // 0: an error of the device
	}{
		{"full disk", fmt.Errorf("cannot keep the record: %w", &fs.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}), http.StatusInsufficientStorage},
		{"disk fails, by path", &fs.PathError{Op: "write", Path: "/x", Err: syscall.EIO}, 0},
		{"disk fails, without a path", fmt.Errorf("cannot sync: %w", syscall.EIO), 0},
		{"connection lost", fmt.Errorf("cannot read chunk 1: %w", reset), http.StatusBadRequest},
		{"stream too short", io.ErrUnexpectedEOF, http.StatusBadRequest},
	} {
		got := 0
		if r, ok := errors.AsType[*api.Refusal](newBench(t).refusal(c.err)); ok {
			got = r.Status
		}
		if got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
	}
}
