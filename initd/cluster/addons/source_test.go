package addons

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestList(t *testing.T) {
	for name, c := range map[string]struct {
		files    []string
		disable  string
		want     string
		problems string
	}{
		"built in":             {want: "coredns local-storage metrics-server"},
		"disabled":             {disable: "local-storage coredns", want: "metrics-server"},
		"skipped":              {files: []string{"metrics-server.yaml.skip"}, want: "coredns local-storage"},
		"own, by path":         {files: []string{"z.yaml", "b/a.yml", "b/c.json", "notes.txt"}, want: "coredns local-storage metrics-server b/a.yml b/c.json z.yaml"},
		"own, disabled":        {files: []string{"a.yaml", "b.yaml"}, disable: "a", want: "coredns local-storage metrics-server b.yaml"},
		"own, skipped":         {files: []string{"a.yaml", "a.yaml.skip", "b.yaml"}, want: "coredns local-storage metrics-server b.yaml"},
		"own replaces builtin": {files: []string{"coredns.yaml"}, want: "coredns.yaml local-storage metrics-server"},
		"hidden":               {files: []string{".a.yaml", ".git/b.yaml", "..data/c.yaml"}, want: "coredns local-storage metrics-server"},
		"first dot":            {files: []string{"a.1.yaml"}, disable: "a", want: "coredns local-storage metrics-server"},
		"same name":            {files: []string{"a.yaml", "a.yml"}, want: "coredns local-storage metrics-server a.yaml", problems: "a.yml: a.yaml has the same name"},
		"bad name":             {files: []string{"two words.yaml"}, want: "coredns local-storage metrics-server", problems: "two words.yaml: the file's name"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range c.files {
				write(t, dir, f, "")
			}
			list, err := source{dir: dir, disabled: strings.Fields(c.disable)}.list()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range list.addons {
				if rel, err := filepath.Rel(dir, a.path); err == nil && filepath.IsAbs(a.path) {
					got = append(got, rel)
				} else {
					got = append(got, a.name)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			var problems string
			for _, p := range list.problems {
				problems += strings.ReplaceAll(p.path+": "+p.err.Error(), dir+"/", "")
			}
			if (problems == "") != (c.problems == "") || !strings.HasPrefix(problems, c.problems) {
				t.Errorf("problems are %q, want %q", problems, c.problems)
			}
		})
	}
}

func TestListWithoutDirectory(t *testing.T) {
	if _, err := (source{dir: filepath.Join(t.TempDir(), "gone")}).list(); err == nil {
		t.Error("a directory that is gone was read")
	}
}

func TestListFollowsLinksToFiles(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, elsewhere, "x", "text")
	if err := os.Symlink(filepath.Join(elsewhere, "x"), filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	list, err := source{dir: dir}.list()
	if err != nil || string(list.addons[len(list.addons)-1].text) != "text" {
		t.Errorf("%+v, %v", list.addons, err)
	}
}
