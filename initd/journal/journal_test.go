package journal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/initd/journal"
)

func open(t *testing.T, limit int) (*journal.Journal, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	j, err := journal.New(dir, limit, func() time.Duration { return 1500 * time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	return j, dir
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEachLineHasItsTimeOnce(t *testing.T) {
	j, dir := open(t, 1<<20)
	w := j.Writer("kubelet")
	for _, part := range []string{"one\ntw", "o\n", "", "three\n"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", part, n, err)
		}
	}
	want := "[    1.500000] one\n[    1.500000] two\n[    1.500000] three\n"
	if got := content(t, filepath.Join(dir, "kubelet.log")); got != want {
		t.Errorf("log is\n%swant\n%s", got, want)
	}
}

func TestLastLinesAreKeptWithinTheLimit(t *testing.T) {
	const limit = 1000
	j, dir := open(t, limit)
	for range 100 {
		j.Writer("loud").Write([]byte("a line that repeats\n"))
	}
	j.Writer("loud").Write([]byte("the last one\n"))
	now, before := content(t, filepath.Join(dir, "loud.log")), content(t, filepath.Join(dir, "loud.log.1"))
	if !strings.HasSuffix(now, "the last one\n") {
		t.Errorf("the last line is missing from %q", now)
	}
	if len(now) > limit || len(before) > limit {
		t.Errorf("files have %d and %d bytes, want at most %d", len(now), len(before), limit)
	}
	if len(now)+len(before) < limit/2 {
		t.Errorf("only %d bytes are kept of a limit of %d for each file", len(now)+len(before), limit)
	}
}

func TestSave(t *testing.T) {
	j, _ := open(t, 1<<20)
	j.Writer("a").Write([]byte("x\n"))
	j.Writer("b").Write([]byte("y\n"))
	dir := filepath.Join(t.TempDir(), "saved")
	if err := j.Save(dir); err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{"a.log": "x\n", "b.log": "y\n"} {
		if got := content(t, filepath.Join(dir, name)); !strings.HasSuffix(got, line) {
			t.Errorf("%s is %q, want the line %q", name, got, line)
		}
	}
}
