package plan

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/profile"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

var update = flag.Bool("update", false, "write what is found into the golden files")

// example is an input with something of everything; each call returns a new one.
func example() Input {
	sum := func(c string) string { return strings.Repeat(c, 64) }
	at := func(line int) profile.Position { return profile.Position{File: "p.yaml", Line: line, Column: 5} }
	return Input{
		Module: "example.com/skerry",
		Profile: &profile.Profile{
			Name:    "small",
			Version: "1.2.3",
			Packages: []profile.Package{
				{Position: at(1), Name: "nftables", Files: []string{"usr/share/doc/*/copyright", "usr/sbin/nft"}, Reason: "packet filter"},
				{Position: at(2), Name: "busybox-static", Reason: "tests"},
				{Position: at(3), Name: "libc6", Files: []string{"usr/lib/*/libc.so.6"}, Reason: "C library"},
			},
			Overlays: []string{"overlay", "another"},
			Programs: []profile.Program{
				{Position: at(4), Name: "pause", Package: "initd/cmd/pause", Reason: "pods"},
				{Position: at(5), Name: "init", Package: "initd/cmd/init", Path: "/usr/sbin/init", Reason: "process 1"},
			},
			Links: []profile.Link{
				{Position: at(6), Path: "/sbin", Target: "usr/sbin", Reason: "merged"},
				{Position: at(7), Path: "/bin", Target: "usr/bin", Reason: "merged"},
				{Position: at(8), Path: "/usr/sbin/reboot", Target: "init", Reason: "people"},
			},
			Directories: []profile.Directory{
				{Position: at(9), Path: "/tmp", Mode: "01777", Reason: "temporary"},
				{Position: at(10), Path: "/dev", Mode: "0755", Reason: "devices"},
			},
			Images: []profile.Image{
				{Position: at(11), Reference: "skerry.internal/test:1", Packages: []string{"busybox-static"}, Files: []string{"usr/bin/busybox"}, Links: []profile.Link{{Path: "/bin/sh", Target: "/usr/bin/busybox"}}, Entrypoint: []string{"/bin/sh"}, Reason: "tests"},
				{Position: at(12), Reference: "skerry.internal/pause:1", Programs: []string{"pause"}, Entrypoint: []string{"/pause"}, Reason: "pods"},
			},
			KernelConfig: []string{"base.config"},
		},
		Board: &profile.Board{
			Name:         "pc",
			Architecture: "amd64",
			BootLoader:   "systemd-boot",
			Disk:         profile.Disk{Table: "gpt", Boot: 512 << 20, Root: 768 << 20, MinimumData: 1 << 30},
			Kernel:       profile.Kernel{Position: at(20), Package: "linux-image-amd64", Reason: "kernel"},
			CommandLine:  []string{"console=ttyS0"},
			Packages:     []profile.Package{{Position: at(21), Name: "libc6", Files: []string{"usr/lib64/ld.so", "usr/lib/*/libc.so.6"}, Reason: "loader"}},
			KernelConfig: []string{"pc.config"},
		},
		Lock: &profile.Lock{
			Archive: profile.Archive{Suite: "trixie", Components: []string{"main"}, Date: "2026-11-21T09:15:44Z"},
			Packages: []profile.LockedPackage{
				{Name: "nftables", Version: "1.1.3-1", Architecture: "amd64", Path: "pool/n.deb", SHA256: sum("a"), Size: 1},
				{Name: "busybox-static", Version: "1:1.37.0-6", Architecture: "amd64", Path: "pool/b.deb", SHA256: sum("b"), Size: 2},
				{Name: "libc6", Version: "2.41-12", Architecture: "amd64", Path: "pool/c.deb", SHA256: sum("c"), Size: 3},
				{Name: "libc6", Version: "2.41-12", Architecture: "arm64", Path: "pool/c_arm64.deb", SHA256: sum("d"), Size: 3},
				{Name: "linux-image-6.12.117+deb13-amd64", Version: "6.12.117-1", Architecture: "amd64", Path: "pool/l.deb", SHA256: sum("e"), Size: 4, For: "linux-image-amd64"},
			},
		},
		Fragments: map[string][]Option{
			"base.config": {
				{Name: "CONFIG_EXT4_FS", Value: "m", Modules: []string{"ext4"}, Stage: "boot", Reason: "data", Origin: "base.config:1"},
				{Name: "CONFIG_CGROUPS", Value: "y", Reason: "limits", Origin: "base.config:2"},
			},
			"pc.config": {
				{Name: "CONFIG_IGB", Value: "m", Modules: []string{"igb"}, Stage: "probe", Reason: "network", Origin: "pc.config:1"},
				{Name: "CONFIG_CGROUPS", Value: "y", Reason: "again", Origin: "pc.config:2"},
			},
		},
		UserData: "#cloud-config\n",
		Clients:  []Authority{{Name: "skerry context fleet", Fingerprint: "SHA256:b", Certificate: "B\n"}, {Name: "skerry context lab", Fingerprint: "SHA256:a", Certificate: "A\n"}},
	}
}

