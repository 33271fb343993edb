package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/node/nodetest"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// hasty is a clock on which all waiting takes no time.
type hasty struct{ now time.Time }

func (h *hasty) Now() time.Time { return h.now }

func (h *hasty) Sleep(ctx context.Context, d time.Duration) error {
	h.now = h.now.Add(d)
	return ctx.Err()
}

// newContext makes a context of its own store.
func newContext(t *testing.T) contexts.Context {
	t.Helper()
	c, err := contexts.Store{Dir: filepath.Join(t.TempDir(), "contexts")}.New("fleet", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start switches on a device that admits the contexts.
func start(t *testing.T, config nodetest.Config, admitted ...contexts.Context) *nodetest.Device {
	t.Helper()
	for _, c := range admitted {
		pem, err := os.ReadFile(c.AuthorityFile())
		if err != nil {
			t.Fatal(err)
		}
		config.Clients = append(config.Clients, pem...)
	}
	d, err := nodetest.Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func known(t *testing.T, c contexts.Context) []contexts.Device {
	t.Helper()
	list, err := c.Devices()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestDialKnowsDevicesAgain(t *testing.T) {
	c := newContext(t)
	d := start(t, nodetest.Config{Version: "1.0.0"}, c)
	fingerprint := contexts.Fingerprint(d.Certificate())
	var notes []string
	dial := func(o Options) error {
		notes = nil
		o.Note = func(line string) { notes = append(notes, line) }
		n, err := Dial(t.Context(), d.Address(), c, o)
		if err == nil {
			n.Close()
		}
		return err
	}

	if err := dial(Options{}); err != nil {
		t.Fatal(err)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "for the first time: its key is "+fingerprint) {
		t.Errorf("notes at first use: %q", notes)
	}
	want := []contexts.Device{{Address: d.Address(), Fingerprint: fingerprint, MachineID: "0123456789abcdef0123456789abcdef"}}
	if got := known(t, c); !reflect.DeepEqual(got, want) {
		t.Errorf("known are %+v", got)
	}
	if err := dial(Options{Fingerprint: fingerprint}); err != nil || len(notes) != 0 {
		t.Errorf("again: %v, notes %q", err, notes)
	}

	// Another key is refused, and nothing of what is known changes.
	stranger := want[0]
	stranger.Fingerprint = "SHA256:" + strings.Repeat("A", 43)
	if err := c.Remember(stranger); err != nil {
		t.Fatal(err)
	}
	err := dial(Options{})
	if e, ok := errors.AsType[*FingerprintError](err); !ok || e.Got != fingerprint || !strings.Contains(err.Error(), "--fingerprint "+fingerprint) {
		t.Errorf("another key: %v", err)
	}
	if got := known(t, c); got[0] != stranger {
		t.Errorf("known are %+v", got)
	}

	// The same key at another address is no stranger.
	moved := contexts.Device{Address: "192.0.2.99", Fingerprint: fingerprint}
	if err := c.Remember(moved); err != nil {
		t.Fatal(err)
	}
	if err := dial(Options{}); err == nil || !strings.Contains(err.Error(), "the device that is known as 192.0.2.99") {
		t.Errorf("two devices with exchanged addresses: %v", err)
	}

	// What the user says counts more than what is known.
	if err := dial(Options{Fingerprint: fingerprint}); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "is the one that was known as 192.0.2.99") {
		t.Errorf("demanded: %v, notes %q", err, notes)
	}
	if err := dial(Options{Fingerprint: stranger.Fingerprint}); err == nil || !strings.Contains(err.Error(), "not "+stranger.Fingerprint+" as you demand") {
		t.Errorf("another one demanded: %v", err)
	}
	if err := dial(Options{Fingerprint: "MD5:1"}); err == nil || !strings.Contains(err.Error(), "is not a fingerprint") {
		t.Errorf("nonsense demanded: %v", err)
	}
	if err := dial(Options{}); err != nil {
		t.Errorf("in the end: %v", err)
	}
}

// Both an authority of another name and one of the same name, which only the device can tell apart, are strangers.
func TestDialWithAnotherContext(t *testing.T) {
	admitted := newContext(t)
	d := start(t, nodetest.Config{Version: "1.0.0"}, admitted)
	other, err := contexts.Store{Dir: t.TempDir()}.New("lab", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []contexts.Context{newContext(t), other} {
		_, err := Dial(t.Context(), d.Address(), c, Options{})
		if e, ok := errors.AsType[*NotAdmittedError](err); !ok || e.Context != c.Name {
			t.Errorf("%s: %v", c.Name, err)
		}
		if got := known(t, c); len(got) != 0 {
			t.Errorf("%s: a device that does not admit it is known: %v", c.Name, got)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = Dial(t.Context(), l.Addr().String(), newContext(t), Options{})
	if err == nil || !strings.Contains(err.Error(), "is it switched on, in reach of this network") {
		t.Error(err)
	}
}

func TestReadersMayOnlyAsk(t *testing.T) {
	c := newContext(t)
	dir := filepath.Join(t.TempDir(), "anna")
	if err := c.Issue(dir, "anna", contexts.Reader, time.Now()); err != nil {
		t.Fatal(err)
	}
	reader, err := contexts.Store{Dir: filepath.Join(t.TempDir(), "contexts")}.Import(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, nodetest.Config{Version: "1.0.0", Kubeconfig: "secret"}, c)
	n, err := Dial(t.Context(), d.Address(), reader, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if s, err := n.Status(t.Context()); err != nil || s.Version != "1.0.0" {
		t.Errorf("status %+v, %v", s, err)
	}
	for name, ask := range map[string]func() error{
		"kubeconfig": func() error { _, err := n.Kubeconfig(t.Context()); return err },
		"token":      func() error { _, err := n.Token(t.Context()); return err },
		"reset":      func() error { _, err := n.Reset(t.Context(), v1.ResetData); return err },
	} {
		err := ask()
		if e, ok := errors.AsType[*RefusedError](err); !ok || e.Status != 403 || !strings.HasSuffix(err.Error(), "a reader may only ask; use a context whose role is admin") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := d.Actions(); len(got) != 0 {
		t.Errorf("it did %q", got)
	}
}

// Each method asks for what it says.
func TestMethods(t *testing.T) {
	c := newContext(t)
	d := start(t, nodetest.Config{Version: "1.0.0", Kubeconfig: "kind: Config"}, c)
	n, err := Dial(t.Context(), d.Address(), c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx := t.Context()
	var log strings.Builder
	if err := n.Log(ctx, &log, "init", LogOptions{Previous: true}); err != nil || log.String() != "log of init previous=true\n" {
		t.Errorf("log %q, %v", &log, err)
	}
	if err := n.Log(ctx, &log, "x/y?z", LogOptions{}); err == nil || !strings.Contains(err.Error(), "cannot ask device") {
		t.Errorf("no such log: %v", err)
	}
	if k, err := n.Kubeconfig(ctx); err != nil || string(k) != "kind: Config" {
		t.Errorf("kubeconfig %q, %v", k, err)
	}
	if k, err := n.Token(ctx); err != nil || k != nodetest.Token {
		t.Errorf("token %q, %v", k, err)
	}
	if m, err := n.Memory(ctx); err != nil || m.Total != 2<<30 {
		t.Errorf("memory %+v, %v", m, err)
	}
	if x, err := n.Disk(ctx); err != nil || len(x.Devices) != 1 {
		t.Errorf("disk %+v, %v", x, err)
	}
	if x, err := n.Timeline(ctx); err != nil || len(x.Steps) != 3 {
		t.Errorf("timeline %+v, %v", x, err)
	}
	if s, err := n.CreateSnapshot(ctx); err != nil || s.Name != "asked-1" {
		t.Errorf("snapshot %+v, %v", s, err)
	}
	if s, err := n.Snapshots(ctx); err != nil || len(s.Snapshots) != 1 {
		t.Errorf("snapshots %+v, %v", s, err)
	}
	if u, err := n.Commit(ctx); err != nil || u.State != "committed" {
		t.Errorf("commit %+v, %v", u, err)
	}
	for want, do := range map[string]func() (v1.Accepted, error){
		"rollback": func() (v1.Accepted, error) { return n.Rollback(ctx, "too slow & odd") },
		"reboot":   func() (v1.Accepted, error) { return n.Reboot(ctx) },
		"poweroff": func() (v1.Accepted, error) { return n.PowerOff(ctx) },
		"reset":    func() (v1.Accepted, error) { return n.Reset(ctx, v1.ResetEverything) },
		"restore":  func() (v1.Accepted, error) { return n.RestoreSnapshot(ctx, "asked-1") },
	} {
		if a, err := do(); err != nil || a.Action != want {
			t.Errorf("%s: %+v, %v", want, a, err)
		}
	}
	got := strings.Join(d.Actions(), ", ")
	for _, want := range []string{"commit", "rollback reason=too+slow+%26+odd", "reboot ", "poweroff ", "reset scope=everything", "restore asked-1"} {
		if !strings.Contains(got, want) {
			t.Errorf("it was not asked for %q: %s", want, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7":           "192.0.2.7",
		"192.0.2.7:7443":      "192.0.2.7",
		"192.0.2.7:7000":      "192.0.2.7:7000",
		"Edge.Example.com":    "edge.example.com",
		"edge:7443":           "edge",
		"2001:DB8::7":         "2001:db8::7",
		"[2001:db8::7]":       "2001:db8::7",
		"[2001:db8::7]:7443":  "2001:db8::7",
		"[2001:db8:0::7]:70":  "[2001:db8::7]:70",
		"::ffff:192.0.2.7":    "192.0.2.7",
		"fe80::1%eth0":        "fe80::1%eth0",
		"https://192.0.2.7":   "it looks like a URL",
		"192.0.2.7:http":      `"http" is not a port`,
		"192.0.2.7:0":         `"0" is not a port`,
		"192.0.2.7:70000":     `"70000" is not a port`,
		"":                    "it has no host name",
		":7443":               "it has no host name",
		"two words":           "it has no host name",
		"2001:db8::7:7443:xx": "host and port cannot be told apart",
	} {
		a, err := parseAddress(text)
		if got := a.String(); err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", text, err)
			}
		} else if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// A write that nobody takes ends, so that a device which has gone away without a word does not hold an upgrade up.
func TestPatientConn(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	_, err := (&patientConn{here, time.Nanosecond}).Write([]byte("x"))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
