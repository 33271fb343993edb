package stick

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/update"
	. "github.com/skerryos/skerry/initd/update/updatetest"
)

// A port is where disks are plugged in, in the order of a script.
type port struct {
	t *testing.T
	// script are the disks that are plugged in at first, and after each change; the watcher ends after the last.
	script  [][]string
	disks   map[string]fs.FS
	mounted []string
	device  *Device
	memory  *File
	written func() error
	tries   int
	told    []string
	slept   []time.Duration
}

func newPort(t *testing.T, disks map[string]fs.FS, script ...[]string) *port {
	t.Helper()
	d := NewDevice("1.0.0")
	if err := d.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if err := d.Updater().Commit(); err != nil {
		t.Fatal(err)
	}
	return &port{t: t, disks: disks, script: script, device: d, memory: &File{}}
}

var errEnough = errors.New("enough")

// watch runs a watcher until the script ends or a bundle was handed over.
func (p *port) watch() {
	p.t.Helper()
	ctx, cancel := context.WithCancelCause(p.t.Context())
	defer cancel(nil)
	changed := make(chan struct{}, 1)
	step := -1
	w := New(Config{
		Changed: changed, Updater: p.device.Updater(), Memory: p.memory,
		Volumes: func() ([]Volume, error) {
			// Something changes while it is looked, until the script ends.
			if step++; step == len(p.script) {
				cancel(errEnough)
				return nil, nil
			}
			select {
			case changed <- struct{}{}:
			default:
			}
			var volumes []Volume
			for _, name := range p.script[step] {
				volumes = append(volumes, Volume{ID: "id-" + name, Name: "/dev/" + name, Open: func() (fs.FS, func() error, error) {
					if p.disks[name] == nil {
						return nil, nil, errors.New("a file system exfat cannot be read here")
					}
					p.mounted = append(p.mounted, name)
					return p.disks[name], func() error {
						p.mounted = slices.DeleteFunc(p.mounted, func(m string) bool { return m == name })
						return nil
					}, nil
				}})
			}
			return volumes, nil
		},
		Written: func(context.Context) error {
			if len(p.mounted) > 0 {
				p.t.Errorf("handed over, and %v is still mounted", p.mounted)
			}
			p.tries++
			if p.written != nil {
				return p.written()
			}
			return nil
		},
		Report: func(s Status) {
			var words []string
			for _, part := range []string{s.Activity, s.Problem, s.Note} {
				if part != "" {
					words = append(words, part)
				}
			}
			line := strings.Join(words, " | ")
			if !strings.HasSuffix(s.Activity, "do not pull the disk out") && ctx.Err() == nil {
				p.told = append(p.told, line)
			}
		},
		Sleep: func(ctx context.Context, d time.Duration) error {
			p.slept = append(p.slept, d)
			p.device.Locked = false
			return context.Cause(ctx)
		},
	})
	if err := w.Run(ctx); err != nil && !errors.Is(err, errEnough) {
		p.t.Errorf("it ends with %v", err)
	}
	if len(p.mounted) > 0 {
		p.t.Errorf("%v is still mounted", p.mounted)
	}
}

func (p *port) compare(want string) {
	p.t.Helper()
	rec, err := p.device.Updater().Status()
	if err != nil {
		p.t.Fatal(err)
	}
	got := strings.Join(append(p.told, rec.Upgrade.String()), "\n")
	if got != strings.TrimSpace(want) {
		p.t.Errorf("got\n%s\nwant\n%s", got, strings.TrimSpace(want))
	}
	if err := p.device.Check(); err != nil {
		p.t.Error(err)
	}
	if rec.Upgrade.State == update.Written && string(p.device.Roots[slot.B].Now[:RootSize]) != string(RootFS(rec.Upgrade.Version)) {
		p.t.Error("the root partition is not what is on the disk")
	}
}

func files(t *testing.T, list map[string][]byte) fs.FS {
	t.Helper()
	m := fstest.MapFS{}
	for name, data := range list {
		m[name] = &fstest.MapFile{Data: data}
	}
	return m
}

