package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/initd/network/discovery"
	"github.com/skerryos/skerry/initd/network/discovery/discoverytest"
)

// skerryNodeList executes "skerry node list" with the arguments.
func skerryNodeList(t *testing.T, args ...string) (stdout, stderr string, err error) {
	var out, complaints bytes.Buffer
	c := root()
	c.SetArgs(append([]string{"node", "list"}, args...))
	c.SetOut(&out)
	c.SetErr(&complaints)
	err = c.ExecuteContext(t.Context())
	return out.String(), complaints.String(), err
}

func TestNodeList(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("HOME", home)
	t.Setenv(contexts.Variable, "")
	defer func(f func() (discovery.Network, error)) { openNetwork = f }(openNetwork)

	synctest.Test(t, func(t *testing.T) {
		bus := discoverytest.NewBus()
		openNetwork = func() (discovery.Network, error) {
			m := discoverytest.NewMachine("workstation", discovery.Port)
			m.Plug(bus, 2, "192.0.2.50/24")
			return m, nil
		}
		stdout, stderr, err := skerryNodeList(t)
		if err != nil || stdout != "" || !strings.HasPrefix(stderr, "skerry: note: no device has answered within 3s. ") {
			t.Errorf("in an empty network: %q, %q, %v", stdout, stderr, err)
		}
		if stdout, stderr, err = skerryNodeList(t, "--json"); err != nil || stdout != "{\"devices\":[]}\n" || stderr != "" {
			t.Errorf("in an empty network: %q, %q, %v", stdout, stderr, err)
		}
		for _, s := range []discovery.State{
			{Hostname: "edge", ID: discovery.PublicID("0123"), Version: "1.0.0", Board: "x86-64", Slot: "a", Phase: "ready", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}},
			{Hostname: "bay", ID: discovery.PublicID("4567"), Version: "1.1.0", Board: "rpi", Slot: "b", Phase: "degraded", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")}},
			{Hostname: "new", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9")}},
		} {
			m := discoverytest.NewMachine(s.Hostname, discovery.Port)
			m.Plug(bus, 2, s.Addresses[0].String()+"/24")
			states := make(chan discovery.State, 1)
			states <- s
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			r := discovery.Responder{Open: func() (discovery.Network, error) { return m, nil }, States: states}
			go func() { done <- r.Run(ctx) }()
			defer func() { cancel(); <-done }()
		}
		time.Sleep(time.Minute)

		// Without a context nobody is known.
		stdout, stderr, err = skerryNodeList(t, "--wait", "2s")
		const want = `NAME  ADDRESS     VERSION  BOARD   SLOT  PHASE     KNOWN
bay   192.0.2.10  1.1.0    rpi     b     degraded  no
edge  192.0.2.7   1.0.0    x86-64  a     ready     no
new   192.0.2.9   -        -       -     -         no
`
		if err != nil || stderr != "" || stdout != want {
			t.Errorf("got\n%s\nwant\n%s\n%s %v", stdout, want, stderr, err)
		}

		store, err := contexts.Default()
		if err != nil {
			t.Fatal(err)
		}
		made, err := store.New("default", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		key := "SHA256:" + strings.Repeat("A", 43)
		lines := "edge.local " + key + "\n192.0.2.99 " + key + " 4567\n"
		if err := os.WriteFile(filepath.Join(made.Dir, "known-devices"), []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, err = skerryNodeList(t)
		known := strings.NewReplacer("ready     no", "ready     yes", "degraded  no", "degraded  yes").Replace(want)
		if err != nil || stderr != "" || stdout != known {
			t.Errorf("got\n%s\nwant\n%s\n%s %v", stdout, known, stderr, err)
		}
		stdout, _, err = skerryNodeList(t, "--json")
		const wantJSON = `{"devices":[` +
			`{"name":"bay","addresses":["192.0.2.10"],"port":7443,"id":"ec9b8a2d92b219534f30232dbf01c16f","version":"1.1.0","board":"rpi","slot":"b","phase":"degraded","known":true,"knownAs":"192.0.2.99"},` +
			`{"name":"edge","addresses":["192.0.2.7"],"port":7443,"id":"0c591872b35c0bbd050e151a2d59c13c","version":"1.0.0","board":"x86-64","slot":"a","phase":"ready","known":true,"knownAs":"edge.local"},` +
			`{"name":"new","addresses":["192.0.2.9"],"port":7443,"known":false}]}` + "\n"
		if err != nil || stdout != wantJSON {
			t.Errorf("got\n%s\nwant\n%s\n%v", stdout, wantJSON, err)
		}

		for _, test := range []struct{ args, want string }{
			{"--wait 0s", "give --wait a duration such as 3s"},
			{"--wait soon", `invalid argument "soon"`},
			{"--context lab", `there is no context "lab"`},
		} {
			if _, _, err := skerryNodeList(t, strings.Fields(test.args)...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: error %v, want one with %q", test.args, err, test.want)
			}
		}
	})
}
