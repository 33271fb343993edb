package agent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	bootstrap "k8s.io/cluster-bootstrap/token/jws"

	"github.com/skerryos/skerry/initd/cluster/kubeconfig"
	"github.com/skerryos/skerry/initd/cluster/pki"
	"github.com/skerryos/skerry/initd/cluster/token"
)

// authority makes a cluster's authorities and returns the one of servers in PEM, with a certificate of it for 127.0.0.1.
func authority(t *testing.T) ([]byte, tls.Certificate) {
	t.Helper()
	store := pki.Store{Dir: t.TempDir(), Now: time.Now}
	leaf := pki.Leaf{Name: "serving", CA: pki.ServerCA, CN: "server", Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	if err := store.Init(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Ensure(leaf); err != nil {
		t.Fatal(err)
	}
	path, _ := store.Path(pki.ServerCA)
	ca, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(store.Files(leaf))
	if err != nil {
		t.Fatal(err)
	}
	return ca, cert
}

// serve answers as the API server of a cluster, whose cluster-info is signed with signer, and returns its URL.
func serve(t *testing.T, ca []byte, cert tls.Certificate, signer token.Token) string {
	t.Helper()
	content := string(kubeconfig.Config{Server: "https://192.0.2.1:6443", CAData: ca}.Marshal())
	id, secret := signer.Bootstrap()
	signature, err := bootstrap.ComputeDetachedSignature(content, id, secret)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/kube-public/configmaps/cluster-info" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(core.ConfigMap{Data: map[string]string{"kubeconfig": content, "jws-kubeconfig-" + id: signature}}) // the client may be gone
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

func TestServerMoved(t *testing.T) {
	ours, oursCert := authority(t)
	other, otherCert := authority(t)
	short := token.Token{Secret: "hello"}
	away := httptest.NewTLSServer(http.NotFoundHandler())
	away.Close()
	tests := []struct {
		name      string
		url       string
		token     token.Token
		moved     bool
		objection string
	}{
		{"the same cluster", serve(t, ours, oursCert, short), short, false, ""},
		{"the same cluster, full token", serve(t, ours, oursCert, short), short.Full(ours), false, ""},
		{"a new cluster with the same token", serve(t, other, otherCert, short), short, true, ""},
		{"a new cluster, and a token that names the old one", serve(t, other, otherCert, short), short.Full(ours), false, "the token names"},
		{"another cluster, with another token", serve(t, other, otherCert, token.Token{Secret: "other"}), short, false, "the server has not signed its cluster-info with this token"},
		{"no answer", away.URL, short, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := membership{dir: t.TempDir(), url: tt.url, token: tt.token}
			if err := os.WriteFile(m.path("server-ca.crt"), ours, 0o600); err != nil {
				t.Fatal(err)
			}
			moved, _, err := m.serverMoved(t.Context())
			if moved != tt.moved || (err != nil) != (tt.objection != "") || err != nil && !strings.Contains(err.Error(), tt.objection) {
				t.Errorf("got %v, %v; want %v, %q", moved, err, tt.moved, tt.objection)
			}
		})
	}
}

// A node that follows its server to a new cluster has nothing left of the old one that would keep it from joining.
func TestFollow(t *testing.T) {
	ours, _ := authority(t)
	other, otherCert := authority(t)
	short := token.Token{Secret: "hello"}
	m := membership{dir: t.TempDir(), url: serve(t, other, otherCert, short), token: short}
	for _, name := range []string{"server-ca.crt", "kubelet.kubeconfig", "cluster.json"} {
		if err := os.WriteFile(m.path(name), ours, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.follow(t.Context(), func(string, ...any) {}); !errors.Is(err, errNewCluster) {
		t.Errorf("it ended with %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(m.dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left of the old cluster: %q, %v", left, err)
	}
	ca, err := m.authority(t.Context(), func(string, ...any) {})
	if err != nil || string(ca) != string(other) {
		t.Errorf("then it believes\n%s\n%v; want the new cluster's\n%s", ca, err, other)
	}
}
