package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/skerryos/skerry/builder/vm"
)

// TestUpgradeByItself lets a device fetch an upgrade from the URL of its configuration, which is put on the boot partition after
// flashing, and then take one from a USB stick.
func TestUpgradeByItself(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t)
	d := newDeviceOf(t, func(c *vm.Config) {
		c.USB = true
		writeBootFile(t, c.Disk, "user-data", origin.userData())
	})
	d.steps(t, []step{
		{"nothing new is no problem", func(t *testing.T, d *device) { nothingNew(t, d, origin) }},
		{"fetched from a URL to slot b", func(t *testing.T, d *device) { fetched(t, d, origin) }},
		{"from a USB stick back to slot a", fromStick},
	})
}

// An origin is a server of this workstation with bundles.
type origin struct {
	port   int
	folder string
	asked  atomic.Int32
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	o := &origin{port: listener.Addr().(*net.TCPAddr).Port, folder: t.TempDir()}
	files := http.FileServer(http.Dir(o.folder))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		files.ServeHTTP(w, r)
		o.asked.Add(1)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return o
}

// userData lets a device take upgrades from the origin, and from sticks.
func (o *origin) userData() string {
	return fmt.Sprintf(`#cloud-config
skerry:
  update:
    url: "http://%s:%d/{board}/{version}.skb"
    interval: 168h
    usb: true
`, vm.Host, o.port)
}

// publish puts a bundle where devices of a version look.
func (o *origin) publish(t *testing.T, version, bundle string) {
	t.Helper()
	folder := filepath.Join(o.folder, "x86-64")
	must(t, os.MkdirAll(folder, 0o755))
	content, err := os.ReadFile(bundle)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, version+".skb"), content, 0o644))
}

// nothingNew publishes what the device runs already.
func nothingNew(t *testing.T, d *device, o *origin) {
	o.publish(t, "0.1.0", release(t, "first"))
	_, _, err := d.skerry(t, 20*time.Second, "node", "fetch")
	must(t, err)
	eventually(t, time.Minute, "the device has asked", func(ctx context.Context) error {
		s, err := d.Device.Status(ctx)
		if err == nil && (o.asked.Load() == 0 || s.Update.Activity != "") {
			err = fmt.Errorf("it has asked %d times, and is %s", o.asked.Load(), s.Update.Activity)
		}
		return err
	})
	d.expect(t, `
version 0.1.0 in slot a, ready, -1 tries, problems []
{"name":"a","version":"0.1.0","running":true,"present":true,"good":true}
{"name":"b","running":false,"present":false,"good":false}
{"state":"idle","floor":0}
`)
}

func fetched(t *testing.T, d *device, o *origin) {
	o.pull(t, d, release(t, "second"), "0.2.0", upgradeTime)
}

func fromStick(t *testing.T, d *device) {
	plugIn(t, d, release(t, "third"), "0.3.0", upgradeTime)
	if s := d.state(t); len(s.Problems) > 0 {
		t.Errorf("problems: %q", s.Problems)
	}
}

// pull publishes a bundle, tells the device to ask, and waits until it keeps that version, for limit on hardware.
func (o *origin) pull(t *testing.T, d *device, file, version string, limit time.Duration) {
	t.Helper()
	o.publish(t, d.state(t).Version, file)
	_, _, err := d.skerry(t, 20*time.Second, "node", "fetch")
	must(t, err)
	d.waitCommitted(t, version, limit)
}

// plugIn plugs a stick in, with a bundle on it, and waits until the device keeps that version, for limit on hardware.
func plugIn(t *testing.T, d *device, file, version string, limit time.Duration) {
	t.Helper()
	bundle, err := os.ReadFile(file)
	must(t, err)
	stick := filepath.Join(d.folder, "stick.img")
	makeStick(t, stick, map[string][]byte{filepath.Base(file): bundle, "notes.txt": []byte("no bundle")})
	must(t, d.Plug(patience(t, 10*time.Second), "stick", stick))
	d.waitCommitted(t, version, limit)
}

// waitCommitted waits until the device keeps a version, which it has begun with by itself, for limit on hardware.
func (d *device) waitCommitted(t *testing.T, version string, limit time.Duration) {
	t.Helper()
	eventually(t, limit, "version "+version+" is kept", func(ctx context.Context) error {
		s, err := d.Device.Status(ctx)
		if err != nil {
			return err
		}
		if s.Update == nil {
			return errors.New("the device says nothing of upgrades")
		}
		return committed(s, version)
	})
}

// writeBootFile writes a file on the boot partition of a disk, as a person does with a card in a card reader.
func writeBootFile(t *testing.T, path, name, content string) {
	t.Helper()
	d, err := diskfs.Open(path)
	must(t, err)
	defer d.Close()
	boot, err := d.GetFilesystem(1)
	must(t, err)
	writeFile(t, boot, name, []byte(content))
}

// makeStick makes an image of a USB stick: one file system, no partitions.
func makeStick(t *testing.T, path string, files map[string][]byte) {
	t.Helper()
	d, err := diskfs.Create(path, 128<<20, diskfs.SectorSizeDefault)
	must(t, err)
	defer d.Close()
	stick, err := d.CreateFilesystem(disk.FilesystemSpec{Partition: 0, FSType: filesystem.TypeFat32, VolumeLabel: "STICK"})
	must(t, err)
	for name, content := range files {
		writeFile(t, stick, name, content)
	}
}

func writeFile(t *testing.T, fs filesystem.FileSystem, name string, content []byte) {
	t.Helper()
	f, err := fs.OpenFile("/"+name, os.O_CREATE|os.O_RDWR)
	must(t, err)
	defer f.Close()
	_, err = f.Write(content)
	must(t, err)
}
