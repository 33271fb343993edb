package health

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/initd/config"
)

// apiServer is an API server that has the given answers by path and knows one client. It returns the kubeconfig.
func apiServer(t *testing.T, answers map[string]string) (*httptest.Server, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "admin"}, NotBefore: time.Unix(0, 0),
		NotAfter: time.Now().AddDate(1, 0, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if !ok {
			body = `404 {"kind": "Status", "message": "the server could not find the requested resource", "code": 404}`
		}
		code, text, _ := strings.Cut(body, " ")
		status := 200
		if _, err := fmt.Sscan(code, &status); err != nil {
			text = body
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}))
	clients := x509.NewCertPool()
	clients.AddCert(parsed)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.StartTLS()
	t.Cleanup(s.Close)
	encoded := func(kind string, b []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	// As cluster/kubeconfig writes it.
	return s, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: "default"
  cluster:
    server: %q
    certificate-authority-data: %s
users:
- name: "default"
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: "default"
  context:
    cluster: "default"
    user: "default"
current-context: "default"
`, s.URL, encoded("CERTIFICATE", s.Certificate().Raw), encoded("CERTIFICATE", cert), encoded("PRIVATE KEY", der))
}

func TestKubernetes(t *testing.T) {
	deployment := func(generation, observed int, conditions string) string {
		return fmt.Sprintf(`{"metadata": {"generation": %d}, "spec": {"replicas": 1}, "status": {"observedGeneration": %d, "conditions": [%s]}}`, generation, observed, conditions)
	}
	const (
		deployments = "/apis/apps/v7/namespaces/default/deployments/"
		jobs        = "/apis/batch/v1/namespaces/default/jobs/"
		available   = `{"type": "Progressing", "status": "True"}, {"type": "Available", "status": "True"}`
		unavailable = `{"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "Deployment does not have minimum availability."}`
	)
	server, kubeconfig := apiServer(t, map[string]string{
		"/apis/apps":            `{"preferredVersion": {"groupVersion": "apps/v7", "version": "v7"}}`,
		deployments + "web":     deployment(2, 2, available),
		deployments + "down":    deployment(2, 2, unavailable),
		deployments + "changed": deployment(3, 2, available),
		deployments + "new":     deployment(1, 0, ""),
		deployments + "none":    `404 {"message": "deployments.apps \"none\" not found", "details": {"name": "none"}, "code": 404}`,
		deployments + "secret":  `403 {"message": "no rights", "code": 403}`,
		deployments + "broken":  `502 bad gateway`,
		"/api/v1/nodes/n":       `{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}`,
		jobs + "done":           `{"status": {"succeeded": 1, "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]}}`,
		jobs + "failed":         `{"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}]}}`,
		jobs + "running":        `{"spec": {"completions": 3}, "status": {"active": 2, "succeeded": 1}}`,
		jobs + "paused":         `{"spec": {"suspend": true}}`,
		"/apis/example.com":     `not JSON`,
		"/apis/batch/v1/namespaces/test/jobs/elsewhere": `{"status": {"conditions": [{"type": "Complete", "status": "True"}]}}`,
	})
	path := filepath.Join(t.TempDir(), "kubeconfig")
	cluster := NewCluster(path)
	object := func(resource, namespace, name, condition string) config.HealthCheck {
		return config.HealthCheck{Kubernetes: &config.ObjectCheck{Resource: resource, Namespace: namespace, Name: name, Condition: condition}}
	}
	web := func(name string) config.HealthCheck { return object("deployments.apps", "default", name, "Available") }
	job := func(namespace, name string) config.HealthCheck {
		return config.HealthCheck{Job: &config.JobCheck{Namespace: namespace, Name: name}}
	}
	if got, want := outcome(t, FromConfig([]config.HealthCheck{web("web")}, cluster)[0], "nowhere"), "the control plane has not started yet"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		check config.HealthCheck
		want  string
		vain  bool
	}{
		{"available", web("web"), "passed", false},
		{"not available", web("down"), "deployments.apps default/down: condition Available is False: MinimumReplicasUnavailable, Deployment does not have minimum availability.", false},
		{"not seen", web("changed"), "deployments.apps default/changed was changed, and its controller has not seen that yet", false},
		{"no condition", web("new"), "deployments.apps default/new has no condition Available yet", false},
		{"no object", web("none"), "deployments.apps default/none does not exist", false},
		{"forbidden", web("secret"), "the API server answers 403: no rights", false},
		{"not Kubernetes", web("broken"), "the API server answers 502: bad gateway", false},
		{"no resource", object("deploys.apps", "default", "web", "Available"), "the cluster has no resource deploys.apps in namespaces", false},
		{"no namespace", object("deployments.apps", "", "web", "Available"), "the cluster has no resource deployments.apps in no namespace", false},
		{"no group", object("widgets.example.org", "default", "web", "Ready"), "the cluster has no API group example.org", false},
		{"no JSON", object("widgets.example.com", "", "web", "Ready"), "the API server's answer to /apis/example.com is no JSON that is understood: invalid character 'o' in literal null (expecting 'u')", false},
		{"core group, no namespace", object("nodes", "", "n", "Ready"), "passed", false},
		{"job done", job("", "done"), "passed", false},
		{"job elsewhere", job("test", "elsewhere"), "passed", false},
		{"job failed", job("default", "failed"), "job default/failed has failed: BackoffLimitExceeded, Job has reached the specified backoff limit", true},
		{"job running", job("default", "running"), "job default/running is not complete: 1 of 3 pods have succeeded, 2 are running", false},
		{"job suspended", job("default", "paused"), "job default/paused is suspended", false},
		{"no job", job("default", "none"), "job default/none does not exist", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := FromConfig([]config.HealthCheck{test.check}, cluster)[0]
			if got := outcome(t, c, server.Listener.Addr().String()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			var never neverError
			if vain := errors.As(c.Run(t.Context()), &never); vain != test.vain {
				t.Errorf("waiting in vain: %v, want %v", vain, test.vain)
			}
		})
	}
	// Certificates are made anew when the device starts: the file changes, and so does the server.
	other, kubeconfig := apiServer(t, map[string]string{"/api/v1/nodes/m": `{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}`})
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := outcome(t, FromConfig([]config.HealthCheck{object("nodes", "", "m", "Ready")}, cluster)[0], "nowhere"); got != "passed" {
		t.Errorf("after a change of the kubeconfig: %s", got)
	}
	other.Close()
	if got := outcome(t, FromConfig([]config.HealthCheck{object("nodes", "", "m", "Ready")}, cluster)[0], "nowhere"); got != "no answer from the API server: connection refused" {
		t.Errorf("without an API server: %s", got)
	}
}

func TestKubeconfigsThatAreRefused(t *testing.T) {
	_, good := apiServer(t, nil)
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "it has no certificate-authority-data in Base64"},
		{"files", strings.Replace(good, "client-key-data:", "client-key:", 1), "it has no client-key-data in Base64"},
		{"two clusters", good + good, "it has server twice"},
		{"no https", strings.Replace(good, "https://", "http://", 1), "is no https URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, _, err := parseKubeconfig([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
