package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	remote "github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/builder/vm"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// A device is a node that is upgraded, with the workstation that manages it.
type device struct {
	*node
	address string
	// home is the folder of the workstation's configuration: a copy, because it knows this device by its key.
	home string
	// id is what the device is known by for all its life.
	id string
}

// parallelCPUs is how many processors those machines have that run several at once: emulated ones are threads that wait for each other, and
// where they are more than the workstation's processors, each waits for one that does not run.
const parallelCPUs = 1

// newDevice makes a device with the first release, and waits until it is ready.
func newDevice(t *testing.T) *device {
	t.Helper()
	return newDeviceOf(t, func(*vm.Config) {})
}

// newDeviceOf is newDevice with a machine that is changed before it is switched on.
func newDeviceOf(t *testing.T, change func(*vm.Config)) *device {
	t.Helper()
	image, err := firstImage()
	must(t, err)
	port, err := vm.FreePort(0)
	must(t, err)
	n := newNodeOf(t, image, diskBytes, func(c *vm.Config) {
		c.Forwards = []vm.Forward{{Host: port, Guest: v1.Port}}
		c.CPUs = parallelCPUs
		change(c)
	})
	d := &device{node: n, address: fmt.Sprintf("127.0.0.1:%d", port), home: filepath.Join(n.folder, "workstation")}
	must(t, os.CopyFS(d.home, os.DirFS(releases("config"))))
	d.waitReady(t)
	d.id = d.state(t).MachineID
	if d.id == "" {
		t.Fatal("the device has no machine identifier")
	}
	return d
}

// steps takes the device through a life: each step goes on from the last, so one that fails ends the test.
func (d *device) steps(t *testing.T, steps []step) {
	for _, s := range steps {
		begun := time.Now()
		if !t.Run(s.name, func(t *testing.T) { s.run(t, d) }) {
			select {
			case <-d.Ended():
			default:
				d.keepState()
			}
			t.FailNow()
		}
		t.Logf("%6.1f s  %s", time.Since(begun).Seconds(), s.name)
	}
}

// A step is one of a device's life.
type step struct {
	name string
	run  func(*testing.T, *device)
}

// upgradeTime bounds, on hardware, an upgrade that is committed at its first attempt; each of three failed attempts takes less.
const upgradeTime = time.Minute

// skerry runs the command line for this device, for d on hardware at most.
func (d *device) skerry(t *testing.T, limit time.Duration, args ...string) (out, complaints string, err error) {
	t.Helper()
	return skerry(patience(t, limit), d.home, append(args, "--node", d.address)...)
}

// begin is skerry in the background; the function that it returns waits for its end.
func (d *device) begin(t *testing.T, limit time.Duration, args ...string) func() error {
	t.Helper()
	ended := make(chan error, 1)
	ctx := patience(t, limit)
	go func() {
		_, _, err := skerry(ctx, d.home, append(args, "--node", d.address)...)
		ended <- err
	}()
	return func() error { return <-ended }
}

// client speaks the device API as the command line does.
func (d *device) client(t *testing.T) *remote.Client {
	t.Helper()
	c, err := remote.Dial(patience(t, 20*time.Second), d.address, manageContext(t, d.home), remote.Options{})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// state is what the command line says of the device.
func (d *device) state(t *testing.T) v1.State {
	t.Helper()
	s, err := d.tryState(t)
	must(t, err)
	return s
}

// tryState is state for a device that may be away.
func (d *device) tryState(t *testing.T) (v1.State, error) {
	t.Helper()
	var answer struct {
		Status v1.State `json:"status"`
	}
	out, _, err := d.skerry(t, 20*time.Second, "node", "status", "--json")
	if err != nil {
		return v1.State{}, err
	}
	return answer.Status, json.Unmarshal([]byte(out), &answer)
}

// expect compares all that the device says of its slots and upgrades, and that it is ready and still the same device.
func (d *device) expect(t *testing.T, want string) {
	t.Helper()
	s := d.state(t)
	if s.MachineID != d.id {
		t.Errorf("the device is %s now, and was %s: the data partition is another one", s.MachineID, d.id)
	}
	if got := summary(s); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("the device says\n%s\nwant\n%s", got, want)
	}
}

