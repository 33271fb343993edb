package contexts

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

var now = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func newStore(t *testing.T) Store {
	t.Helper()
	t.Setenv(Variable, "")
	return Store{filepath.Join(t.TempDir(), "skerry", "contexts")}
}

func newContext(t *testing.T, s Store, name string) Context {
	t.Helper()
	c, err := s.New(name, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tree lists a folder with the modes of what is in it.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		lines = append(lines, fmt.Sprintf("%v %s", info.Mode(), filepath.ToSlash(rel)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// describe says what a certificate is good for, as whoever checks it sees it.
func describe(c *x509.Certificate) string {
	return fmt.Sprintf("%s, %s to %s, authority %v, usage %d %v, by %s",
		c.Subject, c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly), c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.Issuer)
}

func TestNew(t *testing.T) {
	s := newStore(t)
	c := newContext(t, s, "fleet")
	if got, want := tree(t, s.Dir), `drwx------ .
-rw------- current
drwx------ fleet
-rw------- fleet/admin.key
-rw-r--r-- fleet/admin.crt
-rw------- fleet/ca.key
-rw-r--r-- fleet/ca.crt
-rw------- fleet/known-devices`; sorted(got) != sorted(want) {
		t.Errorf("the store is\n%s", got)
	}
	ca, err := parseOne("ca.crt", read(t, c.AuthorityFile()))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := c.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cert *x509.Certificate
		want string
	}{
		{ca, "CN=skerry context fleet, 2020-01-01 to 2056-11-27, authority true, usage 96 [], by CN=skerry context fleet"},
		{pair.Leaf, "CN=admin of fleet,O=skerry:admin, 2020-01-01 to 2036-11-27, authority false, usage 1 [clientAuth], by CN=skerry context fleet"},
	} {
		if got := describe(tt.cert); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	// A device that was just switched on may believe that it is 2020.
	for _, at := range []time.Time{validFrom.Add(time.Second), now, now.AddDate(9, 0, 0)} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("in %d: %v", at.Year(), err)
		}
	}
	if !c.Current || !c.CanIssue || c.Role != Admin || c.Authority != Fingerprint(ca) {
		t.Errorf("the context is %+v", c)
	}
}

func sorted(text string) string {
	lines := map[string]bool{}
	for l := range strings.Lines(text) {
		lines[strings.TrimSpace(l)] = true
	}
	return fmt.Sprint(lines)
}

func TestNewNeverReplaces(t *testing.T) {
	s := newStore(t)
	c := newContext(t, s, "fleet")
	before := read(t, c.AuthorityFile())
	if _, err := s.New("fleet", now); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "nothing was replaced") {
		t.Errorf("the second context of a name: %v", err)
	}
	if string(read(t, c.AuthorityFile())) != string(before) {
		t.Error("the authority was replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir, ".new*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestWhichContextIsUsed(t *testing.T) {
	s := newStore(t)
	if empty, err := s.Empty(); err != nil || !empty {
		t.Errorf("empty: %v, %v", empty, err)
	}
	use := func(flag string) string {
		c, err := s.Select(flag)
		if err != nil {
			return err.Error()
		}
		return c.Name
	}
	if got := use(""); !strings.Contains(got, `there is no context "default"`) || !strings.Contains(got, "skerry context new default") {
		t.Error(got)
	}
	newContext(t, s, "lab")
	newContext(t, s, "fleet")
	if got := use(""); got != "lab" {
		t.Errorf("the first one is not the current one: %s", got)
	}
	if err := s.Use("fleet"); err != nil {
		t.Fatal(err)
	}
	if got := use("") + " " + use("lab"); got != "fleet lab" {
		t.Error(got)
	}
	t.Setenv(Variable, "lab")
	if got := use("") + " " + use("fleet"); got != "lab fleet" {
		t.Error(got)
	}
	if err := s.Use("nobody"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("use nobody: %v", err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Name != "fleet" || !list[0].Current || list[1].Current {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestIssueAndImport(t *testing.T) {
	c := newContext(t, newStore(t), "fleet")
	known := Device{"192.0.2.7", c.Authority, "0123456789abcdef0123456789abcdef"}
	if err := c.Remember(known); err != nil {
		t.Fatal(err)
	}
	for _, role := range Roles {
		dir := filepath.Join(t.TempDir(), "for-anna")
		if err := c.Issue(dir, "anna", role, now); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "ca.key")); err == nil {
			t.Fatal("the authority's secret key was handed out")
		}
		theirs := newStore(t)
		got, err := theirs.Import(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "fleet" || got.Role != role || got.Holder != "anna" || got.CanIssue || !got.Current || got.Authority != c.Authority {
			t.Errorf("imported %+v", got)
		}
		pair, err := got.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := pair.Leaf.Subject.Organization, map[Role]string{Admin: v1.RoleAdmin, Reader: v1.RoleReader}[role]; got[0] != want {
			t.Errorf("organization %q, want %q", got, want)
		}
		if list, err := got.Devices(); err != nil || len(list) != 1 || list[0] != known {
			t.Errorf("devices %v, %v", list, err)
		}
		if err := got.Issue(filepath.Join(t.TempDir(), "x"), "bob", Reader, now); err == nil || !strings.Contains(err.Error(), "secret key is not here") {
			t.Errorf("an imported context issues: %v", err)
		}
		if _, err := theirs.Import(dir, ""); !errors.Is(err, fs.ErrExist) {
			t.Errorf("imported twice: %v", err)
		}
		if got, err := theirs.Import(dir, "other"); err != nil || got.Name != "other" || got.Current {
			t.Errorf("under another name: %+v, %v", got, err)
		}
	}
}

// A certificate outlives its authority never, or a device would refuse it earlier than it says.
func TestIssueNearTheEndOfTheAuthority(t *testing.T) {
	c := newContext(t, newStore(t), "fleet")
	dir := filepath.Join(t.TempDir(), "late")
	if err := c.Issue(dir, "anna", Admin, now.AddDate(25, 0, 0)); err != nil {
		t.Fatal(err)
	}
	cert, err := parseOne("admin.crt", read(t, filepath.Join(dir, "admin.crt")))
	if err != nil || cert.NotAfter.Format(time.DateOnly) != "2056-11-27" {
		t.Errorf("valid until %v, %v", cert.NotAfter, err)
	}
}

// What an image gets depends on the certificate alone, so that the same authority gives the same bytes everywhere.
func TestAuthoritiesAreRewritten(t *testing.T) {
	c := newContext(t, newStore(t), "fleet")
	plain := read(t, c.AuthorityFile())
	other := filepath.Join(t.TempDir(), "other.crt")
	text := "a comment\n" + strings.ReplaceAll(string(plain), "\n", "\r\n") + "the end\n"
	if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Authorities([]string{c.AuthorityFile(), other})
	if err != nil || len(list) != 2 || list[0] != list[1] || list[0].Certificate != string(plain) || list[0].Name != "skerry context fleet" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestMistakes(t *testing.T) {
	s := newStore(t)
	c := newContext(t, s, "fleet")
	other := newContext(t, s, "other")
	mixed := filepath.Join(t.TempDir(), "mixed")
	if err := other.Issue(mixed, "anna", Reader, now); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mixed, "ca.crt"), read(t, c.AuthorityFile()), 0o600); err != nil {
		t.Fatal(err)
	}
	raised := filepath.Join(t.TempDir(), "raised")
	if err := c.Issue(raised, "anna", Reader, now); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".crt", ".key"} {
		if err := os.Rename(filepath.Join(raised, "reader"+suffix), filepath.Join(raised, "admin"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	authorities := func(name string) error { _, err := Authorities([]string{name}); return err }
	imported := func(dir string) error { _, err := s.Import(dir, "new"); return err }
	for _, tt := range []struct {
		name string
		do   func() error
		want string
	}{
		{"name with a folder", func() error { _, err := s.New("../x", now); return err }, "a name has small letters"},
		{"no such role", func() error { return c.Issue(filepath.Join(t.TempDir(), "x"), "anna", "owner", now) }, "the roles are admin"},
		{"holder with a space", func() error { return c.Issue(filepath.Join(t.TempDir(), "x"), "An na", Admin, now) }, `"An na" cannot be the name of a holder`},
		{"issue over a folder", func() error { return c.Issue(mixed, "anna", Admin, now) }, "nothing was replaced"},
		{"not an authority", func() error { return authorities(c.CertificateFile()) }, "not one of an authority; give ca.crt"},
		{"secret key", func() error { return authorities(filepath.Join(c.Dir, "ca.key")) }, "secret key, which must not come into an image"},
		{"no certificate", func() error { return authorities(c.DevicesFile()) }, "no certificate in PEM form"},
		{"import of nothing", func() error { return imported(t.TempDir()) }, "give a folder that `skerry context issue` has written"},
		{"import of another authority's", func() error { return imported(mixed) }, "not issued by the authority beside it"},
		{"import of a role by its file's name", func() error { return imported(raised) }, `is for role ["skerry:reader"]`},
	} {
		if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := s.Get("new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused import left something: %v", err)
	}
}

// Commands for many devices at once note all of them.
func TestRememberAtTheSameTime(t *testing.T) {
	c := newContext(t, newStore(t), "fleet")
	const devices = 20
	var wait sync.WaitGroup
	for i := range devices {
		wait.Go(func() {
			if err := c.Remember(Device{Address: fmt.Sprintf("192.0.2.%d", i), Fingerprint: c.Authority}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if list, err := c.Devices(); err != nil || len(list) != devices {
		t.Errorf("%d devices are known, %v", len(list), err)
	}
}

func TestKnownDevices(t *testing.T) {
	c := newContext(t, newStore(t), "fleet")
	a, b := "SHA256:"+strings.Repeat("A", 43), "SHA256:"+strings.Repeat("B", 42)+"A"
	if err := os.WriteFile(c.DevicesFile(), []byte("# mine\n192.0.2.1 "+a+"\n\n192.0.2.2:7000 "+b+" 77 # kitchen"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Device{{"192.0.2.1", b, ""}, {"2001:db8::1", a, "78"}} {
		if err := c.Remember(d); err != nil {
			t.Fatal(err)
		}
	}
	want := "# mine\n\n192.0.2.2:7000 " + b + " 77 # kitchen\n192.0.2.1 " + b + "\n2001:db8::1 " + a + " 78\n"
	if got := string(read(t, c.DevicesFile())); got != want {
		t.Errorf("the file is\n%s\nwant\n%s", got, want)
	}
	list, err := c.Devices()
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	if d, ok := KnownBy(list, "2001:db8::1"); !ok || d.MachineID != "78" {
		t.Errorf("by address: %+v", d)
	}
	if d, ok := KnownAs(list, b); !ok || d.Address != "192.0.2.2:7000" {
		t.Errorf("by fingerprint: %+v", d)
	}
	if _, ok := KnownBy(list, "192.0.2.9"); ok {
		t.Error("a stranger is known")
	}
	if err := os.WriteFile(c.DevicesFile(), []byte("# mine\n192.0.2.1 MD5:x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Devices(); err == nil || !strings.Contains(err.Error(), "known-devices:2: \"MD5:x\" is not a fingerprint") {
		t.Errorf("a bad line: %v", err)
	}
}
