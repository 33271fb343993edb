package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/builder/node/nodetest"
	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/bundle"
)

// chunk is the size of a bundle's chunks in these tests, and chunks their number: as much as fills the buffers of a connection
// several times, so that a device which ends one early is noticed.
const (
	chunk  = 1 << 20
	chunks = 8
)

// A skb is a bundle and who signed it.
type skb struct {
	data   []byte
	m      *bundle.Manifest
	public bundle.PublicKey
}

var signer = func() func(*testing.T) (*keys.Signer, bundle.PublicKey) {
	var s *keys.Signer
	var public bundle.PublicKey
	return func(t *testing.T) (*keys.Signer, bundle.PublicKey) {
		t.Helper()
		if s != nil {
			return s, public
		}
		k, err := keys.Store{Dir: t.TempDir()}.New("fleet", "")
		if err == nil {
			s, err = keys.Open(k.Secret, nil)
		}
		if err == nil {
			public, err = bundle.ParsePublicKey(k.Public)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s, public
	}
}()

func newBundle(t *testing.T, version, board string) skb {
	t.Helper()
	s, public := signer(t)
	root := make([]byte, chunks*chunk)
	random := rand.New(rand.NewPCG(1, uint64(len(version))))
	for i := 0; i < len(root); i += 8 {
		for j, v := 0, random.Uint64(); j < 8; j++ {
			root[i+j] = byte(v >> (8 * j))
		}
	}
	var b bytes.Buffer
	m, err := bundle.Create(&b, bundle.Manifest{Board: board, Architecture: "amd64", Version: version},
		[]bundle.Source{{Name: bundle.RootArtefact, Size: int64(len(root)), Content: bytes.NewReader(root), ChunkSize: chunk}},
		func(m []byte) ([]byte, error) { return s.Sign(m, "test") })
	if err != nil {
		t.Fatal(err)
	}
	return skb{b.Bytes(), m, public}
}

// tell is a report that keeps what it is told, a line for each phase and detail. The bytes of sending are left out, but for how
// many there are.
type tell struct{ lines []string }

func (r *tell) report(e Event) {
	line := strings.TrimSuffix(string(e.Phase)+": "+e.Detail, ": ")
	if e.Phase == Sending {
		line = fmt.Sprintf("%s (%d chunks)", line, e.Total/chunk)
	}
	if len(r.lines) == 0 || r.lines[len(r.lines)-1] != line {
		r.lines = append(r.lines, line)
	}
}

const wholeUpgrade = `draining: draining the node: 1 pod is left
restarting: into version 2.0.0
restarting: the device is away
trial: version 2.0.0 runs in slot b, not healthy yet: node: NotReady: the network is not there yet
trial: version 2.0.0 runs in slot b, all checks are passed
committed: version 2.0.0 in slot b`

func TestUpgrade(t *testing.T) {
	half := int64(chunks / 2 * chunk)
	for _, tt := range []struct {
		name    string
		config  nodetest.Config
		options UpgradeOptions
		before  func(*testing.T, *Client, *nodetest.Device, skb)
		board   string
		want    string // what is told; "lost" stands for the words of the system about a connection that ended
		outcome string
		err     string
	}{
		{
			name: "all is well", config: nodetest.Config{Away: 3},
			want:    "sending: all of it (8 chunks)\ndraining: draining the node: 2 pods are left\n" + wholeUpgrade,
			outcome: "2.0.0 from 1.0.0, committed",
		},
		{
			name: "connections are lost", config: nodetest.Config{Away: 1, CutAfter: []int64{half, half, 100, 5}},
			want: "sending: all of it (8 chunks)\nwaiting: lost\nsending: from chunk 3 of 8 on (5 chunks)\nwaiting: lost\nsending: from chunk 6 of 8 on (2 chunks)\nwaiting: lost\n" +
				"sending: from chunk 6 of 8 on (2 chunks)\nwaiting: lost\nsending: from chunk 6 of 8 on (2 chunks)\ndraining: draining the node: 2 pods are left\n" + wholeUpgrade,
			outcome: "2.0.0 from 1.0.0, committed",
		},
		{
			name: "the answer is lost", config: nodetest.Config{Away: 1, LoseAnswers: 1},
			want:    "sending: all of it (8 chunks)\nwaiting: lost\ndraining: draining the node: 2 pods are left\n" + wholeUpgrade,
			outcome: "2.0.0 from 1.0.0, committed",
		},
		{
			name: "written only", options: UpgradeOptions{NoTry: true},
			want: "sending: all of it (8 chunks)\nwritten: slot b", outcome: "1.0.0 from 1.0.0, written",
		},
		{
			name: "written before, and the answer lost", options: UpgradeOptions{NoTry: true}, config: nodetest.Config{LoseAnswers: 1},
			want: "sending: all of it (8 chunks)\nwaiting: lost\nsending: its header; the device has the rest (0 chunks)\nwritten: slot b", outcome: "1.0.0 from 1.0.0, written",
		},
		{
			name: "written before", config: nodetest.Config{Away: 1},
			before: func(t *testing.T, n *Client, _ *nodetest.Device, b skb) {
				if _, err := n.Upgrade(t.Context(), bytes.NewReader(b.data), int64(len(b.data)), UpgradeOptions{NoTry: true}); err != nil {
					t.Fatal(err)
				}
			},
			want:    "sending: its header; the device has the rest (0 chunks)\ndraining: draining the node: 2 pods are left\n" + wholeUpgrade,
			outcome: "2.0.0 from 1.0.0, committed",
		},
		{
			name: "done before", config: nodetest.Config{Away: 1},
			before: func(t *testing.T, n *Client, _ *nodetest.Device, b skb) {
				if _, err := n.Upgrade(t.Context(), bytes.NewReader(b.data), int64(len(b.data)), UpgradeOptions{}); err != nil {
					t.Fatal(err)
				}
			},
			want: "committed: version 2.0.0 in slot b", outcome: "2.0.0 from 2.0.0, committed, unchanged",
		},
		{
			name: "rolled back", config: nodetest.Config{Away: 2, RollBack: "node: NotReady for 5m0s"},
			want: "sending: all of it (8 chunks)\ndraining: draining the node: 2 pods are left\ndraining: draining the node: 1 pod is left\nrestarting: into version 2.0.0\n" +
				"restarting: the device is away\ntrial: version 2.0.0 runs in slot b, not healthy yet: node: NotReady: the network is not there yet\n" +
				"restarting: back to the other slot: node: NotReady for 5m0s\nrestarting: the device is away\nrolled back: node: NotReady for 5m0s",
			err: "has rolled version 2.0.0 back and runs version 1.0.0 again: node: NotReady for 5m0s; `skerry node logs init --previous-boot",
		},
		{
			name: "rolled back before", config: nodetest.Config{RollBack: "too slow"},
			before: func(t *testing.T, n *Client, _ *nodetest.Device, b skb) {
				if _, err := n.Upgrade(t.Context(), bytes.NewReader(b.data), int64(len(b.data)), UpgradeOptions{}); err == nil {
					t.Fatal("it was not rolled back")
				}
			},
			want: "sending: all of it (8 chunks)",
			err:  "version 2.0.0 was rolled back: too slow (--force overrides this)",
		},
		{
			name: "a power cut before the trial", config: nodetest.Config{Away: 1, Interrupt: true},
			want: "sending: all of it (8 chunks)\ndraining: draining the node: 2 pods are left\ndraining: draining the node: 1 pod is left\nrestarting: the device is away\n" +
				"written: the device was restarted before it tried the new version: asking it to\ndraining: draining the node: 2 pods are left\n" + wholeUpgrade,
			outcome: "2.0.0 from 1.0.0, committed",
		},
		{
			name: "another board", board: "pi4",
			want: "sending: all of it (8 chunks)", err: "cannot upgrade device ADDRESS: the bundle is for board pi4, the device is a x86-64",
		},
		{
			name: "the former connection is still there", config: nodetest.Config{CutAfter: []int64{half}, Away: 1},
			before: func(t *testing.T, n *Client, d *nodetest.Device, b skb) {
				ctx, cancel := context.WithCancel(t.Context())
				stop := UpgradeOptions{Report: func(e Event) {
					if e.Phase == Waiting {
						cancel()
					}
				}}
				if _, err := n.Upgrade(ctx, bytes.NewReader(b.data), int64(len(b.data)), stop); err == nil {
					t.Fatal("it was not interrupted")
				}
				d.Busy(2)
			},
			want: "sending: from chunk 3 of 8 on (5 chunks)\nwaiting: cannot upgrade device ADDRESS: only one upgrade at a time; there is one already\n" +
				"sending: from chunk 3 of 8 on (5 chunks)\nwaiting: cannot upgrade device ADDRESS: only one upgrade at a time; there is one already\n" +
				"sending: from chunk 3 of 8 on (5 chunks)\ndraining: draining the node: 2 pods are left\n" + wholeUpgrade,
			outcome: "2.0.0 from 1.0.0, committed",
		},
		{
			name: "another upgrade is under way", options: UpgradeOptions{},
			before: func(t *testing.T, n *Client, d *nodetest.Device, _ skb) {
				d.SetUpdate(v1.Update{State: "trying", Version: "3.0.0", Target: "b", Bundle: "33"})
			},
			want: "sending: all of it (8 chunks)", err: "only one upgrade at a time; there is one already; wait for its end",
		},
		{
			name: "the new image has another authority", config: nodetest.Config{Away: 1, NextClients: authority(t)},
			want: "sending: all of it (8 chunks)\ndraining: draining the node: 2 pods are left\ndraining: draining the node: 1 pod is left\nrestarting: into version 2.0.0\nrestarting: the device is away",
			err:  "cannot be followed to its end, it was restarting at last: device ADDRESS does not admit context fleet",
		},
		{
			name: "another device answers after the restart", config: nodetest.Config{NextKey: true},
			want: "sending: all of it (8 chunks)\ndraining: draining the node: 2 pods are left\ndraining: draining the node: 1 pod is left\nrestarting: into version 2.0.0",
			err:  "it was restarting at last: device ADDRESS is not the one that was known by this address",
		},
		{
			name: "it does not come back", config: nodetest.Config{Away: 1 << 30}, options: UpgradeOptions{Timeout: 10 * time.Minute},
			want: "sending: all of it (8 chunks)\ndraining: draining the node: 2 pods are left\ndraining: draining the node: 1 pod is left\nrestarting: into version 2.0.0\nrestarting: the device is away",
			err:  "cannot go on with the upgrade of device ADDRESS: nothing has moved on for 10m0s: cannot ask device ADDRESS for its state",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.board == "" {
				tt.board = "x86-64"
			}
			c, b := newContext(t), newBundle(t, "2.0.0", tt.board)
			tt.config.Version, tt.config.Board, tt.config.Keys = "1.0.0", "x86-64", []bundle.PublicKey{b.public}
			d := start(t, tt.config, c)
			n, err := Dial(t.Context(), d.Address(), c, Options{Clock: &hasty{time.Now()}})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if tt.before != nil {
				tt.before(t, n, d, b)
			}
			var told tell
			tt.options.Report = told.report
			o, err := n.Upgrade(t.Context(), bytes.NewReader(b.data), int64(len(b.data)), tt.options)
			want := strings.ReplaceAll(tt.want, "ADDRESS", d.Address())
			got := strings.Join(told.lines, "\n")
			for _, line := range told.lines {
				if strings.HasPrefix(line, "waiting: ") && strings.Contains(line, "connection") {
					got = strings.ReplaceAll(got, line, "waiting: lost")
				}
			}
			if got != want {
				t.Errorf("it told\n%s\nwant\n%s", got, want)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(tt.err, "ADDRESS", d.Address())) {
					t.Errorf("error %v\nwant  %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			outcome := fmt.Sprintf("%s from %s, %s", o.Version, o.From, o.State)
			if o.Unchanged {
				outcome += ", unchanged"
			}
			if outcome != tt.outcome {
				t.Errorf("outcome %s, want %s", outcome, tt.outcome)
			}
			for i := range b.m.Chunks {
				if got := d.Received(i); got != 1 {
					t.Errorf("chunk %d was taken %d times", i, got)
				}
			}
		})
	}
}

// authority is that of a context which nobody here has.
func authority(t *testing.T) []byte {
	t.Helper()
	c := newContext(t)
	pem, err := os.ReadFile(c.AuthorityFile())
	if err != nil {
		t.Fatal(err)
	}
	return pem
}

func TestUpgradeOfWhatIsNoBundle(t *testing.T) {
	c, b := newContext(t), newBundle(t, "2.0.0", "x86-64")
	d := start(t, nodetest.Config{Version: "1.0.0", Board: "x86-64"}, c) // trusts nobody
	n, err := Dial(t.Context(), d.Address(), c, Options{Clock: &hasty{time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"text", []byte("not a bundle at all"), "it is not a bundle (.skb); nothing was sent"},
		{"cut", b.data[:len(b.data)-1], "nothing was sent; copy it again"},
		{"signed by a stranger", b.data, "no key is trusted"},
	} {
		if _, err := n.Upgrade(t.Context(), bytes.NewReader(tt.data), int64(len(tt.data)), UpgradeOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if got := d.Received(0); got != 0 {
		t.Error("something was written")
	}
}

// A version that was left written is tried later, and followed in the same way.
func TestTryWritten(t *testing.T) {
	for _, tt := range []struct{ name, rollBack, want string }{{"healthy", "", ""}, {"not healthy", "no network", "runs version 1.0.0 again: no network"}} {
		t.Run(tt.name, func(t *testing.T) {
			c, b := newContext(t), newBundle(t, "2.0.0", "x86-64")
			d := start(t, nodetest.Config{Version: "1.0.0", Board: "x86-64", Keys: []bundle.PublicKey{b.public}, Away: 1, RollBack: tt.rollBack}, c)
			n, err := Dial(t.Context(), d.Address(), c, Options{Clock: &hasty{time.Now()}})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if _, err := n.TryWritten(t.Context(), UpgradeOptions{}); err == nil || !strings.Contains(err.Error(), "there is nothing to try") {
				t.Errorf("with nothing written: %v", err)
			}
			if _, err := n.Upgrade(t.Context(), bytes.NewReader(b.data), int64(len(b.data)), UpgradeOptions{NoTry: true}); err != nil {
				t.Fatal(err)
			}
			o, err := n.TryWritten(t.Context(), UpgradeOptions{})
			if tt.want != "" {
				e, ok := errors.AsType[*RolledBackError](err)
				if !ok || !strings.Contains(err.Error(), tt.want) || e.Running != "1.0.0" {
					t.Errorf("error %v", err)
				}
			} else if err != nil || o.Version != "2.0.0" || o.From != "1.0.0" || o.State != "committed" {
				t.Errorf("outcome %+v, %v", o, err)
			}
		})
	}
}

// An interrupt ends the command and not the upgrade.
func TestUpgradeIsInterrupted(t *testing.T) {
	c, b := newContext(t), newBundle(t, "2.0.0", "x86-64")
	d := start(t, nodetest.Config{Version: "1.0.0", Board: "x86-64", Keys: []bundle.PublicKey{b.public}}, c)
	n, err := Dial(t.Context(), d.Address(), c, Options{Clock: &hasty{time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = n.Upgrade(ctx, bytes.NewReader(b.data), int64(len(b.data)), UpgradeOptions{Report: func(e Event) {
		if e.Phase == Draining {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
