package rules

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// topLevel is all that may lie there: who looks for something looks into one of these.
var topLevel = []string{
	".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "go.mod", "go.sum", "skerry.lock",
	"boards", "builder", "ci", "docs", "initd", "kernel-config", "overlay", "profiles",
}

func TestTopLevel(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	for file := range strings.Lines(string(out)) {
		if top, _, _ := strings.Cut(strings.TrimSpace(file), "/"); !slices.Contains(topLevel, top) {
			t.Errorf("%s: there is no place for %s at the top level; see README.md, What is where", strings.TrimSpace(file), top)
		}
	}
}
