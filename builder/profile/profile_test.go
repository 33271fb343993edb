package profile

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write what is found into the golden files")

// TestGolden reads the files of each testdata archive and compares what comes out of them, value or mistakes, with the
// archive's file want.
func TestGolden(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, first, want := t.TempDir(), "", -1
			for i, f := range archive.Files {
				if f.Name == "want" {
					want = i
					continue
				}
				if first == "" {
					first = f.Name
				}
				if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got := strings.ReplaceAll(read(t, filepath.Join(dir, first)), dir+string(filepath.Separator), "")
			if *update {
				if want < 0 {
					archive.Files = append(archive.Files, txtar.File{Name: "want"})
					want = len(archive.Files) - 1
				}
				archive.Files[want].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want < 0 {
				t.Fatal("the archive has no file want; write it with -update")
			}
			if string(archive.Files[want].Data) != got {
				t.Errorf("got:\n%s\nwant:\n%s", got, archive.Files[want].Data)
			}
		})
	}
}

// read reads a file by its kind and returns the value as YAML, or the error's text.
func read(t *testing.T, file string) string {
	t.Helper()
	var value any
	var err error
	switch name := filepath.Base(file); {
	case strings.HasPrefix(name, "board"):
		value, err = ReadBoard(file)
	case strings.HasPrefix(name, "skerry.lock"):
		value, err = ReadLock(file)
	default:
		value, err = ReadProfile(file)
	}
	if err != nil {
		return err.Error() + "\n"
	}
	out, err := yaml.Dump(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestPositions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(file, []byte("version: 1.0.0\nlinks:\n  - {path: /a, target: b, reason: c}\n  - path: /d\n    target: e\n    reason: f\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := ReadProfile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Position{{file, 3, 5}, {file, 4, 5}} {
		if got := p.Links[i].Position; got != want {
			t.Errorf("position of link %d: got %v, want %v", i, got, want)
		}
	}
}

func TestMissingFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadLock(filepath.Join(dir, "skerry.lock")); err == nil || !strings.Contains(err.Error(), "skerry lock --update") {
		t.Errorf("a missing lock must name the remedy, got: %v", err)
	}
	if _, err := ReadProfile(filepath.Join(dir, "p.yaml")); err == nil || !strings.Contains(err.Error(), "cannot read profile") {
		t.Errorf("missing profile: got: %v", err)
	}
	if _, err := ReadBoard(filepath.Join(dir, "b.yaml")); err == nil || !strings.Contains(err.Error(), "cannot read board") {
		t.Errorf("missing board: got: %v", err)
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"usr/sbin/nft", "usr/sbin/nft", true},
		{"usr/sbin/nft", "usr/sbin/nft2", false},
		{"usr/sbin/nft", "usr/sbin", false},
		{"usr/lib/*/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6", true},
		{"usr/lib/*/libc.so.6", "usr/lib/libc.so.6", false},
		{"usr/lib/*/libc.so.6", "usr/lib/a/b/libc.so.6", false},
		{"usr/lib/**/libc.so.6", "usr/lib/libc.so.6", true},
		{"usr/lib/**/libc.so.6", "usr/lib/a/b/libc.so.6", true},
		{"usr/lib/**", "usr/lib/a/b", true},
		{"usr/lib/**", "usr/lib", false},
		{"**/copyright", "usr/share/doc/x/copyright", true},
		{"usr/[", "usr/[", false},
	} {
		if got := MatchPattern(c.pattern, c.name); got != c.want {
			t.Errorf("MatchPattern(%q, %q) = %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
	for pattern, good := range map[string]bool{
		"usr/sbin/nft": true, "usr/**": true, "**/x": true, "usr/lib*/x": true,
		"": false, "/usr": false, "usr/": false, "usr/../etc": false, "../x": false, "usr/a**": false, "usr/[": false,
	} {
		if err := CheckPattern(pattern); (err == nil) != good {
			t.Errorf("CheckPattern(%q) = %v, want good: %v", pattern, err, good)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"1KiB": 1 << 10, "512MiB": 512 << 20, "1GiB": 1 << 30, "9999999GiB": 9999999 << 30} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0MiB", "512", "512MB", "512 MiB", "-1MiB", "1.5GiB", "10000000GiB"} {
		var got Size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was accepted as %d", text, got)
		}
	}
}

func TestLockRoundTrip(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	l := &Lock{
		Archive: Archive{Suite: "trixie", Components: []string{"main"}, Date: "2026-11-21T09:15:44Z", InRelease: sum},
		Packages: []LockedPackage{
			{Name: "z", Version: "1:2-3", Architecture: "arm64", Path: "pool/z.deb", SHA256: sum, Size: 1},
			{Name: "linux-image-6-amd64", Version: "1", Architecture: "amd64", Path: "pool/l.deb", SHA256: sum, Size: 2, For: "linux-image-amd64"},
			{Name: "z", Version: "1:2-3", Architecture: "amd64", Path: "pool/z.deb", SHA256: sum, Size: 1},
		},
	}
	file := filepath.Join(t.TempDir(), "skerry.lock")
	if err := l.Write(file); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLock(file)
	if err != nil {
		t.Fatal(err)
	}
	first, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	second, err := got.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("the lock changed on its way through a file:\n%s\n%s", first, second)
	}
	if p := got.Package("linux-image-amd64", "amd64"); p == nil || p.Name != "linux-image-6-amd64" {
		t.Errorf("linux-image-amd64 was not followed: %v", p)
	}
	if p := got.Package("z", "arm64"); p == nil || p.Architecture != "arm64" {
		t.Errorf("z for arm64: got %v", p)
	}
	if p := got.Package("z", "armhf"); p != nil {
		t.Errorf("z for armhf: got %v, want none", p)
	}
}
