package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skerryos/skerry/builder/fetch/fetchtest"
	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/builder/profile"
	"github.com/skerryos/skerry/initd/bundle"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"skerry": main})
}

// TestScript runs testdata/script/*.txtar, which read like a terminal. Beyond testscript's own commands there are
//
//	mirror DIR                  serve a folder over HTTP; SKERRY_MIRROR names it
//	mirror down                 name a mirror in SKERRY_MIRROR that refuses connections
//	deb NAME VERSION DIR        put a package with the content of DIR into mirror/pool, and into skerry.lock
//	skb FILE KEY                write a small bundle, signed with a key of the user's store
//
// No script reaches the network or the user's cache.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, ".config"))
			e.Setenv("CI", "")
			// Even a script that forgets to name a mirror must not ask a real one.
			e.Setenv("SKERRY_MIRROR", "http://127.0.0.1:1/debian")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"mirror": mirrorCmd, "deb": debCmd, "skb": skbCmd},
	})
}

func mirrorCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mirror DIR | mirror down")
	}
	dir := ts.MkAbs(args[0])
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	ts.Defer(s.Close)
	if args[0] == "down" {
		s.Close()
	}
	ts.Setenv("SKERRY_MIRROR", s.URL)
}

func skbCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: skb FILE KEY")
	}
	s, err := keys.Open(filepath.Join(ts.Getenv("XDG_CONFIG_HOME"), "skerry", "keys", args[1]+".key"), nil)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	m := bundle.Manifest{Board: "x86-64", Architecture: "amd64", Version: "1.2.3"}
	sources := []bundle.Source{{Name: bundle.RootArtefact, Size: 4, Content: strings.NewReader("root")}}
	_, err = bundle.Create(f, m, sources, func(manifest []byte) ([]byte, error) { return s.Sign(manifest, "test") })
	ts.Check(err)
	ts.Check(f.Close())
}

func debCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: deb NAME VERSION DIR")
	}
	name, version, dir := args[0], args[1], ts.MkAbs(args[2])
	var members []fetchtest.Member
	ts.Check(filepath.WalkDir(dir, func(file string, d os.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		m := fetchtest.Member{Name: "./" + filepath.ToSlash(rel), Dir: d.IsDir()}
		if !m.Dir {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			m.Content = string(data)
		}
		members = append(members, m)
		return nil
	}))
	data, err := fetchtest.Deb(name, version, "amd64", "xz", members...)
	ts.Check(err)
	p := profile.LockedPackage{Name: name, Version: version, Architecture: "amd64", Path: "pool/" + name + ".deb", Size: int64(len(data))}
	sum := sha256.Sum256(data)
	p.SHA256 = hex.EncodeToString(sum[:])
	if strings.HasPrefix(name, "linux-image-") {
		p.For = "linux-image-amd64"
	}
	ts.Check(os.MkdirAll(ts.MkAbs("mirror/pool"), 0o700))
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs("mirror"), filepath.FromSlash(p.Path)), data, 0o600))

	file := ts.MkAbs("skerry.lock")
	lock := &profile.Lock{Archive: profile.Archive{Suite: suite, Components: components, Date: time.Unix(1795252544, 0).UTC().Format(time.RFC3339)}}
	if _, err := os.Stat(file); err == nil {
		lock, err = profile.ReadLock(file)
		ts.Check(err)
	}
	lock.Packages = append(lock.Packages, p)
	ts.Check(lock.Write(file))
	fmt.Fprintf(ts.Stdout(), "%s is locked\n", name)
}