// summary writes what a device says of its slots and upgrades, but for sums and times.
func summary(s v1.State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version %s in slot %s, %s, %d tries, problems %q\n", s.Version, s.Slot, s.Phase, s.Tries, s.Problems)
	line := func(v any) {
		text, err := json.Marshal(v)
		fmt.Fprintf(&b, "%s%s\n", text, errorText(err))
	}
	for _, slot := range s.Slots {
		line(slot)
	}
	if s.Update == nil {
		return b.String()
	}
	up := *s.Update
	up.Bundle, up.Started, up.Changed, up.Failed = "", time.Time{}, time.Time{}, nil
	line(up)
	for _, f := range s.Update.Failed {
		fmt.Fprintf(&b, "failed %s: %s\n", f.Version, f.Reason)
	}
	return b.String()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// committed says whether a device has kept a version.
func committed(s v1.State, version string) error {
	if s.Update == nil || s.Update.State != "committed" || s.Update.Version != version || s.Version != version || s.Slot != s.Update.Target {
		return fmt.Errorf("version %s is not committed: the device says\n%s", version, summary(s))
	}
	return nil
}

// sameBundle tells whether the device's upgrade is that of the bundle.
func sameBundle(t *testing.T, s v1.State, file string) {
	t.Helper()
	sum := sha256.Sum256(header(t, file).Header())
	if want := hex.EncodeToString(sum[:]); s.Update == nil || s.Update.Bundle != want {
		t.Errorf("the device does not say that its upgrade is that of bundle %s:\n%s", want, summary(s))
	}
}

// upgradeTo upgrades the device, which must keep the version.
func (d *device) upgradeTo(t *testing.T, file string, args ...string) {
	t.Helper()
	_, complaints, err := d.skerry(t, upgradeTime, append([]string{"node", "upgrade", file}, args...)...)
	must(t, err)
	t.Log(complaints)
	must(t, committed(d.state(t), header(t, file).Manifest().Version))
	sameBundle(t, d.state(t), file)
}

// powerCut pulls the plug and switches the device on again.
func (d *device) powerCut(t *testing.T) {
	t.Helper()
	d.Kill()
	d.start()
}

// content is a fingerprint of partitions, as long as the tests run.
func (d *device) content(t *testing.T, names ...string) string {
	t.Helper()
	f, err := os.Open(d.config.Disk)
	must(t, err)
	defer f.Close()
	var b strings.Builder
	for _, name := range names {
		offset, length, err := partition(d.config.Disk, name)
		must(t, err)
		var h maphash.Hash
		h.SetSeed(contentSeed)
		_, err = io.Copy(&h, io.NewSectionReader(f, offset, length))
		must(t, err)
		fmt.Fprintf(&b, "%s %x\n", name, h.Sum64())
	}
	return b.String()
}

var contentSeed = maphash.MakeSeed()

// post sends a body as it is to the route of upgrades, and returns the answer's status and text.
func (d *device) post(t *testing.T, body io.Reader, length int64) (int, string) {
	t.Helper()
	pair, err := manageContext(t, d.home).Certificate()
	must(t, err)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		// Who the device is has been seen to when it was met.
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}},
	}}
	request, err := http.NewRequestWithContext(patience(t, upgradeTime), http.MethodPost, "https://"+d.address+"/v1/upgrade", body)
	must(t, err)
	request.ContentLength = length
	answer, err := client.Do(request)
	must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(text)
}

// refusal is how a device refuses a bundle: the status, the reason, and whether it can be forced.
func (d *device) refusal(t *testing.T, file string, o remote.UpgradeOptions) string {
	t.Helper()
	f, size := open(t, file)
	o.NoTry = true
	outcome, err := d.client(t).Upgrade(patience(t, upgradeTime), f, size, o)
	refused, ok := errors.AsType[*remote.RefusedError](err)
	if !ok {
		t.Fatalf("the bundle is not refused: %+v, %v", outcome, err)
	}
	return fmt.Sprintf("%d %s (forceable: %v)", refused.Status, refused.Said.Message, refused.Said.Forceable)
}

func open(t *testing.T, file string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	must(t, err)
	return f, info.Size()
}

// A gate is a bundle of which a sender gets nothing from a byte on until it is opened.
type gate struct {
	io.ReaderAt
	at     int64
	opened chan struct{}
}

func (g gate) ReadAt(b []byte, offset int64) (int, error) {
	if offset >= g.at {
		<-g.opened
	} else {
		b = b[:min(int64(len(b)), g.at-offset)] // the sender asks for the rest again
	}
	return g.ReaderAt.ReadAt(b, offset)
}

// A sender is an upgrade that stops in the middle of the transfer.
type sender struct {
	// resume lets it go on, stop ends it; ended has its end.
	resume, stop func()
	ended        <-chan error
}

// sendSlowly begins to send a bundle, stops before a chunk, and returns when the device has all chunks before that.
func (d *device) sendSlowly(t *testing.T, file string, chunk int) sender {
	t.Helper()
	f, size := open(t, file)
	g := gate{f, header(t, file).Manifest().Offset(chunk), make(chan struct{})}
	ctx, cancel := context.WithCancel(patience(t, upgradeTime))
	done, client := make(chan error, 1), d.client(t)
	go func() {
		_, err := client.Upgrade(ctx, g, size, remote.UpgradeOptions{NoTry: true})
		done <- err
	}()
	s := sender{resume: sync.OnceFunc(func() { close(g.opened) }), stop: cancel, ended: done}
	t.Cleanup(func() {
		s.stop()
		s.resume()
	})
	want := fmt.Sprintf(": %d of ", chunk)
	eventually(t, upgradeTime, fmt.Sprintf("the device has %d chunks", chunk), func(ctx context.Context) error {
		s, err := d.Device.Status(ctx)
		if err == nil && (s.Update == nil || !strings.Contains(s.Update.Activity, want)) {
			err = fmt.Errorf("it says\n%s", summary(s))
		}
		return err
	})
	return s
}
