package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/fetch/fetchtest"
	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/builder/node/nodetest"
	"github.com/skerryos/skerry/builder/profile"
	"github.com/skerryos/skerry/initd/bundle"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"skerry": func() {
		nodeClock = hurry{}
		main()
	}})
}

// hurry is a clock on which all waiting takes no time.
type hurry struct{}

func (hurry) Now() time.Time                                   { return time.Now() }
func (hurry) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// TestScript runs testdata/script/*.txtar, which read like a terminal. Beyond testscript's own commands there are
//
//	mirror DIR                  serve a folder over HTTP; SKERRY_MIRROR names it
//	mirror down                 name a mirror in SKERRY_MIRROR that refuses connections
//	deb NAME VERSION DIR        put a package with the content of DIR into mirror/pool, and into skerry.lock
//	skb FILE KEY                write a small bundle, signed with a key of the user's store
//	device NAME [FAULT=VALUE]   switch on a device that admits the current context and trusts all keys; $NAME is its address.
//	                            Faults: away=N, cut=BYTES (repeatable), rollback=REASON; kubeconfig=FILE makes it a server
//	rekey NAME                  the device has another key from now on, and $KEY is its fingerprint
//	did NAME ACTION             the device was asked for a change, such as "reset scope=data"
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
			e.Setenv(contexts.Variable, "")
			e.Values[devicesKey{}] = devices{}
			// Even a script that forgets to name a mirror must not ask a real one.
			e.Setenv("SKERRY_MIRROR", "http://127.0.0.1:1/debian")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"mirror": mirrorCmd, "deb": debCmd, "skb": skbCmd, "device": deviceCmd, "did": didCmd, "rekey": rekeyCmd},
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

// devices are those that a script has switched on, by name; devicesKey is where the script keeps them.
type (
	devices    map[string]*nodetest.Device
	devicesKey struct{}
)

func deviceCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: device NAME [FAULT=VALUE]")
	}
	config := nodetest.Config{Version: "1.0.0", Board: "x86-64"}
	home := filepath.Join(ts.Getenv("XDG_CONFIG_HOME"), "skerry")
	used, err := contexts.Store{Dir: filepath.Join(home, "contexts")}.Current()
	ts.Check(err)
	config.Clients = []byte(ts.ReadFile(filepath.Join(home, "contexts", used, "ca.crt")))
	list, err := keys.Store{Dir: filepath.Join(home, "keys")}.List()
	ts.Check(err)
	for _, k := range list {
		public, err := bundle.ParsePublicKey(k.Public)
		ts.Check(err)
		config.Keys = append(config.Keys, public)
	}
	for _, arg := range args[1:] {
		fault, value, _ := strings.Cut(arg, "=")
		switch fault {
		case "away":
			config.Away, err = strconv.Atoi(value)
		case "cut":
			var n int64
			n, err = strconv.ParseInt(value, 10, 64)
			config.CutAfter = append(config.CutAfter, n)
		case "rollback":
			config.RollBack = value
		case "kubeconfig":
			config.Kubeconfig = ts.ReadFile(value)
		default:
			ts.Fatalf("unknown fault %s", arg)
		}
		ts.Check(err)
	}
	d, err := nodetest.Start(config)
	ts.Check(err)
	ts.Defer(func() { d.Close() })
	ts.Value(devicesKey{}).(devices)[args[0]] = d
	ts.Setenv(args[0], d.Address())
}

func rekeyCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rekey NAME")
	}
	d := findDevice(ts, args[0])
	ts.Check(d.NewKey())
	ts.Setenv("KEY", contexts.Fingerprint(d.Certificate()))
}

func findDevice(ts *testscript.TestScript, name string) *nodetest.Device {
	d := ts.Value(devicesKey{}).(devices)[name]
	if d == nil {
		ts.Fatalf("there is no device %s", name)
	}
	return d
}

func didCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: did NAME ACTION")
	}
	if got := findDevice(ts, args[0]).Actions(); slices.Contains(got, args[1]) == neg {
		ts.Fatalf("device %s was asked for %q", args[0], got)
	}
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