func TestWatch(t *testing.T) {
	made := func(version string) []byte { return Bundle(t, version, Owner, nil) }
	other := Bundle(t, "9.0.0", Owner, func(m *bundle.Manifest) { m.Board = "pi4" })
	foreign := Bundle(t, "9.0.0", Next, nil)
	damaged := made("2.0.0")
	damaged[len(damaged)-100] ^= 1
	type disks = map[string]map[string][]byte
	for _, test := range []struct {
		name    string
		disks   disks
		script  [][]string
		prepare func(*port)
		want    string
	}{
		{"nothing plugged in", nil, [][]string{{}}, nil, "no upgrade is under way"},
		{"there at boot", disks{"sda": {"new.skb": made("2.0.0"), "notes.txt": nil}}, [][]string{{"sda"}}, nil, `
looking for a bundle on /dev/sda
trying version 2.0.0 from /dev/sda; it may be pulled out
upgrade to version 2.0.0 in slot b: written`},
		{"plugged in later", disks{"sda": {"NEW.SKB": made("2.0.0")}, "sdb": {"a.txt": nil}}, [][]string{{"sdb"}, {"sdb"}, {"sda", "sdb"}}, nil, `
looking for a bundle on /dev/sdb

looking for a bundle on /dev/sda
trying version 2.0.0 from /dev/sda; it may be pulled out
upgrade to version 2.0.0 in slot b: written`},
		{"the newest for this board", disks{"sda": {"a.skb": made("2.9.0"), "b.skb": made("2.10.0"), "c.skb": made("2.10.0-rc1"), "d.skb": other, "e.skb": foreign, "._f.skb": []byte("junk"), "sub/g.skb": made("3.0.0")}},
			[][]string{{"sda"}}, nil, `
looking for a bundle on /dev/sda
trying version 2.10.0 from /dev/sda; it may be pulled out
upgrade to version 2.10.0 in slot b: written`},
		{"none that fits", disks{"sda": {"d.skb": other, "e.skb": foreign, "f.skb": []byte("SKERRY")}}, [][]string{{"sda"}, {}}, nil, `
looking for a bundle on /dev/sda
/dev/sda has no bundle for this device: d.skb: it is for board pi4 (amd64), and this is x86-64 (amd64); e.skb: bundle refused, nothing was written: it is signed with key ` + bundle.KeyID(Next.Public) +
			`, which is not trusted; trusted are: ` + bundle.KeyID(Owner.Public) + `; f.skb: cannot read bundle: magic: unexpected EOF

no upgrade is under way`},
		{"runs already, and an older one", disks{"sda": {"a.skb": made("1.0.0"), "b.skb": made("0.9.0")}}, [][]string{{"sda"}}, nil, `
looking for a bundle on /dev/sda
version 1.0.0 of a.skb on /dev/sda runs already
no upgrade is under way`},
		{"an older one alone", disks{"sda": {"b.skb": made("0.9.0")}}, [][]string{{"sda"}}, nil, `
looking for a bundle on /dev/sda
trying version 0.9.0 from /dev/sda; it may be pulled out
upgrade to version 0.9.0 in slot b: written`},
		{"has failed before", disks{"sda": {"a.skb": made("2.0.0")}}, [][]string{{"sda"}}, func(p *port) {
			p.device.Store.Now = []byte(`{"upgrade": {"state": "idle"}, "failed": [{"version": "2.0.0", "reason": "containerd did not start"}]}`)
		}, `
looking for a bundle on /dev/sda
no upgrade from /dev/sda: a.skb: bundle refused, nothing was written: version 2.0.0 has failed here before (containerd did not start); force it to try again
no upgrade is under way`},
		{"cannot be mounted", disks{}, [][]string{{"sda"}, {"sda"}, {}}, nil, `
looking for a bundle on /dev/sda
/dev/sda is not searched for bundles: a file system exfat cannot be read here

no upgrade is under way`},
		{"damaged", disks{"sda": {"a.skb": damaged}}, [][]string{{"sda"}}, nil, `
looking for a bundle on /dev/sda
no upgrade from /dev/sda: a.skb: chunk 16 of bundle, at byte OFFSET, refused: its sum is not that of the signed manifest; it was damaged or tampered with; nothing of it was written; fetch the bundle again; what was written stays: plug the disk in again to go on
upgrade to version 2.0.0 in slot b: writing, 16 of 18 chunks`},
		{"somebody else is at it", disks{"sda": {"a.skb": made("2.0.0")}}, [][]string{{"sda"}, {"sda"}}, func(p *port) { p.device.Locked = true }, `
looking for a bundle on /dev/sda

looking for a bundle on /dev/sda
trying version 2.0.0 from /dev/sda; it may be pulled out
upgrade to version 2.0.0 in slot b: written`},
		{"cannot be tried, and is plugged in again", disks{"sda": {"a.skb": made("2.0.0")}}, [][]string{{"sda"}, {}, {"sda"}}, func(p *port) {
			p.written = func() error {
				if p.tries == 1 {
					return errors.New("the boot partition is full")
				}
				return nil
			}
		}, `
looking for a bundle on /dev/sda
trying version 2.0.0 from /dev/sda; it may be pulled out
no upgrade from /dev/sda: version 2.0.0 is written and cannot be tried: the boot partition is full; try it by hand, or plug the disk in again

looking for a bundle on /dev/sda
trying version 2.0.0 from /dev/sda; it may be pulled out
upgrade to version 2.0.0 in slot b: written`},
		{"the power goes before it is tried", disks{"sda": {"a.skb": made("2.0.0")}}, [][]string{{"sda"}}, func(p *port) {
			p.watch() // and nothing comes of what was handed over
			p.told = nil
		}, `
looking for a bundle on /dev/sda
trying version 2.0.0 from /dev/sda; it may be pulled out
upgrade to version 2.0.0 in slot b: written`},
		{"what was taken cannot be noted", disks{"sda": {"a.skb": made("2.0.0")}}, [][]string{{"sda"}}, func(p *port) {
			p.memory.OnStep = func() error { return errors.New("no space left") }
		}, `
looking for a bundle on /dev/sda
no upgrade from /dev/sda: version 2.0.0 is written, and not tried: cannot note what was taken from the disk: no space left
upgrade to version 2.0.0 in slot b: written`},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := map[string]fs.FS{}
			for name, list := range test.disks {
				all[name] = files(t, list)
			}
			p := newPort(t, all, test.script...)
			if test.prepare != nil {
				test.prepare(p)
			}
			p.watch()
			b, err := bundle.OpenUnverified(strings.NewReader(string(damaged)))
			if err != nil {
				t.Fatal(err)
			}
			p.compare(strings.ReplaceAll(test.want, "OFFSET", strconv.FormatInt(b.Manifest().Offset(16), 10)))
		})
	}
}

