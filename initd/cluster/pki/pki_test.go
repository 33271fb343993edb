package pki

import (
	"crypto/x509"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var built = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

// clock is a store's clock that tests move.
type clock struct{ now time.Time }

func newStore(t *testing.T, now time.Time) (Store, *clock) {
	t.Helper()
	c := &clock{now}
	s := Store{Dir: t.TempDir() + "/tls", Now: func() time.Time { return c.now }, Floor: built}
	if err := s.Init(); err != nil {
		t.Fatal(err)
	}
	return s, c
}

func leaf() Leaf {
	return Leaf{
		Name: "serving-kube-apiserver", CA: ServerCA, CN: "kube-apiserver", Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNS: []string{"localhost", "kubernetes"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::1")},
	}
}

func TestEnsure(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name   string
		start  time.Time // when the certificates are made
		then   time.Time // when they are looked at again
		change func(s Store, l *Leaf)
		want   string // reason, empty when the certificate is kept
	}{
		{"next minute", built.Add(day), built.Add(day + time.Minute), nil, ""},
		{"half a year later", built.Add(day), built.Add(180 * day), nil, ""},
		{"two thirds of its life later", built, built.Add(250 * day), nil, "less than a third of its life left"},
		{"after a year in a drawer", built, built.Add(400 * day), nil, "expired"},
		{"after ten years in a drawer", built, built.Add(3650 * day), nil, "expired"},
		{"no battery: clock at the floor, then set", built, built.Add(90 * day), nil, ""},
		{"clock was in the future, then set", built.Add(5000 * day), built.Add(day), nil, ""},
		{"clock falls back before the build", built.Add(day), built.Add(-300 * day), nil, ""},
		{"address changed", built, built, func(_ Store, l *Leaf) { l.IPs[1] = netip.MustParseAddr("192.0.2.7") }, "names changed"},
		{"name added", built, built, func(_ Store, l *Leaf) { l.DNS = append(l.DNS, "example.com") }, "names changed"},
		{"names in another order", built, built, func(_ Store, l *Leaf) { slices.Reverse(l.DNS); slices.Reverse(l.IPs) }, ""},
		{"user changed", built, built, func(_ Store, l *Leaf) { l.CN = "x" }, "identity changed"},
		{"group changed", built, built, func(_ Store, l *Leaf) { l.Groups = []string{"system:masters"} }, "identity changed"},
		{"file gone", built, built, func(s Store, l *Leaf) { crt, _ := s.Files(*l); os.Remove(crt) }, "missing"},
		{"file empty after a power cut", built, built, func(s Store, l *Leaf) { crt, _ := s.Files(*l); os.Truncate(crt, 0) }, "unreadable"},
		{"power cut between key and certificate", built, built, func(s Store, l *Leaf) {
			_, key := s.Files(*l)
			_, other := s.Path(ClientCA)
			b, _ := os.ReadFile(other)
			os.WriteFile(key, b, 0o600)
		}, "its key does not fit"},
		{"authority replaced", built, built, func(s Store, l *Leaf) {
			crt, key := s.Path(ServerCA)
			os.Remove(crt)
			os.Remove(key)
			if err := s.Init(); err != nil {
				panic(err)
			}
		}, "signed by another authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, c := newStore(t, tt.start)
			l := leaf()
			if done, err := s.Ensure(l); err != nil || len(done) != 1 || done[0].Reason != "missing" {
				t.Fatalf("first start: %v, %v", done, err)
			}
			c.now = tt.then
			if tt.change != nil {
				tt.change(s, &l)
			}
			done, err := s.Ensure(l)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(done) > 0 {
				got = done[0].Reason
			}
			if got != tt.want {
				t.Errorf("reason %q, want %q", got, tt.want)
			}
			verify(t, s, l, c.now)
			if again, err := s.Ensure(l); err != nil || len(again) != 0 {
				t.Errorf("not stable: issued again %v, %v", again, err)
			}
		})
	}
}

// verify holds a leaf against its authority as a TLS peer would.
func verify(t *testing.T, s Store, l Leaf, now time.Time) {
	t.Helper()
	crt, _ := s.Files(l)
	cert, err := readCert(crt)
	if err != nil {
		t.Fatal(err)
	}
	caFile, _ := s.Path(l.CA)
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	for _, name := range append([]string{l.IPs[0].String(), l.IPs[1].String()}, l.DNS...) {
		// An authority cannot be dated back: when the clock is before the build, only the time is excused.
		at := now
		if at.Before(built) {
			at = built
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: at, KeyUsages: l.Usage}); err != nil {
			t.Errorf("a peer refuses it as %s: %v", name, err)
		}
	}
}

func TestInitKeepsAuthorities(t *testing.T) {
	s, c := newStore(t, built)
	crt, _ := s.Path(ServerCA)
	before, _ := os.ReadFile(crt)
	c.now = built.Add(9 * 365 * 24 * time.Hour)
	if err := s.Init(); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(crt); string(after) != string(before) {
		t.Error("the authority was replaced: every node and kubeconfig would be locked out")
	}
}

func TestInitNeverReplacesAnAuthority(t *testing.T) {
	tests := []struct {
		name   string
		damage func(s Store)
		want   string
	}{
		{"key lost", func(s Store) { _, key := s.Path(ClientCA); os.Remove(key) }, "from a backup"},
		{"key of another", func(s Store) {
			_, key := s.Path(ClientCA)
			_, other := s.Path(ServerCA)
			b, _ := os.ReadFile(other)
			os.WriteFile(key, b, 0o600)
		}, "do not belong together"},
		{"certificate damaged", func(s Store) { crt, _ := s.Path(ClientCA); os.WriteFile(crt, []byte("x"), 0o644) }, "no PEM block"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newStore(t, built)
			crt, _ := s.Path(ClientCA)
			tt.damage(s)
			before, _ := os.ReadFile(crt)
			if err := s.Init(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if after, _ := os.ReadFile(crt); string(after) != string(before) {
				t.Error("the certificate was replaced")
			}
		})
	}
}

func TestLoneKeyOfAPowerCutIsReplaced(t *testing.T) {
	s, _ := newStore(t, built)
	crt, _ := s.Path(ServerCA)
	os.Remove(crt)
	if err := s.Init(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.authority(ServerCA); err != nil {
		t.Error(err)
	}
}

func TestKeysAreSecret(t *testing.T) {
	s, _ := newStore(t, built)
	if _, err := s.Ensure(leaf()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) != 9 {
		t.Fatalf("%d files, %v; want 9", len(entries), err)
	}
	for _, e := range entries {
		info, _ := e.Info()
		if strings.HasSuffix(e.Name(), ".key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	if info, _ := os.Stat(s.Dir); info.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %v", info.Mode())
	}
}
