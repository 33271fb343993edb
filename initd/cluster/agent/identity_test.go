package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/certificate/bootstrap"

	"github.com/skerryos/skerry/initd/cluster/kubeconfig"
	"github.com/skerryos/skerry/initd/cluster/pki"
	"github.com/skerryos/skerry/initd/cluster/token"
)

// joined makes the folder of an agent that has joined, at the address https://old:6443, under a name and with a certificate issued at a time. It returns
// the authority of its clients, too.
func joined(t *testing.T, name string, issued time.Time) (membership, *x509.CertPool) {
	t.Helper()
	m := membership{dir: t.TempDir(), name: "pump-3", url: "https://new:6443", token: token.Token{Secret: "hello"}}
	store := pki.Store{Dir: t.TempDir(), Now: func() time.Time { return issued }, Floor: issued}
	leaf := pki.Leaf{Name: "client", CA: pki.ClientCA, CN: "system:node:" + name, Groups: []string{"system:nodes"}, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if err := store.Init(); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Ensure(leaf); err != nil {
		t.Fatal(err)
	}
	crt, key := store.Files(leaf)
	pair := read(t, crt) + read(t, key)
	ca, _ := store.Path(pki.ClientCA)
	old := kubeconfig.Config{Server: "https://old:6443", CAData: []byte(read(t, ca)), CertFile: m.pairPath(), KeyFile: m.pairPath()}
	file := m.path("pki/kubelet-client-2026.pem")
	for path, content := range map[string]string{file: pair, m.path("kubelet.kubeconfig"): string(old.Marshal()), m.path("pod-cidr"): "10.42.7.0/24\n"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(file, m.pairPath()); err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(read(t, ca)))
	return m, clients
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What an agent keeps must be of use to kubelet at the server's address of today, or be gone, so that kubelet asks anew with the token.
func TestSettleIdentity(t *testing.T) {
	now := time.Now()
	ca, _ := authority(t)
	tests := []struct {
		name    string
		was     string
		issued  time.Time
		damage  func(m membership) error
		kept    bool
		podCIDR bool
	}{
		{"another address of the server", "pump-3", now, func(membership) error { return nil }, true, true},
		{"the power went before kubelet wrote its kubeconfig", "pump-3", now, func(m membership) error { return os.Remove(m.path("kubelet.kubeconfig")) }, true, true},
		{"the power went while kubelet wrote its kubeconfig", "pump-3", now, func(m membership) error { return os.Truncate(m.path("kubelet.kubeconfig"), 20) }, true, true},
		{"the power went between two certificates", "pump-3", now, func(m membership) error {
			return os.Rename(m.pairPath(), m.path("pki/kubelet-client-updated.pem"))
		}, true, true},
		{"clock before the certificate", "pump-3", now.AddDate(5, 0, 0), func(membership) error { return nil }, true, true},
		{"renamed", "pump-4", now, func(membership) error { return nil }, false, false},
		{"expired", "pump-3", now.AddDate(-2, 0, 0), func(membership) error { return nil }, false, true},
		{"empty certificate", "pump-3", now, func(m membership) error { return os.Truncate(m.pairPath(), 0) }, false, true},
		{"certificate without its key", "pump-3", now, func(m membership) error {
			return os.WriteFile(m.pairPath(), []byte(strings.SplitAfter(read(t, m.pairPath()), "-----END CERTIFICATE-----\n")[0]), 0o600)
		}, false, true},
		{"no certificate yet", "pump-3", now, func(m membership) error { return os.Remove(m.pairPath()) }, false, true},
		{"nothing yet", "pump-3", now, func(m membership) error {
			return errors.Join(os.RemoveAll(m.path("pki")), os.Remove(m.path("kubelet.kubeconfig")))
		}, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := joined(t, tt.was, tt.issued)
			if err := tt.damage(m); err != nil {
				t.Fatal(err)
			}
			if err := m.writeBootstrap(ca); err != nil {
				t.Fatal(err)
			}
			if err := m.settleIdentity(ca, now); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(m.path("pod-cidr")); (err == nil) != tt.podCIDR {
				t.Errorf("pod-cidr: %v, want it kept %v", err, tt.podCIDR)
			}
			if _, err := os.Stat(m.path("kubelet.kubeconfig")); (err == nil) != tt.kept {
				t.Errorf("kubeconfig: %v, want it kept %v", err, tt.kept)
			}
			// One that is expired stays until there is another: it is good again when the clock was wrong.
			if _, err := os.Stat(m.pairPath()); (err == nil) != (tt.kept || tt.name == "expired") {
				t.Errorf("certificate: %v, want it kept %v", err, tt.kept)
			}
			asks, uses, err := bootstrap.LoadClientConfig(klog.Background(), m.path("kubelet.kubeconfig"), m.path("bootstrap.kubeconfig"), m.path("pki"))
			if err != nil {
				t.Fatalf("kubelet refuses what is there: %v", err)
			}
			if byToken := asks.BearerToken != ""; asks.Host != m.url || uses.Host != m.url || byToken == tt.kept {
				t.Errorf("kubelet asks %s, by the token %v, and uses %s; want %s, by the token %v", asks.Host, byToken, uses.Host, m.url, !tt.kept)
			}
		})
	}
}

// A certificate that held when kubelet started and no longer does is a reason to start again, once.
func TestClockSet(t *testing.T) {
	now := time.Now()
	away := httptest.NewTLSServer(http.NotFoundHandler())
	away.Close()
	m, _ := joined(t, "pump-3", now)
	m.url = away.URL
	ca, _ := authority(t)
	if err := os.WriteFile(m.path("server-ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &follower{membership: m, status: func(string, ...any) {}, now: func() time.Time { return now }}
	if err := f.look(t.Context()); err != nil {
		t.Fatalf("with a certificate that holds: %v", err)
	}
	now = now.AddDate(2, 0, 0)
	if err := f.look(t.Context()); !errors.Is(err, errExpired) || !errors.Is(err, errStartAgain) {
		t.Errorf("after the clock was set: %v", err)
	}
	f = &follower{membership: m, status: func(string, ...any) {}, now: func() time.Time { return now }}
	for range 2 {
		if err := f.look(t.Context()); err != nil {
			t.Errorf("expired from the start, and the server away: %v", err)
		}
	}
}

func TestRefused(t *testing.T) {
	ca, cert := authority(t)
	tests := []struct {
		name    string
		answers []int // to the certificate, in turn; 0: none
		token   int   // answer to the token
		forgets bool
	}{
		{"taken", []int{200, 200, 200, 200}, 200, false},
		{"refused now and then", []int{401, 401, 200, 401, 401, 0, 401, 401, 503, 401}, 200, false},
		{"not permitted", []int{403, 403, 403, 403}, 200, false},
		{"server away", []int{0, 0, 0, 0}, 200, false},
		{"refused", []int{401, 401, 401}, 200, true},
		{"refused, as is the token", []int{401, 401, 401, 401}, 401, false},
		{"refused, and no answer to the token", []int{401, 401, 401, 401}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := joined(t, "pump-3", time.Now())
			answer := 0
			reply := func(w http.ResponseWriter, status int) {
				if status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(status)
			}
			id, secret := m.token.Bootstrap()
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case len(r.TLS.PeerCertificates) == 1 && r.TLS.PeerCertificates[0].Subject.CommonName == "system:node:pump-3":
					reply(w, answer)
				case r.Header.Get("Authorization") == "Bearer "+id+"."+secret:
					reply(w, tt.token)
				default:
					reply(w, http.StatusOK) // to anybody
				}
			}))
			// The server does not name the issuer of the node's certificate among those that it takes.
			_, others := joined(t, "other", time.Now().Add(-time.Hour))
			s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, ClientCAs: others}
			s.StartTLS()
			defer s.Close()
			m.url = s.URL
			if err := os.WriteFile(m.path("server-ca.crt"), ca, 0o600); err != nil {
				t.Fatal(err)
			}
			f := &follower{membership: m, status: func(string, ...any) {}, now: time.Now}
			var ended error
			for i, a := range tt.answers {
				if ended != nil {
					t.Fatalf("ended before look %d: %v", i, ended)
				}
				answer = a
				ended = f.look(t.Context())
			}
			if errors.Is(ended, errRefused) != tt.forgets || (ended != nil) != tt.forgets {
				t.Errorf("ended with %v, want an end %v", ended, tt.forgets)
			}
			if _, err := os.Stat(m.pairPath()); (err == nil) == tt.forgets {
				t.Errorf("certificate: %v, want it removed %v", err, tt.forgets)
			}
		})
	}
}

// A join puts the identity in order before it asks the server as a node.
func TestJoinAsRenamed(t *testing.T) {
	ca, cert := authority(t)
	m, _ := joined(t, "pump-4", time.Now())
	id, secret := m.token.Bootstrap()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 || r.Header.Get("Authorization") != "Bearer "+id+"."+secret {
			t.Errorf("it asks for %s with certificates %d and authorization %q", r.URL.Path, len(r.TLS.PeerCertificates), r.Header.Get("Authorization"))
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind": "ConfigMap", "apiVersion": "v1", "data": {"cluster.json": "{\"clientCA\": \"clients\"}"}}`)) // the client may be gone
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	defer s.Close()
	m.url = s.URL
	if err := os.WriteFile(m.path("server-ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // else it would ask the old address for ever
	defer cancel()
	cluster, err := m.join(ctx, func(string, ...any) {})
	if err != nil || cluster.ClientCA != "clients" {
		t.Errorf("joined %+v, %v", cluster, err)
	}
	if _, err := os.Stat(m.path("pki")); err == nil {
		t.Error("the identity of another name is still there")
	}
}
