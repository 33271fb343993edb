package server

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/skerryos/skerry/initd/cluster/pki"
	"github.com/skerryos/skerry/initd/cluster/settings"
	"github.com/skerryos/skerry/initd/cluster/token"
)

func newIdentity(t *testing.T, tok string) *identity {
	t.Helper()
	dir := t.TempDir()
	s := &settings.Settings{
		Role: settings.Server, DataDir: filepath.Join(dir, "data"), NodeName: "n1", Token: tok, ServiceCIDR: "10.43.0.0/16", ClusterDomain: "cluster.local",
		BindAddress: "0.0.0.0", HTTPSListenPort: 6443, WriteKubeconfig: filepath.Join(dir, "kubeconfig"), WriteKubeconfigMode: "0600",
		TLSSAN: []string{"cluster.example.com", "203.0.113.9"},
	}
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	return &identity{
		settings: s, paths: pathsOf(s), nodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.5")},
		store: pki.Store{Dir: pathsOf(s).tls, Now: func() time.Time { return now }, Floor: now},
	}
}

func TestIdentity(t *testing.T) {
	id := newIdentity(t, "")
	if err := id.init(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{
		"server/tls/server-ca.crt", "server/tls/service.key", "server/tls/serving-kube-apiserver.crt", "server/cred/encryption-config.json",
		"server/cred/controller.kubeconfig", "server/node-token", "agent/kubelet.kubeconfig", "agent/serving-kubelet.key",
	} {
		info, err := os.Stat(filepath.Join(id.settings.DataDir, f))
		if err != nil {
			t.Error(err)
			continue
		}
		if secret := !strings.HasSuffix(f, ".crt"); secret && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, info.Mode())
		}
	}
	admin, err := clientcmd.LoadFromFile(id.settings.WriteKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if c := admin.Clusters["default"]; c.Server != "https://127.0.0.1:6443" || len(c.CertificateAuthorityData) == 0 {
		t.Errorf("the administrator's kubeconfig cannot be copied to another machine: %+v", c)
	}
	dns, ips := id.serverNames()
	for _, want := range []string{"cluster.example.com", "kubernetes.default.svc.cluster.local", "n1"} {
		if !slices.Contains(dns, want) {
			t.Errorf("the API server is not known as %s: %v", want, dns)
		}
	}
	for _, want := range []string{"192.0.2.5", "10.43.0.1", "127.0.0.1", "203.0.113.9"} {
		if !slices.Contains(ips, netip.MustParseAddr(want)) {
			t.Errorf("the API server is not known as %s: %v", want, ips)
		}
	}
	// A second start changes nothing.
	before := snapshot(t, id.settings.DataDir)
	if err := id.init(); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, id.settings.DataDir); after != before {
		t.Errorf("a second start changed files:\n%s\nwas\n%s", after, before)
	}
}

// snapshot lists all files below dir with the times of their last change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b.WriteString(path + " " + info.ModTime().String() + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestToken(t *testing.T) {
	read := func(id *identity) token.Token {
		b, err := os.ReadFile(id.paths.token)
		if err != nil {
			t.Fatal(err)
		}
		tok, err := token.Parse(string(b))
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	t.Run("generated once", func(t *testing.T) {
		id := newIdentity(t, "")
		if err := id.init(); err != nil {
			t.Fatal(err)
		}
		first := read(id)
		if err := id.init(); err != nil {
			t.Fatal(err)
		}
		if again := read(id); again != first || first.CAHash == "" {
			t.Errorf("token %v, then %v", first, again)
		}
	})
	t.Run("configured", func(t *testing.T) {
		id := newIdentity(t, "hello")
		if err := id.init(); err != nil {
			t.Fatal(err)
		}
		if tok := read(id); tok.Secret != "hello" || tok.User != "server" {
			t.Errorf("token %v", tok)
		}
	})
	t.Run("configured anew", func(t *testing.T) {
		id := newIdentity(t, "")
		if err := id.init(); err != nil {
			t.Fatal(err)
		}
		id.settings.Token = "second"
		if err := id.init(); err != nil {
			t.Fatal(err)
		}
		if tok := read(id); tok.Secret != "second" {
			t.Errorf("token %v", tok)
		}
	})
	t.Run("of another cluster", func(t *testing.T) {
		id := newIdentity(t, "K10"+strings.Repeat("ab", 32)+"::server:x")
		if err := id.init(); err == nil || !strings.Contains(err.Error(), "another cluster") {
			t.Errorf("error %v", err)
		}
	})
}

func TestAddressChangeIssuesAnew(t *testing.T) {
	id := newIdentity(t, "")
	if err := id.init(); err != nil {
		t.Fatal(err)
	}
	id.nodeIPs = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	done, err := id.store.Ensure(id.leaves()...)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range done {
		names = append(names, r.Leaf.Name+": "+r.Reason)
	}
	if got := strings.Join(names, ", "); got != "serving-kube-apiserver: names changed, serving-kubelet: names changed" {
		t.Errorf("issued %s", got)
	}
}
