package artifact

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/artifact/artifacttest"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
)

// testBuilder returns a builder and a plan that exercise everything, with inputs made anew.
func testBuilder(t *testing.T) (*Builder, *plan.Plan) {
	t.Helper()
	packages := &artifacttest.Packages{Dir: t.TempDir()}
	p := artifacttest.Plan(t, packages)
	return &Builder{Source: artifacttest.Repository(t), Store: openStore(t), Packages: packages, Progress: progress.Discard}, p
}

// quickBuilder is a testBuilder that has its programs already: it does not run the Go command.
func quickBuilder(t *testing.T) (*Builder, *plan.Plan) {
	t.Helper()
	b, p := testBuilder(t)
	b.programs = map[string]Content{"init": BytesContent([]byte("init")), "pause": BytesContent([]byte("pause"))}
	return b, p
}

func testIndex(t *testing.T) (*ModuleIndex, *plan.Plan) {
	t.Helper()
	b, p := quickBuilder(t)
	x, err := b.Modules(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return x, p
}

func TestClosureLoadsWhatIsNeededFirst(t *testing.T) {
	x, _ := testIndex(t)
	for _, tt := range []struct{ names, want string }{
		// erofs depends on libcrc32c, whose softdep is an alias of crc32c_generic.
		{"erofs", "crc32c_generic libcrc32c erofs"},
		{"libcrc32c erofs", "crc32c_generic libcrc32c erofs"},
		{"net-a", "net_a"},
		{"fuse", ""}, // built in
	} {
		list, err := x.Closure(strings.Fields(tt.names))
		if err != nil {
			t.Errorf("%s: %v", tt.names, err)
			continue
		}
		var got []string
		for _, m := range list {
			got = append(got, m.Name)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: loads %v, want %s", tt.names, got, tt.want)
		}
	}
	if _, err := x.Closure([]string{"unused"}); err == nil || !strings.Contains(err.Error(), "missing, which unused needs") {
		t.Errorf("missing dependency: %v", err)
	}
}

func TestModuleThatIsNowhereNamesItsLine(t *testing.T) {
	x, p := testIndex(t)
	p.Kernel.Config[2].Modules = []string{"net_b"}
	err := x.AddModules(&Tree{}, p)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, w := range []string{"kernel-config/a.config:3", "CONFIG_NET_A", `"net_b"`, "6.1-test"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
	p.Kernel.Config[2].Value = "n"
	if err := x.AddModules(&Tree{}, p); err != nil {
		t.Errorf("an option that is off asks for a module: %v", err)
	}
}

func TestModuleTablesAreThoseOfDepmod(t *testing.T) {
	x, p := testIndex(t)
	tree := &Tree{}
	if err := x.AddModules(tree, p); err != nil {
		t.Fatal(err)
	}
	const dir = "/usr/lib/modules/6.1-test/"
	for name, want := range map[string]string{
		dir + "modules.dep": "kernel/crypto/crc32c_generic.ko.xz:\nkernel/drivers/net/net-a.ko.xz:\n" +
			"kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz\nkernel/lib/libcrc32c.ko.xz:\n",
		dir + "modules.softdep": "softdep libcrc32c pre: crc32c\n",
		dir + "modules.alias": "alias crc32c crc32c_generic\nalias crypto-crc32c crc32c_generic\n" +
			"alias pci:v00001AF4d* net_a\nalias fs-erofs erofs\n",
		dir + "modules.builtin":        "kernel/fs/fuse/fuse.ko\n",
		"/usr/lib/skerry/modules-load": "net_a\n",
	} {
		e, ok := tree.Lookup(name)
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		b, err := e.Content.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != want {
			t.Errorf("%s is\n%s\nwant\n%s", name, b, want)
		}
	}
	if _, ok := tree.Lookup(dir + "kernel/drivers/net/unused.ko.xz"); ok {
		t.Error("a module that nothing asks for is in the image")
	}
	if e, ok := tree.Lookup(dir + "kernel/fs/erofs/erofs.ko.xz"); !ok || e.Mode != fs.FileMode(0o644) || !strings.Contains(e.Reason, "kernel-config/a.config:1") {
		t.Errorf("erofs.ko.xz is %+v", e)
	}
}
