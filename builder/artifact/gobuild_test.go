package artifact

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/artifact/artifacttest"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
)

// started counts the tasks that a builder begins.
type started struct {
	progress.Reporter
	tasks *[]string
}

func (s started) Start(what string, total int64) progress.Task {
	*s.tasks = append(*s.tasks, what)
	return s.Reporter.Start(what, total)
}

func TestProgramsAreBuiltOnce(t *testing.T) {
	b, p := testBuilder(t)
	var tasks []string
	programs := func() map[string]Content {
		t.Helper()
		tasks = nil
		// A new builder each time, as in a new process.
		n := &Builder{Source: b.Source, Store: b.Store, Packages: b.Packages, Progress: started{progress.Discard, &tasks}}
		out, err := n.Programs(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := programs()
	if len(tasks) != 1 {
		t.Fatalf("first build ran %v", tasks)
	}
	if programs(); len(tasks) != 0 {
		t.Errorf("nothing changed, but %v ran", tasks)
	}
	binary := filepath.Join(b.Store.dir, "programs", "amd64", "init")
	if err := os.Truncate(binary, 100); err != nil {
		t.Fatal(err)
	}
	if again := programs(); len(tasks) != 1 || again["init"].SHA256 != first["init"].SHA256 {
		t.Errorf("a damaged program was not mended: %v ran", tasks)
	}
	// Two at once, as a power cut damages them, and with no record of what they were: the build ID in them says nothing.
	for _, name := range []string{"init", "pause"} {
		f, err := os.OpenFile(filepath.Join(filepath.Dir(binary), name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 4096), info.Size()-4096); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := os.Remove(filepath.Join(filepath.Dir(binary), "record.json")); err != nil {
		t.Fatal(err)
	}
	if again := programs(); again["init"].SHA256 != first["init"].SHA256 || again["pause"].SHA256 != first["pause"].SHA256 {
		t.Error("damaged programs were taken for good ones")
	}
	// A change of one program leaves the other one as it is.
	pause := filepath.Join(b.Store.dir, "programs", "amd64", "pause")
	before, err := os.Stat(pause)
	if err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(b.Source, "initd", "cmd", "init", "main.go")
	if err := os.WriteFile(main, []byte("package main\n\nfunc main() { println(\"other\") }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed := programs(); changed["init"].SHA256 == first["init"].SHA256 || changed["pause"].SHA256 != first["pause"].SHA256 {
		t.Error("the change of init did not change init alone")
	}
	// The linker's output takes the place of the old file; the Go command only sets the time of one that is up to date.
	if after, err := os.Stat(pause); err != nil || !os.SameFile(before, after) {
		t.Errorf("pause was linked again (%v)", err)
	}
	p.Version = "9.9.9"
	if programs(); len(tasks) != 1 {
		t.Error("a new version did not relink")
	}
}

func TestProgramsIgnoreTheUsersFlagsAndFolder(t *testing.T) {
	var sums []string
	for _, flags := range []string{"", "-tags=other -gcflags=-N"} {
		t.Setenv("GOFLAGS", flags)
		t.Setenv("CGO_ENABLED", map[bool]string{true: "0", false: "1"}[flags == ""])
		b, p := testBuilder(t)
		programs, err := b.Programs(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, programs["init"].SHA256+programs["pause"].SHA256)
		out, err := exec.CommandContext(t.Context(), filepath.Join(b.Store.dir, "programs", "amd64", "init")).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "init 1.2.3" {
			t.Errorf("init says %q (%v), want its version", out, err)
		}
	}
	if sums[0] != sums[1] {
		t.Error("flags or folder of the user changed the programs")
	}
}

func TestSourceDigestSeesWhatIsCompiled(t *testing.T) {
	root := artifacttest.Repository(t)
	digest := func() string {
		d, err := sourceDigest(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	write := func(name, text string) {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	last := digest()
	for _, tt := range []struct {
		file    string
		changes bool
	}{
		{"initd/cmd/init/main.go", true},
		{"initd/cluster/addons/manifests/dns.yaml", true}, // embedded
		{"go.sum", true},
		{"builder/plan/plan.go", false},
		{"README.md", false},
		{"initd/cmd/init/main_test.go", false},
		{"docs/decisions/1.txt", false},
		{".git/HEAD", false},
		{"out/" + outputMark, false},
		{"out/skerry.img", false},
	} {
		write(tt.file, "package changed")
		now := digest()
		if (now != last) != tt.changes {
			t.Errorf("%s: digest changes: %v, want %v", tt.file, now != last, tt.changes)
		}
		last = now
	}
}

func TestLinkFlagsTakeTheKubernetesVersionFromTheModule(t *testing.T) {
	dir := t.TempDir()
	p := &plan.Plan{Version: "1.2.3", SourceDate: 1764000000}
	for mod, want := range map[string]string{
		"module x\n\nrequire k8s.io/kubernetes v1.40.5\n": "-X k8s.io/component-base/version.gitVersion=v1.40.5+skerry.1 " +
			"-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=40 " +
			"-X k8s.io/component-base/version.gitTreeState=clean -X k8s.io/component-base/version.buildDate=2025-11-24T16:00:00Z",
		"module x\n": "-s -w -X github.com/skerryos/skerry/initd/version.Version=1.2.3",
	} {
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := LinkFlags(dir, p)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("flags are %s (%v), want %s", got, err, want)
		}
	}
}
