package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/initd/api"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// The device's own routes, behind a server of the tests: the client asks for each of them what it answers.

// upgrades is a device that takes every bundle and forgets it.
type upgrades struct {
	mu   sync.Mutex
	body []byte
	from int
}

func (u *upgrades) Describe(s *v1.State) error {
	s.MachineID = "0123456789abcdef0123456789abcdef"
	s.Update = &v1.Update{State: "written", Target: "b"}
	return nil
}

func (u *upgrades) Upload(_ context.Context, body io.Reader, from int, _ bool) error {
	data, err := io.ReadAll(body)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.body, u.from = data, from
	return err
}

func (*upgrades) Try() error            { return nil }
func (*upgrades) Fetch() error          { return nil }
func (*upgrades) Commit() error         { return nil }
func (*upgrades) Rollback(string) error { return nil }

type snapshots struct{}

func (snapshots) List() ([]v1.Snapshot, error) { return []v1.Snapshot{{Name: "one"}}, nil }
func (snapshots) Create(context.Context) (v1.Snapshot, error) {
	return v1.Snapshot{Name: "two"}, nil
}
func (snapshots) Restore(string) error { return nil }

// serveAPI is the device API with files of its own.
func serveAPI(t *testing.T, c contexts.Context, u *upgrades) (address string, asked func() map[string]bool) {
	t.Helper()
	root := t.TempDir()
	state, err := json.Marshal(v1.State{Version: "1.0.0", Board: "x86-64", Slot: "a", Phase: v1.Ready})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		v1.StatePath: string(state), v1.TimelinePath: `{"steps":[]}`, v1.KubeconfigPath: "kind: Config", v1.TokenPath: "secret", v1.LogDir + "/init.log": "a line\n",
		"/proc/meminfo": "MemTotal: 4 kB\nMemAvailable: 2 kB\nAnonPages: 1 kB\n", "/sys/block/vda/stat": "1 0 8 0 1 0 16 0 0 0 0\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func() error { return nil }
	device := api.New(api.Options{
		Root: root, Reboot: nothing, PowerOff: nothing, Reset: func(string) error { return nil }, Upgrades: u, Snapshots: snapshots{},
	})
	var mu sync.Mutex
	seen := map[string]bool{}
	patterns := http.NewServeMux()
	for _, r := range api.Routes() {
		patterns.Handle(r.Method+" "+r.Path, device)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := patterns.Handler(r)
		mu.Lock()
		seen[pattern] = true
		mu.Unlock()
		device.ServeHTTP(w, r)
	}))
	pool := x509.NewCertPool()
	text, err := os.ReadFile(c.AuthorityFile())
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatalf("authority: %v", err)
	}
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://"), func() map[string]bool {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(seen)
	}
}

func TestEveryRouteOfTheDevice(t *testing.T) {
	c, u := newContext(t), &upgrades{}
	address, asked := serveAPI(t, c, u)
	n, err := Dial(t.Context(), address, c, Options{Clock: &hasty{time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, b := t.Context(), newBundle(t, "2.0.0", "x86-64")
	only := func(_ any, err error) error { return err }
	for route, ask := range map[string]func() error{
		"GET /v1/status":      func() error { return only(n.Status(ctx)) },
		"GET /v1/timeline":    func() error { return only(n.Timeline(ctx)) },
		"GET /v1/logs/{unit}": func() error { return n.Log(ctx, io.Discard, "init", LogOptions{}) },
		"GET /v1/memory":      func() error { return only(n.Memory(ctx)) },
		"GET /v1/disk":        func() error { return only(n.Disk(ctx)) },
		"GET /v1/kubeconfig":  func() error { return only(n.Kubeconfig(ctx)) },
		"GET /v1/token":       func() error { return only(n.Token(ctx)) },
		"POST /v1/upgrade": func() error {
			return only(n.Upgrade(ctx, bytes.NewReader(b.data), int64(len(b.data)), UpgradeOptions{NoTry: true}))
		},
		"POST /v1/try":                      func() error { return only(n.Try(ctx)) },
		"POST /v1/fetch":                    func() error { return only(n.Fetch(ctx)) },
		"POST /v1/commit":                   func() error { return only(n.Commit(ctx)) },
		"POST /v1/rollback":                 func() error { return only(n.Rollback(ctx, "why")) },
		"POST /v1/reboot":                   func() error { return only(n.Reboot(ctx)) },
		"POST /v1/poweroff":                 func() error { return only(n.PowerOff(ctx)) },
		"POST /v1/reset":                    func() error { return only(n.Reset(ctx, v1.ResetData)) },
		"GET /v1/snapshots":                 func() error { return only(n.Snapshots(ctx)) },
		"POST /v1/snapshots":                func() error { return only(n.CreateSnapshot(ctx)) },
		"POST /v1/snapshots/{name}/restore": func() error { return only(n.RestoreSnapshot(ctx, "one")) },
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", route, err)
		}
		if !asked()[route] {
			t.Errorf("%s was not asked for", route)
		}
	}
	for _, r := range api.Routes() {
		if pattern := r.Method + " " + r.Path; !asked()[pattern] && r.Path != "/v1/openapi.json" {
			t.Errorf("there is no method for %s", pattern)
		}
	}
	if !bytes.Equal(u.body, b.data) || u.from != 0 {
		t.Errorf("the bundle came as %d bytes from chunk %d", len(u.body), u.from)
	}
}