func encode(t *testing.T, p *Plan) []byte {
	t.Helper()
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestResolveGolden(t *testing.T) {
	p, err := Resolve(example())
	if err != nil {
		t.Fatal(err)
	}
	got := encode(t, p)
	const golden = "testdata/plan.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the plan differs from %s; if it should, write it with -update:\n%s", golden, got)
	}
}

// The order in which files list packages, programs, links, directories and images, and the order of the lock, must not
// reach the plan. That of overlays and kernel options must: it has a meaning.
func TestResolveDoesNotDependOnOrder(t *testing.T) {
	p, err := Resolve(example())
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		in := example()
		shuffle(random, in.Profile.Packages)
		shuffle(random, in.Profile.Programs)
		shuffle(random, in.Profile.Links)
		shuffle(random, in.Profile.Directories)
		shuffle(random, in.Profile.Images)
		shuffle(random, in.Lock.Packages)
		shuffle(random, in.Profile.Packages[0].Files)
		shuffle(random, in.Clients)
		p, err := Resolve(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Digest(); err != nil || got != want {
			t.Fatalf("digest %s, %v; want %s; plan:\n%s", got, err, want, encode(t, p))
		}
	}
	for name, change := range map[string]func(*Input){
		"overlays":       func(in *Input) { slices.Reverse(in.Profile.Overlays) },
		"kernel options": func(in *Input) { slices.Reverse(in.Fragments["base.config"]) },
		"configuration":  func(in *Input) { in.UserData += "hostname: x\n" },
		"an authority":   func(in *Input) { in.Clients = in.Clients[:1] },
		"version":        func(in *Input) { in.Profile.Version = "1.2.4" },
		"a digest":       func(in *Input) { in.Lock.Packages[0].SHA256 = strings.Repeat("f", 64) },
	} {
		in := example()
		change(&in)
		p, err := Resolve(in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Digest(); err != nil || got == want {
			t.Errorf("a change of %s did not change the digest (%v)", name, err)
		}
	}
}

func shuffle[T any](r *rand.Rand, list []T) {
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// Resolving must not change what it is given: the command line resolves one profile for several boards.
func TestResolveLeavesItsInputAlone(t *testing.T) {
	in := example()
	for range 3 {
		if _, err := Resolve(in); err != nil {
			t.Fatal(err)
		}
	}
	before, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	after, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestResolveMistakes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Input)
		want   []string
	}{
		{"package not locked", func(in *Input) { in.Lock.Packages = in.Lock.Packages[1:] }, []string{"p.yaml:1:5: package nftables for amd64 is not in the lock; add it with: skerry lock --update"}},
		{"package locked for another board only", func(in *Input) { in.Lock.Packages[0].Architecture = "arm64" }, []string{"package nftables for amd64 is not in the lock"}},
		{"kernel not locked", func(in *Input) { in.Lock.Packages = in.Lock.Packages[:4] }, []string{"p.yaml:20:5: package linux-image-amd64 for amd64 is not in the lock"}},
		{"not a kernel", func(in *Input) { in.Board.Kernel.Package = "libc6" }, []string{"p.yaml:20:5: package libc6 is not a kernel"}},
		{"kernel of another suite", func(in *Input) { in.Board.Kernel.Suite = "backports" }, []string{"p.yaml:20:5: package linux-image-amd64 for amd64 is not in the lock"}},
		{"overlay for a board without device trees", func(in *Input) {
			in.Profile.DeviceTreeOverlays = []profile.DeviceTreeOverlay{{Position: profile.Position{File: "p.yaml", Line: 30, Column: 5}, File: "fan.dtbo"}}
		}, []string{"p.yaml:30:5: device tree overlay fan.dtbo is of no use: board pc has no device tree of ours"}},
		{"unknown program", func(in *Input) { in.Profile.Images[1].Programs = []string{"pouse"} }, []string{`p.yaml:12:5: image skerry.internal/pause:1: unknown program "pouse"; programs are: init, pause`}},
		{"package of image not listed", func(in *Input) { in.Profile.Packages = in.Profile.Packages[2:] }, []string{"p.yaml:11:5: image skerry.internal/test:1: package busybox-static is not among the profile's packages"}},
		{"program twice", func(in *Input) { in.Profile.Programs[1].Name = "pause" }, []string{"p.yaml:5:5: program pause is already in p.yaml:4:5"}},
		{"image twice", func(in *Input) { in.Profile.Images[1].Reference = "skerry.internal/test:1" }, []string{"p.yaml:12:5: image skerry.internal/test:1 is already in p.yaml:11:5"}},
		{"link over program", func(in *Input) { in.Profile.Links[0].Path = "/usr/sbin/init" }, []string{"p.yaml:6:5: path /usr/sbin/init is already taken by p.yaml:5:5"}},
		{"directory over link", func(in *Input) { in.Profile.Directories[0].Path = "/bin" }, []string{"p.yaml:9:5: path /bin is already taken by p.yaml:7:5"}},
		{"two directories", func(in *Input) { in.Profile.Directories[0].Path = "/dev" }, []string{"p.yaml:10:5: path /dev is already taken by p.yaml:9:5"}},
		{"contradicting options", func(in *Input) { in.Fragments["pc.config"][1].Value = "n" }, []string{`pc.config:2: CONFIG_CGROUPS=n in stage "" contradicts base.config:2, which has y in stage ""`}},
		{"fragment not read", func(in *Input) { delete(in.Fragments, "pc.config") }, []string{"kernel configuration fragment pc.config was not read"}},
		{"unknown architecture", func(in *Input) { in.Board.Architecture = "sparc" }, []string{`cannot plan board pc: unknown architecture "sparc"`}},
		{"no date", func(in *Input) { in.Lock.Archive.Date = "" }, []string{"cannot plan board pc: lock: archive date"}},
		{"several at once", func(in *Input) { in.Lock.Packages = nil }, []string{"package nftables", "package busybox-static", "package libc6", "package linux-image-amd64", "cannot plan profile small for board pc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := example()
			c.change(&in)
			p, err := Resolve(in)
			if err == nil {
				t.Fatalf("no error; plan:\n%s", encode(t, p))
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q:\n%v", part, err)
				}
			}
		})
	}
}

