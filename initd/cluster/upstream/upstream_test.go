package upstream

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRename(t *testing.T) {
	tests := []struct {
		name, in, want string
		main           bool
		err            string
	}{
		{"function main", "// Licence\npackage main // c\n\nfunc main() { run() }\n", "// Licence\npackage x // c\n\nfunc Main() { run() }\n", true, ""},
		{"method and variable main stay", "package main\n\nfunc (t T) main() {}\n\nvar a = main2\n", "package x\n\nfunc (t T) main() {}\n\nvar a = main2\n", false, ""},
		{"text is replaced", "package main\n\nvar a = pkg.Const\n", "package x\n\nvar a = 1\n", false, ""},
		{"another package", "package other\n", "", false, "not package main"},
		{"no Go", "hello", "", false, "expected 'package'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, main, err := rename([]byte(tt.in), "x", []string{"pkg.Const", "1"})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || string(got) != tt.want || main != tt.main {
				t.Errorf("got %q, main %v, %v", got, main, err)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	module := t.TempDir()
	for _, s := range Sources {
		dir := filepath.Join(module, s.Dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{"a.go": "package main\n\nfunc main() {}\n", "a_test.go": "package main\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	out := t.TempDir()
	path, err := Write("/repo", out, func(string) (string, error) { return module, nil })
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(b, &overlay); err != nil {
		t.Fatal(err)
	}
	if len(overlay.Replace) != 2*len(Sources) {
		t.Errorf("%d files replaced, want %d", len(overlay.Replace), 2*len(Sources))
	}
	if got := overlay.Replace["/repo/initd/cluster/upstream/bridge/absent.go"]; got != "" {
		t.Errorf("absent.go is replaced by %q, it must go", got)
	}
	copied, err := os.ReadFile(overlay.Replace["/repo/initd/cluster/upstream/bridge/a.go"])
	if err != nil || string(copied) != "package bridge\n\nfunc Main() {}\n" {
		t.Errorf("copy is %q, %v", copied, err)
	}
	if err := os.Remove(filepath.Join(module, "plugins/main/bridge/a.go")); err != nil {
		t.Fatal(err)
	}
	if _, err := Write("/repo", out, func(string) (string, error) { return module, nil }); err == nil {
		t.Error("a module without a function main was taken")
	}
}
