package artifact

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/erofs/go-erofs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/klauspost/compress/zstd"

	"github.com/skerryos/skerry/builder/artifact/artifacttest"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
	"github.com/skerryos/skerry/ci/need"
)

func TestRootTreeHasWhatThePlanSays(t *testing.T) {
	b, p := quickBuilder(t)
	tree, err := b.RootTree(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := p.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/etc/motd": "hello\n",
		"/etc/os-release": "ID=skerry\nNAME=Skerry\nPRETTY_NAME=\"Skerry 1.2.3 (test)\"\nVERSION_ID=1.2.3\n" +
			"IMAGE_ID=test\nIMAGE_VERSION=1.2.3\nBUILD_ID=" + digest + "\n",
		"/etc/ssl/certs/ca-certificates.crt": "A\nB\n",
		"/usr/lib/skerry/build-time":         "1764000000\n",
		"/usr/share/skerry/user-data":        "#cloud-config\nhostname: a\n",
	} {
		e, err := tree.Resolve(path)
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := e.Content.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is\n%s\nwant\n%s", path, got, want)
		}
	}
	for path, want := range map[string]Entry{
		"/usr/bin/tool":     {Mode: 0o644, Origin: "package tool 1-1", Reason: "the test wants tool"}, // merged /usr
		"/usr/sbin/init":    {Mode: 0o755, Origin: "program init (github.com/skerryos/skerry/initd/cmd/init)", Reason: "process 1"},
		"/usr/sbin/reboot":  {Mode: fs.ModeSymlink | 0o777, Origin: "profile", Reason: "people"},
		"/tmp":              {Mode: fs.ModeDir | fs.ModeSticky | 0o777, Origin: "profile", Reason: "scratch"},
		"/etc/motd":         {Mode: 0o644, Origin: "overlay/etc/motd", Reason: "the repository's overlay"},
		"/lib64/../usr/bin": {},
	} {
		e, ok := tree.Lookup(path)
		if !ok {
			if want.Origin != "" {
				t.Errorf("%s is missing", path)
			}
			continue
		}
		if e.Mode != want.Mode || e.Origin != want.Origin || e.Reason != want.Reason {
			t.Errorf("%s is %v from %q because %q; want %v, %q, %q", path, e.Mode, e.Origin, e.Reason, want.Mode, want.Origin, want.Reason)
		}
	}
}

func TestRootTreeMistakesSayWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*plan.Plan, *artifacttest.Packages)
		wrong  []string
	}{
		{"pattern without a file", func(p *plan.Plan, _ *artifacttest.Packages) {
			p.PackageNamed("libc6").Files = []string{"lib/libm.so.6"}
		}, []string{"package libc6 2.41-1", `"lib/libm.so.6" matches nothing`, "usr/lib/x86_64-linux-gnu/libm.so.6"}},
		{"library that a package at hand has", func(p *plan.Plan, _ *artifacttest.Packages) {
			p.PackageNamed("libc6").Files = []string{"usr/lib64/*", "usr/lib/*/ld-*"}
		}, []string{"/usr/bin/tool (from package tool 1-1)", "libc.so.6", "add usr/lib/x86_64-linux-gnu/libc.so.6 to the files of package libc6"}},
		{"interpreter behind a missing link", func(p *plan.Plan, _ *artifacttest.Packages) {
			p.Links = p.Links[2:]
		}, []string{"/usr/bin/tool", "interpreter /lib64/ld-linux-x86-64.so.2"}},
		{"library that nobody has", func(p *plan.Plan, packages *artifacttest.Packages) {
			bad := packages.Add(t, "bad", "1", artifacttest.File{Name: "usr/bin/bad", Content: artifacttest.Program("", "libnone.so.1")})
			bad.Files = []string{"usr/bin/*"}
			p.Packages = append(p.Packages, bad)
		}, []string{"/usr/bin/bad", "libnone.so.1", "add the Debian package that ships it"}},
		{"two origins", func(p *plan.Plan, _ *artifacttest.Packages) {
			p.Links = append(p.Links, plan.Link{Path: "/etc/motd", Target: "x"})
		}, []string{"/etc/motd", "overlay/etc/motd", "profile"}},
		{"damaged program file", func(p *plan.Plan, packages *artifacttest.Packages) {
			bad := packages.Add(t, "bad", "1", artifacttest.File{Name: "usr/bin/bad", Content: "\x7fELF\x09"})
			bad.Files = []string{"usr/bin/*"}
			p.Packages = append(p.Packages, bad)
		}, []string{"cannot read ELF file /usr/bin/bad"}},
		{"kernel that is not locked", func(p *plan.Plan, _ *artifacttest.Packages) { p.Kernel.Package = "linux-none" },
			[]string{`"linux-none"`, "skerry lock --update"}},
		{"release that the package has not", func(p *plan.Plan, _ *artifacttest.Packages) { p.Kernel.Release = "9.9" },
			[]string{"kernel 9.9", "package linux-image-6.1-test"}},
		{"overlay that is not there", func(p *plan.Plan, _ *artifacttest.Packages) { p.Overlays = []string{"none"} },
			[]string{"overlay none"}},
		{"image file that is not there", func(p *plan.Plan, _ *artifacttest.Packages) { p.Images[1].Files = []string{"bin/none"} },
			[]string{"skerry.internal/tool:2", `"bin/none" matches nothing in tool, libc6`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, p := quickBuilder(t)
			tt.change(p, b.Packages.(*artifacttest.Packages))
			_, err := b.RootTree(t.Context(), p)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tt.wrong {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q:\n%v", w, err)
				}
			}
		})
	}
}

