package fetch

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/fetch/fetchtest"
)

// writeDeb puts a package into a file.
func writeDeb(t *testing.T, compression string, members ...fetchtest.Member) string {
	t.Helper()
	data, err := fetchtest.Deb("hello", "1.0", "amd64", compression, members...)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hello.deb")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// listDeb describes each member in a line.
func listDeb(file string) (string, error) {
	var b strings.Builder
	err := WalkDeb(file, func(h *tar.Header, r io.Reader) error {
		content, err := io.ReadAll(r)
		fmt.Fprintf(&b, "%c %s", h.Typeflag, h.Name)
		if h.Linkname != "" {
			fmt.Fprintf(&b, " -> %s", h.Linkname)
		}
		fmt.Fprintf(&b, " %q\n", content)
		return err
	})
	return b.String(), err
}

func TestWalkDeb(t *testing.T) {
	want := `5 usr ""
5 usr/bin ""
0 usr/bin/hello "content"
2 usr/bin/hi -> hello ""
1 usr/bin/hey -> usr/bin/hello ""
`
	for _, compression := range []string{"xz", "zst", "gz", ""} {
		t.Run("tar."+compression, func(t *testing.T) {
			got, err := listDeb(writeDeb(t, compression,
				fetchtest.Member{Name: "./", Dir: true},
				fetchtest.Member{Name: "./usr/", Dir: true},
				fetchtest.Member{Name: "./usr/bin/", Dir: true},
				fetchtest.Member{Name: "./usr/bin/hello", Content: "content"},
				fetchtest.Member{Name: "./usr/bin/hi", Link: "hello"},
				fetchtest.Member{Name: "./usr/bin/hey", HardLink: "./usr/bin/hello"},
			))
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

func TestWalkDebRefusesEscapes(t *testing.T) {
	for _, m := range []fetchtest.Member{
		{Name: "/etc/passwd", Content: "x"},
		{Name: "../x", Content: "x"},
		{Name: "..", Dir: true},
		{Name: "./usr/../../x", Content: "x"},
		{Name: "./ok", HardLink: "../../etc/passwd"},
	} {
		got, err := listDeb(writeDeb(t, "gz", m))
		if err == nil || got != "" {
			t.Errorf("member %+v: visited %q, error %v; want an error before it is visited", m, got, err)
		}
	}
}

func TestWalkDebEndsEarly(t *testing.T) {
	file := writeDeb(t, "xz", fetchtest.Member{Name: "./a", Content: "a"}, fetchtest.Member{Name: "./b", Content: "b"})
	for _, c := range []struct {
		name     string
		give     error
		want     error
		visitors int
	}{
		{"skip", ErrSkipRest, nil, 1},
		{"wrapped skip", fmt.Errorf("found: %w", ErrSkipRest), nil, 1},
		{"failure", io.ErrShortWrite, io.ErrShortWrite, 1},
		{"none", nil, nil, 2},
	} {
		visited := 0
		err := WalkDeb(file, func(*tar.Header, io.Reader) error { visited++; return c.give })
		if !errors.Is(err, c.want) || (err != nil) != (c.want != nil) || visited != c.visitors {
			t.Errorf("%s: error %v after %d members, want %v after %d", c.name, err, visited, c.want, c.visitors)
		}
	}
}

func TestWalkDebDamaged(t *testing.T) {
	good, err := os.ReadFile(writeDeb(t, "xz", fetchtest.Member{Name: "./a", Content: strings.Repeat("a", 1<<16)}))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":     {},
		"no ar":     []byte("hello, world, this is not a package at all"),
		"cut":       good[:len(good)-len(good)/4],
		"no header": good[8:],
	} {
		file := filepath.Join(t.TempDir(), "x.deb")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listDeb(file); err == nil {
			t.Errorf("%s: a damaged package was read without an error", name)
		} else if !strings.Contains(err.Error(), file) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
	}
}