// A disk that is left in upgrades once, whatever happens to the device after that, and also when the memory was damaged it does
// not do so more than twice.
func TestOncePerDiskAndBundle(t *testing.T) {
	disk := files(t, map[string][]byte{"a.skb": Bundle(t, "2.0.0", Owner, nil)})
	p := newPort(t, map[string]fs.FS{"sda": disk, "sdb": disk}, []string{"sda"})
	for range 3 {
		p.watch()
		// Somebody upgrades the device to another version, by the network.
		p.device.Store.Now = nil
	}
	if want := "/dev/sda"; p.tries != 1 || !strings.HasSuffix(p.told[len(p.told)-1], "a.skb on "+want+" was taken from there before, and is not again; upgrade by hand if you mean it") {
		t.Errorf("it was handed over %d times: %q", p.tries, p.told)
	}
	p.script = [][]string{{"sdb"}}
	if p.watch(); p.tries != 2 {
		t.Error("another disk with the same bundle was not taken")
	}
	p.script, p.memory.Now = [][]string{{"sda"}}, []byte(`{"tak`)
	if p.watch(); p.tries != 3 {
		t.Error("a damaged memory keeps a disk from being taken")
	}
	p.device.Store.Now = nil
	if p.watch(); p.tries != 3 {
		t.Error("a damaged memory was not mended")
	}
}

// pulled is a disk that is pulled out while its bundle is read, after so many bytes.
type pulled struct {
	fs.FS
	left int
}

type pulledFile struct {
	fs.File
	disk *pulled
}

func (d *pulled) Open(name string) (fs.File, error) {
	f, err := d.FS.Open(name)
	if err != nil || name == "." {
		return f, err
	}
	return &pulledFile{f, d}, nil
}

func (d *pulled) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(d.FS, name) }

func (f *pulledFile) Read(p []byte) (int, error) {
	if f.disk.left -= len(p); f.disk.left < 0 {
		return 0, errors.New("input/output error")
	}
	return f.File.Read(p)
}

func TestPulledOutAndPluggedInAgain(t *testing.T) {
	made := Bundle(t, "2.0.0", Owner, nil)
	whole := files(t, map[string][]byte{"a.skb": made})
	b, err := bundle.OpenUnverified(strings.NewReader(string(made)))
	if err != nil {
		t.Fatal(err)
	}
	// The header is read twice.
	disk := &pulled{whole, int(b.Manifest().Offset(0) + b.Manifest().Offset(7))}
	p := newPort(t, map[string]fs.FS{"sda": disk}, []string{"sda"}, []string{}, []string{})
	p.watch()
	if rec, err := p.device.Updater().Status(); err != nil || rec.Upgrade.State != update.Writing || rec.Upgrade.Chunk == 0 {
		t.Fatalf("%v, %v: %q", rec.Upgrade, err, p.told)
	}
	// Now only the header and what is missing may be read.
	rec, _ := p.device.Updater().Status()
	disk.left = int(2*b.Manifest().Offset(0)+b.Manifest().Size()-b.Manifest().Offset(rec.Upgrade.Chunk)) + 1
	p.disks["sda"] = &seekable{disk}
	p.script = [][]string{{"sda"}}
	p.watch()
	if p.tries != 1 {
		t.Errorf("%q", p.told)
	}
}

// seekable are the files of a disk that can be read from their middle.
type seekable struct{ *pulled }

type seekableFile struct{ *pulledFile }

func (d *seekable) Open(name string) (fs.File, error) {
	f, err := d.pulled.Open(name)
	if p, ok := f.(*pulledFile); ok {
		return seekableFile{p}, err
	}
	return f, err
}

func (f seekableFile) Seek(offset int64, whence int) (int64, error) {
	return f.File.(interface {
		Seek(int64, int) (int64, error)
	}).Seek(offset, whence)
}

func TestCompareVersions(t *testing.T) {
	// Each is higher than the one before.
	order := []string{"0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2026.1.9", "2026.1.10", "2026.01.11"}
	for i, a := range order {
		for j, b := range order {
			got := compareVersions(a, b)
			if want := min(1, max(-1, i-j)); min(1, max(-1, got)) != want {
				t.Errorf("%s to %s: got %d, want %d", a, b, got, want)
			}
		}
	}
	if compareVersions("1.0.0+a", "1.0.0+b") != 0 {
		t.Error("what follows + counts")
	}
}