func TestOverlayTakesNoLeftovers(t *testing.T) {
	for _, name := range []string{"motd~", ".motd.swp", ".DS_Store", "#motd#"} {
		b, p := quickBuilder(t)
		if err := os.WriteFile(filepath.Join(b.Source, "overlay", "etc", name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := b.RootTree(t.Context(), p); err == nil || !strings.Contains(err.Error(), "overlay/etc/"+name+" is what an editor") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestProgramThatDoesNotCompileShowsTheCompilersWords(t *testing.T) {
	b, p := testBuilder(t)
	p.Programs[1].Package += "/none"
	_, err := b.RootTree(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "cannot build programs") || !strings.Contains(err.Error(), "initd/cmd/pause/none") {
		t.Errorf("error is %v", err)
	}
}

// bytesOf builds everything in a folder of its own and returns the bytes of root and initramfs.
func bytesOf(t *testing.T) (root, initramfs []byte, r *Root) {
	t.Helper()
	b, p := quickBuilder(t)
	r, err := b.Root(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	i, err := b.Initramfs(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = r.Content().ReadAll(); err != nil {
		t.Fatal(err)
	}
	if initramfs, err = i.Content().ReadAll(); err != nil {
		t.Fatal(err)
	}
	return root, initramfs, r
}

func TestSameInputsSameBytes(t *testing.T) {
	root1, initramfs1, _ := bytesOf(t)
	root2, initramfs2, _ := bytesOf(t)
	if !bytes.Equal(root1, root2) {
		t.Error("root file systems differ")
	}
	if !bytes.Equal(initramfs1, initramfs2) {
		t.Error("initramfs images differ")
	}
}

func TestRootIsAFileSystemWithTheTreesFiles(t *testing.T) {
	data, _, r := bytesOf(t)
	fsys, err := erofs.Open(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Entries {
		name := strings.TrimPrefix(e.Path, "/")
		if name == "" {
			continue
		}
		if e.isLink() {
			target, err := fsys.(interface{ ReadLink(string) (string, error) }).ReadLink(name)
			if err != nil || target != e.Target {
				t.Errorf("%s points to %q (%v), want %q", e.Path, target, err, e.Target)
			}
			continue
		}
		info, err := fs.Stat(fsys, name)
		if err != nil {
			t.Errorf("%s: %v", e.Path, err)
			continue
		}
		st := info.Sys().(*erofs.Stat)
		// The mode that fs.FileInfo gives has Unix bits in the wrong places; the one beside it is right.
		if st.Mode != e.Mode || st.UID != 0 || st.GID != 0 || st.Mtime != 1764000000 {
			t.Errorf("%s is %v of %d:%d at %d, want %v of root at 1764000000", e.Path, st.Mode, st.UID, st.GID, st.Mtime, e.Mode)
		}
		if !e.Mode.IsRegular() {
			continue
		}
		got, err := fs.ReadFile(fsys, name)
		if err != nil {
			t.Errorf("%s: %v", e.Path, err)
			continue
		}
		if BytesContent(got).SHA256 != e.Content.SHA256 {
			t.Errorf("%s has another content than the tree says", e.Path)
		}
	}
}

func TestFsckAndVeritysetupAcceptTheRoot(t *testing.T) {
	fsck, veritysetup := need.Tool(t, "fsck.erofs"), need.Tool(t, "veritysetup")
	data, _, r := bytesOf(t)
	name := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), fsck, name).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
	if err := verify(t, veritysetup, name, r.Verity); err != nil {
		t.Error(err)
	}
}

func TestInitramfsIsWhatTheKernelReads(t *testing.T) {
	_, data, _ := bytesOf(t)
	z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	files := map[string]string{}
	var order []string
	for r := cpio.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(body)
		order = append(order, h.Name)
		if h.ModTime.Unix() != 1764000000 {
			t.Errorf("%s has time %v", h.Name, h.ModTime)
		}
		if want := h.Name == "init"; (h.Mode.Perm() == 0o755 && h.Mode.IsRegular()) != want {
			t.Errorf("%s has mode %v", h.Name, h.Mode)
		}
	}
	if want := "erofs\n"; files["usr/lib/skerry/modules-load"] != want {
		t.Errorf("init loads %q, want %q", files["usr/lib/skerry/modules-load"], want)
	}
	want := "dev etc etc/build-time etc/initrd-release init proc run sys sysroot usr"
	order = slices.DeleteFunc(order, func(name string) bool { return strings.HasPrefix(name, "usr/") })
	for _, module := range []string{"crypto/crc32c_generic", "fs/erofs/erofs", "lib/libcrc32c"} {
		if files["usr/lib/modules/6.1-test/kernel/"+module+".ko.xz"] == "" {
			t.Errorf("module %s is missing", module)
		}
	}
	if files["usr/lib/modules/6.1-test/kernel/drivers/net/net-a.ko.xz"] != "" {
		t.Error("a module that does not lead to the disk is there, too")
	}
	if got := strings.Join(order, " "); got != want {
		t.Errorf("holds %s\nwant  %s", got, want)
	}
}

func TestImagesAreAValidLayout(t *testing.T) {
	b, p := quickBuilder(t)
	tree := &Tree{}
	if err := b.addImages(t.Context(), tree, p); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, e := range tree.Entries() {
		rel, ok := strings.CutPrefix(e.Path, imagesDir+"/")
		if !ok || e.isDir() {
			continue
		}
		name := filepath.Join(folder, rel)
		data, err := e.Content.ReadAll()
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(name, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	path, err := layout.FromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range manifest.Manifests {
		got = append(got, m.Annotations["io.containerd.image.name"]+" "+m.Annotations["org.opencontainers.image.ref.name"]+" "+m.Platform.String())
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, checkImage(t, img)...)
	}
	want := `skerry.internal/pause:1 1 linux/amd64
[/pause]
pause 755
skerry.internal/tool:2 2 linux/amd64
[]
tool 777 usr/bin/tool
usr/ 755
usr/bin/ 755
usr/bin/tool 644
usr/lib/ 755
usr/lib/x86_64-linux-gnu/ 755
usr/lib/x86_64-linux-gnu/libc.so.6 644`
	if strings.Join(got, "\n") != want {
		t.Errorf("index has\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

// checkImage verifies that an image has one uncompressed layer with the digests it claims, and returns its entry point
// and what is in it.
func checkImage(t *testing.T, img v1.Image) []string {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 || len(config.RootFS.DiffIDs) != 1 {
		t.Fatalf("%d layers, %d in the configuration, %v", len(layers), len(config.RootFS.DiffIDs), err)
	}
	r, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if sum := BytesContent(data).SHA256; sum != digest.Hex || sum != config.RootFS.DiffIDs[0].Hex {
		t.Errorf("layer has digest %s, the manifest says %s, the configuration %s", sum, digest, config.RootFS.DiffIDs[0])
	}
	out := []string{fmt.Sprint(config.Config.Entrypoint)}
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %o %s", h.Name, h.Mode, h.Linkname)))
	}
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	b, p := quickBuilder(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.Progress = cancelAt{progress.Discard, "make root file system", cancel}
	if _, err := b.Root(ctx, p); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
	left, err := filepath.Glob(filepath.Join(b.Store.dir, "root", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
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
