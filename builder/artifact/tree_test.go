package artifact

import (
	"io/fs"
	"strings"
	"testing"
)

func file(path, text, origin string) Entry {
	return Entry{Path: path, Mode: 0o644, Content: BytesContent([]byte(text)), Origin: origin}
}

func link(path, target string) Entry {
	return Entry{Path: path, Mode: fs.ModeSymlink | 0o777, Target: target, Origin: "links"}
}

func dir(path string, mode fs.FileMode) Entry {
	return Entry{Path: path, Mode: fs.ModeDir | mode, Origin: "directories"}
}

func treeOf(t *testing.T, entries ...Entry) *Tree {
	t.Helper()
	tree := &Tree{}
	for _, e := range entries {
		if err := tree.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func TestTreeHasOneOriginForEachPath(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []Entry
		// wrong are parts of the error of the last entry; none: it is accepted.
		wrong []string
	}{
		{"two files", []Entry{file("/a", "1", "package x"), file("/a", "1", "overlay")}, []string{"/a", "package x", "overlay"}},
		{"link over file", []Entry{file("/a", "1", "package x"), link("/a", "b")}, []string{"/a", "package x", "links"}},
		{"file over directory", []Entry{dir("/a", 0o755), file("/a", "1", "package x")}, []string{"/a", "package x", "directories"}},
		{"file below file", []Entry{file("/a", "1", "package x"), file("/a/b", "1", "overlay")}, []string{"/a/b", "overlay", "/a is not a directory", "package x"}},
		{"file below link", []Entry{link("/lib", "usr/lib"), file("/lib/b", "1", "overlay")}, []string{"/lib/b", "/lib is not a directory"}},
		{"directories that agree", []Entry{dir("/a", 0o755), dir("/a", 0o755)}, nil},
		{"directories that do not", []Entry{dir("/a", 0o755), dir("/a", 0o700)}, []string{"/a", "drwx------", "drwxr-xr-x"}},
		{"mode for an implied directory", []Entry{file("/a/b", "1", "x"), dir("/a", 0o700)}, nil},
		{"relative", []Entry{file("a", "1", "x")}, []string{"clean absolute"}},
		{"not clean", []Entry{file("/a/../b", "1", "x")}, []string{"clean absolute"}},
		{"device", []Entry{{Path: "/dev/null", Mode: fs.ModeDevice, Origin: "x"}}, []string{"/dev/null", "neither file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := treeOf(t, tt.entries[:len(tt.entries)-1]...)
			err := tree.Add(tt.entries[len(tt.entries)-1])
			if len(tt.wrong) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tt.wrong {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

func TestImpliedDirectoryTakesTheModeThatIsGiven(t *testing.T) {
	tree := treeOf(t, file("/root/a", "1", "x"), dir("/root", 0o700))
	if e, _ := tree.Lookup("/root"); e.Mode != fs.ModeDir|0o700 || e.Origin != "directories" {
		t.Errorf("/root is %v from %s", e.Mode, e.Origin)
	}
}

func TestResolveFollowsLinksAsTheKernelDoes(t *testing.T) {
	tree := treeOf(t,
		link("/lib", "usr/lib"),
		file("/usr/lib/x/a", "1", "x"),
		link("/usr/lib/x/b", "a"),
		link("/usr/lib/x/c", "/lib/x/b"),
		link("/usr/lib/x/up", "../../lib/x/a"),
		link("/out", "../../usr/lib/x/a"),
		link("/loop", "loop"),
		link("/dangling", "nowhere"),
	)
	for path, want := range map[string]string{
		"/lib/x/a":        "/usr/lib/x/a",
		"/lib/x/c":        "/usr/lib/x/a",
		"/lib/x/up":       "/usr/lib/x/a",
		"/out":            "/usr/lib/x/a",
		"/lib":            "/usr/lib",
		"/":               "/",
		"/loop":           "too many",
		"/dangling":       "not exist",
		"/usr/lib/x/none": "not exist",
	} {
		e, err := tree.Resolve(path)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", path, err, want)
			}
			continue
		}
		if e.Path != want {
			t.Errorf("%s is %s, want %s", path, e.Path, want)
		}
	}
}
