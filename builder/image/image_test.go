package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/artifact/artifacttest"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
	"github.com/skerryos/skerry/ci/need"
)

// build is a builder with inputs of its own, its plan and its output folder.
type build struct {
	builder *artifact.Builder
	plan    *plan.Plan
	out     string
}

func newBuild(t *testing.T) *build { return newBuildOf(t, artifacttest.Plan) }

// plans are one for each boot loader.
var plans = []struct {
	loader string
	of     func(testing.TB, *artifacttest.Packages) *plan.Plan
}{{"systemd-boot", artifacttest.Plan}, {"uboot", artifacttest.UBootPlan}}

// eachLoader runs a test for each boot loader.
func eachLoader(t *testing.T, test func(t *testing.T, newBuild func() *build)) {
	for _, p := range plans {
		t.Run(p.loader, func(t *testing.T) { test(t, func() *build { return newBuildOf(t, p.of) }) })
	}
}

func newBuildOf(t *testing.T, of func(testing.TB, *artifacttest.Packages) *plan.Plan) *build {
	t.Helper()
	packages := &artifacttest.Packages{Dir: t.TempDir()}
	b := &build{plan: of(t, packages), out: filepath.Join(t.TempDir(), "out")}
	store, err := artifact.OpenStore(filepath.Join(b.out, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	b.builder = &artifact.Builder{Source: artifacttest.Repository(t), Store: store, Packages: packages, Progress: progress.Discard}
	return b
}

// fresh is a builder that remembers nothing, as in a new process.
func (b *build) fresh() *artifact.Builder {
	return &artifact.Builder{Source: b.builder.Source, Store: b.builder.Store, Packages: b.builder.Packages, Progress: b.builder.Progress}
}

func (b *build) run(t *testing.T) *Result {
	t.Helper()
	r, err := Build(t.Context(), b.fresh(), b.plan, b.out)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuildTwiceInOtherFoldersAtOtherTimes(t *testing.T) {
	eachLoader(t, buildTwice)
}

func buildTwice(t *testing.T, newBuild func() *build) {
	first := newBuild()
	a := first.run(t)
	second := newBuild()
	old := time.Unix(1000000, 0)
	err := filepath.WalkDir(second.builder.Source, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(name, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	zone := time.Local
	time.Local = time.FixedZone("elsewhere", 12*3600+45*60)
	t.Cleanup(func() { time.Local = zone })
	b := second.run(t)
	for _, pair := range [][2]string{
		{a.Image, b.Image}, {a.SBOM, b.SBOM}, {a.Manifest, b.Manifest},
		{filepath.Join(a.Boot, "vmlinuz"), filepath.Join(b.Boot, "vmlinuz")},
		{filepath.Join(a.Boot, "initrd"), filepath.Join(b.Boot, "initrd")},
		{filepath.Join(a.Boot, "cmdline"), filepath.Join(b.Boot, "cmdline")},
	} {
		if !bytes.Equal(read(t, pair[0]), read(t, pair[1])) {
			t.Errorf("%s differs", filepath.Base(pair[0]))
		}
	}
	sum := sha256.Sum256(read(t, a.Image))
	if hex.EncodeToString(sum[:]) != a.SHA256 {
		t.Errorf("the image's digest is said to be %s, is %x", a.SHA256, sum)
	}
}

func TestDiskHasThePartitions(t *testing.T) {
	b := newBuild(t)
	r := b.run(t)
	disk, err := file.OpenFromPath(r.Image, true)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	table, err := gpt.Read(disk, 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Verify(disk, uint64(r.Bytes)); err != nil {
		t.Error(err)
	}
	type part struct {
		name  string
		kind  gpt.Type
		start uint64
		size  uint64
	}
	want := []part{
		{"skerry-esp", gpt.EFISystemPartition, 2048, 40 << 20},
		{"skerry-root-a", gpt.LinuxRootX86_64, 2048 + 40*2048, 16 << 20},
		{"skerry-root-b", gpt.LinuxRootX86_64, 2048 + 56*2048, 16 << 20},
	}
	var got []part
	guids := map[string]bool{table.GUID: true}
	for _, p := range table.Partitions {
		if p.Type != gpt.Unused {
			got = append(got, part{p.Name, p.Type, p.Start, p.Size})
			guids[p.GUID] = true
		}
	}
	if len(got) != len(want) {
		t.Fatalf("partitions are %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("partition %d is %v, want %v", i+1, got[i], want[i])
		}
	}
	if len(guids) != 4 {
		t.Errorf("identifiers are not unique: %v", guids)
	}
	image := read(t, r.Image)
	rootA := image[want[1].start*512:][:want[1].size]
	manifest := readManifest(t, r)
	for _, o := range manifest.Outputs {
		if o.Name == "root" {
			if sum := sha256.Sum256(rootA[:o.Bytes]); hex.EncodeToString(sum[:]) != o.SHA256 {
				t.Error("root-a does not hold the root file system")
			}
		}
	}
	if rootB := image[want[2].start*512:][:want[2].size]; len(bytes.Trim(rootB, "\x00")) != 0 {
		t.Error("root-b is not empty")
	}
}

func TestToolsAcceptTheDisk(t *testing.T) {
	sfdisk, fsck, mtype := need.Tool(t, "sfdisk"), need.Tool(t, "fsck.vfat"), need.Tool(t, "mtype")
	b := newBuild(t)
	r := b.run(t)
	out, err := exec.CommandContext(t.Context(), sfdisk, "--verify", r.Image).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk: %v\n%s", err, out)
	}
	esp := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(esp, read(t, r.Image)[1<<20:][:40<<20], 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), fsck, "-n", esp).CombinedOutput(); err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
	for name, want := range map[string]string{
		"::/loader/loader.conf":   "timeout menu-disabled\neditor no\n",
		"::/EFI/BOOT/BOOTX64.EFI": "boot loader",
	} {
		if out, err := exec.CommandContext(t.Context(), mtype, "-i", esp, name).Output(); err != nil || string(out) != want {
			t.Errorf("%s is %q (%v), want %q", name, out, err, want)
		}
	}
	uki, err := exec.CommandContext(t.Context(), mtype, "-i", esp, "::/EFI/Linux/skerry-a+3-0.efi").Output()
	if err != nil {
		t.Fatal(err)
	}
	manifest := readManifest(t, r)
	if !bytes.Contains(uki, []byte(manifest.CommandLine)) || !strings.HasSuffix(manifest.CommandLine, "skerry.slot=a skerry.roothash="+r.RootHash+" skerry.rootblocks="+itoa(manifest.Root.DataBlocks)) {
		t.Errorf("command line %q is not that of the image", manifest.CommandLine)
	}
}

func itoa(n int64) string { b, _ := json.Marshal(n); return string(b) }

func readManifest(t *testing.T, r *Result) Manifest {
	t.Helper()
	var m Manifest
	if err := json.Unmarshal(read(t, r.Manifest), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSecondBuildDoesNothingUntilSomethingChanged(t *testing.T) {
	eachLoader(t, secondBuild)
}

func secondBuild(t *testing.T, newBuild func() *build) {
	b := newBuild()
	first := b.run(t)
	if first.Unchanged {
		t.Error("the first build says that nothing has changed")
	}
	before, err := os.Stat(first.Image)
	if err != nil {
		t.Fatal(err)
	}
	if again := b.run(t); !again.Unchanged || again.SHA256 != first.SHA256 {
		t.Errorf("second build: %+v", again)
	}
	if after, err := os.Stat(first.Image); err != nil || !os.SameFile(before, after) {
		t.Error("the second build wrote the image anew")
	}
	// Booting the image itself changes it.
	if err := os.WriteFile(first.Image, []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if mended := b.run(t); mended.Unchanged || mended.SHA256 != first.SHA256 || len(read(t, first.Image)) != int(first.Bytes) {
		t.Errorf("a changed image was not mended: %+v", mended)
	}
	b.plan.UserData = "#cloud-config\nhostname: b\n"
	if other := b.run(t); other.Unchanged || other.SHA256 == first.SHA256 || other.RootHash == first.RootHash {
		t.Errorf("another configuration gave the same image: %+v", other)
	}
}

func TestFailureLeavesTheFormerImage(t *testing.T) {
	b := newBuild(t)
	r := b.run(t)
	b.plan.UserData = "#cloud-config\nhostname: b\n"
	for _, tt := range []struct {
		name   string
		change func() (undo func())
		ctx    func() context.Context
		wrong  []string
	}{
		{"root too large", func() func() {
			b.plan.Disk.RootBytes = 1 << 20
			return func() { b.plan.Disk.RootBytes = 16 << 20 }
		}, t.Context, []string{"cannot put the root file system", "the partition 1.0 MiB", "raise disk.root of board test", "profile small"}},
		{"boot loader of the future", func() func() {
			b.plan.BootLoader = "none"
			return func() { b.plan.BootLoader = "systemd-boot" }
		}, t.Context, []string{`boot loader "none"`}},
		{"partition table of another time", func() func() {
			b.plan.Disk.Table = "apm"
			return func() { b.plan.Disk.Table = "gpt" }
		}, t.Context, []string{`"apm"`}},
		{"interrupted while writing", func() func() {
			return func() {}
		}, nil, []string{context.Canceled.Error()}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer tt.change()()
			n := b.fresh()
			ctx := context.Context(nil)
			if tt.ctx != nil {
				ctx = tt.ctx()
			} else {
				c, cancel := context.WithCancel(t.Context())
				defer cancel()
				ctx, n.Progress = c, cancelAt{progress.Discard, "write skerry-test.img", cancel}
			}
			_, err := Build(ctx, n, b.plan, b.out)
			if err == nil {
				t.Fatal("built")
			}
			for _, w := range tt.wrong {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q: %v", w, err)
				}
			}
			if sum := sha256.Sum256(read(t, r.Image)); hex.EncodeToString(sum[:]) != r.SHA256 {
				t.Error("the former image is damaged")
			}
			if _, err := os.Stat(r.Image + ".partial"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a half-written image is left: %v", err)
			}
		})
	}
}

// cancelAt cancels when a task of that name begins.
type cancelAt struct {
	progress.Reporter
	what   string
	cancel func()
}

func (c cancelAt) Start(what string, total int64) progress.Task {
	if what == c.what {
		c.cancel()
	}
	return c.Reporter.Start(what, total)
}

func TestManifestAndBillOfMaterialsNameEverything(t *testing.T) {
	b := newBuild(t)
	r := b.run(t)
	m := readManifest(t, r)
	inputs := map[string]string{}
	for _, i := range m.Inputs {
		inputs[i.Kind+" "+i.Name] = i.SHA256
	}
	for _, k := range b.plan.Packages {
		if inputs["package "+k.Name] != k.SHA256 {
			t.Errorf("manifest has package %s as %q", k.Name, inputs["package "+k.Name])
		}
	}
	for _, g := range b.plan.Programs {
		if len(inputs["program "+g.Name]) != 64 {
			t.Errorf("manifest has program %s as %q", g.Name, inputs["program "+g.Name])
		}
	}
	origins := map[string]string{}
	for _, f := range m.Files {
		origins[f.Path] = f.Origin
	}
	if origins["/usr/bin/tool"] != "package tool 1-1" || origins["/etc/motd"] != "overlay/etc/motd" {
		t.Errorf("origins are %v", origins)
	}

	var bom struct {
		SpecVersion string `json:"specVersion"`
		Metadata    struct {
			Timestamp string `json:"timestamp"`
			Component struct {
				Hashes []struct{ Content string }
			}
		}
		Components []struct {
			Purl     string
			Name     string
			Licenses []struct{ License struct{ ID, Name string } }
		}
	}
	if err := json.Unmarshal(read(t, r.SBOM), &bom); err != nil {
		t.Fatal(err)
	}
	if bom.SpecVersion != "1.6" || bom.Metadata.Timestamp != "2025-11-24T16:00:00Z" || bom.Metadata.Component.Hashes[0].Content != r.SHA256 {
		t.Errorf("bill of materials: %+v", bom.Metadata)
	}
	found := map[string]string{}
	for _, c := range bom.Components {
		licence := ""
		for _, l := range c.Licenses {
			licence += l.License.ID + l.License.Name
		}
		found[c.Name] = strings.TrimSpace(c.Purl + " " + licence)
	}
	for name, want := range map[string]string{
		"systemd-boot-efi": "pkg:deb/debian/systemd-boot-efi@257-1?arch=amd64 LGPL-2.1-or-later",
		"tool":             "pkg:deb/debian/tool@1-1?arch=amd64",
		"init":             "Apache-2.0",
	} {
		if found[name] != want {
			t.Errorf("bill of materials has %s as %q, want %q", name, found[name], want)
		}
	}
	if !strings.HasPrefix(found["std"], "pkg:golang/std@1.") {
		t.Errorf("bill of materials has Go's own library as %q", found["std"])
	}
}
