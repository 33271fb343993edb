package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// authority signs clients' certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func issue(t *testing.T, by *authority, template *x509.Certificate) (*authority, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), serverValidity[0], serverValidity[1]
	signer := by
	if by == nil {
		template.IsCA, template.BasicConstraintsValid = true, true
		signer = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestRolesOnTheNetwork asks each route with each kind of certificate.
func TestRolesOnTheNetwork(t *testing.T) {
	ca, caPEM := issue(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: "ours"}})
	other, _ := issue(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: "theirs"}})
	root := device(t, map[string]string{v1.ClientsPath: string(caPEM), v1.ServerKeyPath: "damaged"})
	config, err := networkTLS(root)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nothing := func() error { return nil }
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	handler := New(Options{Root: root, Reboot: nothing, PowerOff: nothing, Reset: func(string) error { return nil }, Upgrades: &upgrades{}, Snapshots: &snapshotList{}})
	go func() { served <- serve(ctx, handler, []net.Listener{tls.NewListener(plain, config)}) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	client := func(by *authority, roles ...string) *http.Client {
		c := &tls.Config{InsecureSkipVerify: true} // a client knows the device by its key, which is not what is tested here
		if by != nil {
			own, _ := issue(t, by, &x509.Certificate{Subject: pkix.Name{CommonName: "me", Organization: roles}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			c.Certificates = []tls.Certificate{{Certificate: [][]byte{own.cert.Raw}, PrivateKey: own.key}}
		}
		transport := &http.Transport{TLSClientConfig: c}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	for _, c := range []struct {
		name          string
		client        *http.Client
		reads, admins bool
	}{
		{"admin", client(ca, v1.RoleAdmin), true, true},
		{"reader", client(ca, v1.RoleReader), true, false},
		{"other role", client(ca, "system:masters"), false, false},
		{"no role", client(ca), false, false},
	} {
		for _, route := range Routes() {
			if strings.HasPrefix(route.Path, "/v1/logs/") {
				continue // there is nothing that could be followed
			}
			request, err := http.NewRequest(route.Method, "https://"+plain.Addr().String()+strings.ReplaceAll(route.Path, "{name}", "x"), nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := c.client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			allowed := c.reads && !route.Admin || c.admins
			if got := answer.StatusCode != http.StatusForbidden; got != allowed {
				t.Errorf("%s %s %s: status %d", c.name, route.Method, route.Path, answer.StatusCode)
			}
		}
	}
	for name, c := range map[string]*http.Client{"no certificate": client(nil), "another authority": client(other, v1.RoleAdmin)} {
		if answer, err := c.Get("https://" + plain.Addr().String() + "/v1/status"); err == nil {
			answer.Body.Close()
			t.Errorf("%s: was answered", name)
		}
	}

	// The device is known by its key, so that it keeps it.
	again, err := networkTLS(root)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := Fingerprint(config.Certificates[0].Leaf), Fingerprint(again.Certificates[0].Leaf); a != b || !strings.HasPrefix(a, "SHA256:") {
		t.Errorf("fingerprint was %s, is %s", a, b)
	}
	if info, err := os.Stat(filepath.Join(root, v1.ServerKeyPath)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
}

// A device keeps its key when the key cannot be read at the moment, and makes one only where there is none that can be used.
func TestServerCertificateStays(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	first, err := serverCertificate(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	again, err := serverCertificate(cert, key)
	if err != nil || Fingerprint(again.Leaf) != Fingerprint(first.Leaf) {
		t.Errorf("another key: %v", err)
	}
	kept, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	unreadable := filepath.Join(dir, "folder") // reading a folder fails as a disk does
	if err := os.Mkdir(unreadable, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := serverCertificate(unreadable, key); err == nil || !strings.Contains(err.Error(), "cannot read the device's certificate") {
		t.Errorf("a certificate that cannot be read: %v", err)
	}
	if now, err := os.ReadFile(key); err != nil || !bytes.Equal(now, kept) {
		t.Errorf("the key is another one: %v", err)
	}
	if err := os.WriteFile(cert, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if anew, err := serverCertificate(cert, key); err != nil || Fingerprint(anew.Leaf) == Fingerprint(first.Leaf) {
		t.Errorf("a damaged certificate is not made anew: %v", err)
	}
}

func TestNobodyMayUseTheNetwork(t *testing.T) {
	if config, err := networkTLS(device(t, nil)); config != nil || err != nil {
		t.Errorf("served on the network: %v, %v", config, err)
	}
	if config, err := networkTLS(device(t, map[string]string{v1.ClientsPath: "none"})); config != nil || err == nil {
		t.Errorf("served on the network: %v, %v", config, err)
	}
}

// upgrades note what they are asked for.
type upgrades struct {
	asked []string
	err   error
}

func (u *upgrades) note(format string, args ...any) error {
	u.asked = append(u.asked, fmt.Sprintf(format, args...))
	return u.err
}

func (u *upgrades) Describe(s *v1.State) error {
	s.MachineID, s.Update = "id", &v1.Update{State: "written", Version: "2"}
	return nil
}

func (u *upgrades) Upload(_ context.Context, body io.Reader, from int, force bool) error {
	b, err := io.ReadAll(body)
	return errors.Join(err, u.note("upload %s from %d force %v", b, from, force))
}
func (u *upgrades) Try() error                   { return u.note("try") }
func (u *upgrades) Fetch() error                 { return u.note("fetch") }
func (u *upgrades) Commit() error                { return u.note("commit") }
func (u *upgrades) Rollback(reason string) error { return u.note("roll back: %s", reason) }

type snapshotList struct{ restored string }

var one = v1.Snapshot{Name: "one", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Bytes: 7, Reason: "asked"}

func (s *snapshotList) List() ([]v1.Snapshot, error)                { return []v1.Snapshot{one}, nil }
func (s *snapshotList) Create(context.Context) (v1.Snapshot, error) { return one, nil }
func (s *snapshotList) Restore(name string) error {
	if name != "one" {
		return &Refusal{Status: 404, Err: errors.New("no such snapshot"), Hint: "look"}
	}
	s.restored = name
	return nil
}

// A client that is connected and sends nothing does not keep others from upgrading for ever, and is told so.
func TestSilentUpload(t *testing.T) {
	server := httptest.NewServer(New(Options{Root: t.TempDir(), Upgrades: &upgrades{}, Silence: 10 * time.Millisecond}))
	defer server.Close()
	body, client := io.Pipe()
	defer client.Close()
	go io.WriteString(client, "half of a bundle")
	response, err := http.Post(server.URL+"/v1/upgrade", "", body)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 500 || !strings.Contains(string(text), "nothing has come from the client for 10ms") {
		t.Errorf("%d, %v: %s", response.StatusCode, err, text)
	}
}

// TestUpgradeRoutes compares what is asked of the upgrades, and what is answered.
func TestUpgradeRoutes(t *testing.T) {
	for _, c := range []struct {
		name, method, target, chunk, body string
		err                               error
		status                            int
		asked, answer                     string
	}{
		{"upgrade", "POST", "/v1/upgrade", "", "bundle", nil, 202, "upload bundle from 0 force false, try", `"state": "written"`},
		{"upgrade, go on", "POST", "/v1/upgrade?force=true&try=false", "17", "rest", nil, 200, "upload rest from 17 force true", `"version": "2"`},
		{"odd chunk", "POST", "/v1/upgrade", "-1", "x", nil, 400, "", "cannot read the header Skerry-Chunk: -1"},
		{"odd force", "POST", "/v1/upgrade?force=perhaps", "", "x", nil, 400, "", "force=perhaps"},
		{"refused", "POST", "/v1/upgrade", "", "x", &Refusal{Status: 412, Err: errors.New("old"), Hint: "h", Forceable: true, Update: &v1.Update{State: "idle"}}, 412,
			"upload x from 0 force false", `"forceable": true`},
		{"try", "POST", "/v1/try", "", "", nil, 202, "try", `"action": "try"`},
		{"fetch", "POST", "/v1/fetch", "", "", nil, 202, "fetch", `"action": "fetch"`},
		{"commit", "POST", "/v1/commit", "", "", nil, 200, "commit", `"state": "written"`},
		{"rollback", "POST", "/v1/rollback?reason=because", "", "", nil, 202, "roll back: because, reboot", `"action": "rollback"`},
		{"rollback refused", "POST", "/v1/rollback", "", "", &Refusal{Status: 412, Err: errors.New("no other")}, 412, "roll back: an administrator has asked for it", "no other"},
		{"reset", "POST", "/v1/reset?scope=data", "", "", nil, 202, "reset data, reboot", `"action": "reset"`},
		{"reset what", "POST", "/v1/reset", "", "", nil, 400, "", "nothing was deleted"},
		{"snapshots", "GET", "/v1/snapshots", "", "", nil, 200, "", `"name": "one"`},
		{"snapshot", "POST", "/v1/snapshots", "", "", nil, 201, "", `"bytes": 7`},
		{"restore", "POST", "/v1/snapshots/one/restore", "", "", nil, 202, "reboot", `"action": "restore"`},
		{"restore another", "POST", "/v1/snapshots/two/restore", "", "", nil, 404, "", "no such snapshot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := &upgrades{err: c.err}
			h := New(Options{Root: device(t, nil), Upgrades: u, Snapshots: &snapshotList{},
				Reboot: func() error { return u.note("reboot") }, Reset: func(scope string) error { return u.note("reset %s", scope) }})
			request := httptest.NewRequest(c.method, c.target, bytes.NewReader([]byte(c.body)))
			if c.chunk != "" {
				request.Header.Set(v1.ChunkHeader, c.chunk)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, request)
			if got := strings.Join(u.asked, ", "); w.Code != c.status || got != c.asked || !strings.Contains(w.Body.String(), c.answer) {
				t.Errorf("status %d, asked %q, answered %s", w.Code, got, w.Body)
			}
		})
	}
	bare := New(Options{Root: device(t, nil)})
	for _, target := range []string{"POST /v1/upgrade", "POST /v1/try", "POST /v1/fetch", "POST /v1/commit", "POST /v1/rollback", "GET /v1/snapshots", "POST /v1/snapshots", "POST /v1/snapshots/x/restore"} {
		method, path, _ := strings.Cut(target, " ")
		w := httptest.NewRecorder()
		bare.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != http.StatusNotImplemented {
			t.Errorf("%s of a device that cannot: %d %s", target, w.Code, w.Body)
		}
	}
}