func TestTargetsCoverArchitectures(t *testing.T) {
	for _, a := range profile.Architectures {
		if targets[a].Debian != a {
			t.Errorf("architecture %s has no target", a)
		}
	}
}

func TestMinimumDisk(t *testing.T) {
	p, err := Resolve(example())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Disk.MinimumDiskBytes(), int64(512+2*768+1024+2)<<20; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestExplain(t *testing.T) {
	p, err := Resolve(example())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/usr/sbin/init":               "program init, built from example.com/skerry/initd/cmd/init: process 1",
		"/sbin/init":                   "program init, built from example.com/skerry/initd/cmd/init: process 1",
		"/sbin":                        "link to usr/sbin: merged",
		"/tmp":                         "directory with mode 1777: temporary",
		"skerry.internal/test:1":       "container image of busybox-static: tests",
		"/sbin/nft":                    "file of package nftables 1.1.3-1, wanted by the pattern usr/sbin/nft: packet filter ?",
		"/usr/share/doc/nft/copyright": "file of package nftables 1.1.3-1, wanted by the pattern usr/share/doc/*/copyright: packet filter ?",
		"/usr/lib/x/libc.so.6":         "file of package libc6 2.41-12, wanted by the pattern usr/lib/*/libc.so.6: C library; loader ?",
		"/usr/lib/modules/6.12.117+deb13-amd64/kernel/drivers/net/igb/igb.ko.xz": "kernel module of package linux-image-6.12.117+deb13-amd64, stage probe, wanted by CONFIG_IGB in pc.config:1: network",
		"/usr/lib/modules/6.12.117+deb13-amd64/kernel/dca.ko.xz":                 "",
		"/usr/lib/modules/6.1.0/kernel/igb.ko.xz":                                "",
		v1.ClientsPath: `made by the builder: authority "skerry context lab" (SHA256:a), authority "skerry context fleet" (SHA256:b): ` + ClientsReason,
		"/nothing":     "",
	} {
		var lines []string
		for _, o := range p.Explain(name) {
			line := o.What + ": " + o.Reason
			if o.Package != nil {
				line += " ?"
			}
			lines = append(lines, line)
		}
		if got := strings.Join(lines, "\n"); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// The file on the device depends on which authorities there are, not on their order, nor on how often one is named.
func TestClients(t *testing.T) {
	in := example()
	in.Clients = append(in.Clients, in.Clients[0])
	p, err := Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.ClientsFile(); got != "A\nB\n" {
		t.Errorf("the file is %q", got)
	}
	in.Clients = nil
	if p, err = Resolve(in); err != nil {
		t.Fatal(err)
	}
	if got := p.ClientsFile() + fmt.Sprint(p.Explain(v1.ClientsPath)); got != "[]" {
		t.Errorf("without an authority: %q", got)
	}
	for _, c := range []struct {
		name              string
		release, noRemote bool
		clients           []Authority
		want              string
	}{
		{"not for the field, nobody", false, false, nil, ""},
		{"release", true, false, []Authority{{Name: "x"}}, ""},
		{"release, on purpose nobody", true, true, nil, ""},
		{"release, nobody", true, false, nil, "nobody has named who may manage its devices"},
	} {
		in.Profile.Release, in.NoRemote, in.Clients = c.release, c.noRemote, c.clients
		p, err := Resolve(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CheckClients(); (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestTrustedKeys(t *testing.T) {
	in := example()
	a, b := TrustedKey{ID: "0A", Line: "RWa"}, TrustedKey{ID: "0B", Line: "RWb", Development: true}
	in.Keys = []TrustedKey{b, a, b}
	p, err := Resolve(in)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Keys, []TrustedKey{a, b}) {
		t.Errorf("keys are %v", p.Keys)
	}
	for _, c := range []struct {
		name    string
		release bool
		keys    []TrustedKey
		want    string
	}{
		{"not for the field, no key", false, nil, ""},
		{"not for the field, development key", false, []TrustedKey{b}, ""},
		{"release", true, []TrustedKey{a}, ""},
		{"release without a key", true, nil, "no key is given"},
		{"release with a development key", true, []TrustedKey{b}, "key 0B is a development key"},
		{"release with a development key among others", true, []TrustedKey{a, b}, "key 0B is a development key"},
	} {
		in.Profile.Release, in.Keys = c.release, c.keys
		p, err := Resolve(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CheckKeys(); (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
