package fetch

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

func TestMirrors(t *testing.T) {
	locked := time.Date(2026, 11, 21, 9, 15, 44, 0, time.UTC)
	const last = "https://snapshot.debian.org/archive/debian/20261122T091544Z (the locked date, only missing)\n"
	for _, c := range []struct {
		name, flag, variable, apt, want string
	}{
		{name: "flag", flag: "https://a.example.com/debian/", variable: "https://b.example.com/debian", want: "https://a.example.com/debian (--mirror)\n" + last},
		{name: "variable", variable: "http://b.example.com/debian", want: "http://b.example.com/debian (SKERRY_MIRROR)\n" + last},
		{name: "nothing", want: strings.ReplaceAll(last, ", only missing", "")},
		{name: "not a URL", flag: "b.example.com", want: `cannot use the mirror from --mirror: "b.example.com" is not a URL such as https://mirror.example.com/debian`},
		{name: "no host", variable: "https:///debian", want: `cannot use the mirror from SKERRY_MIRROR: "https:///debian" is not a URL such as https://mirror.example.com/debian`},
		{
			name: "one-line format",
			apt: `
-- sources.list --
# deb http://commented.example.com/debian trixie main
deb [arch=amd64 signed-by=/x.gpg] http://one.example.com/debian/ trixie main # remark
deb-src http://source.example.com/debian trixie main
deb cdrom:[Debian]/ trixie main
deb http://one.example.com/debian trixie-updates main
deb http://one.example.com/debian-security trixie-security main
-- sources.list.d/vendor.list --
deb https://vendor.example.com/apt stable main
deb https://two.example.com/debian trixie main
-- sources.list.d/vendor.list.save --
deb https://saved.example.com/debian trixie main
`,
			want: "http://one.example.com/debian (sources.list)\nhttps://two.example.com/debian (sources.list.d/vendor.list)\n" + last,
		},
		{
			name: "deb822 format",
			apt: `
-- sources.list.d/debian.sources --
# a comment
Types: deb deb-src
# a comment between fields
URIs: http://one.example.com/debian
  http://two.example.com/debian
Suites: trixie trixie-updates
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example.com/debian

types: deb-src
uris: http://source.example.com/debian

Types: deb
URIs: http://one.example.com/debian-security
Suites: trixie-security
`,
			want: "http://one.example.com/debian (sources.list.d/debian.sources)\nhttp://two.example.com/debian (sources.list.d/debian.sources)\n" + last,
		},
		{name: "another distribution", apt: "-- sources.list --\ndeb http://archive.example.com/ubuntu noble main\n", want: strings.ReplaceAll(last, ", only missing", "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range txtar.Parse([]byte(c.apt)).Files {
				name := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, f.Data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			getenv := func(name string) string {
				if name == MirrorVariable {
					return c.variable
				}
				return ""
			}
			list, err := Mirrors(c.flag, getenv, dir, locked)
			if err != nil {
				if err.Error() != c.want {
					t.Errorf("got error %v, want %s", err, c.want)
				}
				return
			}
			var b strings.Builder
			for _, m := range list {
				only := ""
				if m.OnlyMissing {
					only = ", only missing"
				}
				fmt.Fprintf(&b, "%s (%s%s)\n", m.URL, strings.TrimPrefix(m.From, dir+string(filepath.Separator)), only)
			}
			if b.String() != c.want {
				t.Errorf("got:\n%swant:\n%s", b.String(), c.want)
			}
		})
	}
}

func TestDefaultDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/cache")
	if dir, err := DefaultDir(); err != nil || dir != filepath.FromSlash("/cache/skerry") {
		t.Errorf("got %q, %v", dir, err)
	}
	t.Setenv("XDG_CACHE_HOME", "relative") // the specification says that it must be ignored
	t.Setenv("HOME", "/home/x")
	if dir, err := DefaultDir(); err == nil && !filepath.IsAbs(dir) {
		t.Errorf("got %q, want an absolute path or an error", dir)
	}
}
