package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/skerryos/skerry/builder/fetch/fetchtest"
	"github.com/skerryos/skerry/builder/profile"
)

// now is the time of the tests: a little after the test archive's Release file.
var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// newKey makes a signing key that is valid at now.
func newKey(t *testing.T, name string) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.com", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA,
		Time:      func() time.Time { return now.Add(-time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// sign makes a clear-signed document.
func sign(t *testing.T, text string, key *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, &packet.Config{Time: func() time.Time { return now.Add(-time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const amd64Packages = `Package: hello
Version: 1.0-1
Architecture: amd64
Depends: libc6
Filename: pool/main/h/hello/hello_1.0-1_amd64.deb
Size: 11
SHA256: 1111111111111111111111111111111111111111111111111111111111111111
Description: greeting
 Package: not-a-field

Package: hello
Version: 1.0-1+deb13u1
Architecture: amd64
Filename: pool/main/h/hello/hello_1.0-1+deb13u1_amd64.deb
Size: 12
SHA256: 2222222222222222222222222222222222222222222222222222222222222222

Package: linux-image-amd64
Version: 6.12.117-1
Architecture: amd64
Depends: linux-image-6.12.117+deb13-amd64 (= 6.12.117-1)
Filename: pool/main/l/linux/linux-image-amd64_6.12.117-1_amd64.deb
Size: 13
SHA256: 3333333333333333333333333333333333333333333333333333333333333333

Package: linux-image-6.12.117+deb13-amd64
Version: 6.12.117-1
Architecture: amd64
Depends: kmod, linux-base
Filename: pool/main/l/linux/linux-image-6.12.117+deb13-amd64_6.12.117-1_amd64.deb
Size: 14
SHA256: 4444444444444444444444444444444444444444444444444444444444444444

Package: linux-image-broken
Version: 1
Architecture: amd64
Depends: linux-image-gone (= 1)
Filename: pool/main/l/linux/x.deb
Size: 15
SHA256: 5555555555555555555555555555555555555555555555555555555555555555
`

// newArchive is a mirror with one suite, by path. Its lists are there by hash only, if byHash.
func newArchive(t *testing.T, key *openpgp.Entity, byHash bool, extra string) map[string][]byte {
	t.Helper()
	return newSuite(t, key, "trixie", amd64Packages, byHash, extra)
}

// newSuite is a mirror with a suite that has these packages.
func newSuite(t *testing.T, key *openpgp.Entity, suite, packages string, byHash bool, extra string) map[string][]byte {
	t.Helper()
	var list bytes.Buffer
	w, err := fetchtest.Compress(&list, "xz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, packages); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(list.Bytes())
	digest := hex.EncodeToString(sum[:])
	release := fmt.Sprintf("Origin: Test\nCodename: %s\nDate: Wed, 25 Nov 2026 10:00:00 UTC\n%sMD5Sum:\n 00000000000000000000000000000000 1 main/binary-amd64/Packages.xz\nSHA256:\n %s %d main/binary-amd64/Packages.xz\n", suite, extra, digest, list.Len())
	at := "/dists/" + suite + "/main/binary-amd64/Packages.xz"
	if byHash {
		release = "Acquire-By-Hash: yes\n" + release
		at = "/dists/" + suite + "/main/binary-amd64/by-hash/SHA256/" + digest
	}
	return map[string][]byte{"/dists/" + suite + "/InRelease": sign(t, release, key), at: list.Bytes()}
}

// serve serves files by path.
func serve(t *testing.T, files map[string][]byte) Mirror {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(s.Close)
	return Mirror{URL: s.URL, From: "the test"}
}

func TestLock(t *testing.T) {
	key := newKey(t, "archive")
	want := Want{}
	want.Add(Source{Architecture: "amd64"}, "hello", profile.Position{})
	want.Add(Source{Architecture: "amd64"}, "linux-image-amd64", profile.Position{})
	for _, byHash := range []bool{false, true} {
		files := newArchive(t, key, byHash, "")
		inRelease := sha256.Sum256(files["/dists/trixie/InRelease"])
		cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{serve(t, nil), serve(t, files)}}
		lock, err := cache.Lock(t.Context(), Suite{Name: "trixie", Components: []string{"main"}, Keys: openpgp.EntityList{key}, Now: now}, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := lock.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		want := `# Every Debian package that images are made of. Written by: skerry lock --update. Not edited by hand.
archive:
  suite: trixie
  components:
  - main
  date: '2026-11-25T10:00:00Z'
  inRelease: ` + hex.EncodeToString(inRelease[:]) + `
packages:
- name: hello
  version: 1.0-1+deb13u1
  architecture: amd64
  path: pool/main/h/hello/hello_1.0-1+deb13u1_amd64.deb
  sha256: '2222222222222222222222222222222222222222222222222222222222222222'
  size: 12
- name: linux-image-6.12.117+deb13-amd64
  version: 6.12.117-1
  architecture: amd64
  path: pool/main/l/linux/linux-image-6.12.117+deb13-amd64_6.12.117-1_amd64.deb
  sha256: '4444444444444444444444444444444444444444444444444444444444444444'
  size: 14
  for: linux-image-amd64
`
		if string(got) != want {
			t.Errorf("by hash %v: got:\n%s\nwant:\n%s", byHash, got, want)
		}
	}
}

// backports has the newest kernel in three packages.
const backports = `Package: linux-image-amd64
Version: 7.3-1
Architecture: amd64
Depends: linux-base-amd64 (= 7.3-1), linux-image-7.3-amd64 (= 7.3-1), linux-modules-amd64 (= 7.3-1)
Filename: pool/a.deb
Size: 1
SHA256: 6666666666666666666666666666666666666666666666666666666666666666

Package: linux-image-7.3-amd64
Version: 7.3-1
Architecture: amd64
Depends: dracut | initramfs-tools, linux-binary-7.3-amd64 (= 7.3-1), linux-modules-7.3-amd64 (= 7.3-1)
Filename: pool/b.deb
Size: 2
SHA256: 7777777777777777777777777777777777777777777777777777777777777777

Package: linux-binary-7.3-amd64
Version: 7.3-1
Architecture: amd64
Filename: pool/c.deb
Size: 3
SHA256: 8888888888888888888888888888888888888888888888888888888888888888

Package: linux-modules-7.3-amd64
Version: 7.3-1
Architecture: amd64
Filename: pool/d.deb
Size: 4
SHA256: 9999999999999999999999999999999999999999999999999999999999999999
`

// A kernel may be wanted of another suite, too, where it consists of several packages.
func TestLockOfTwoSuites(t *testing.T) {
	key := newKey(t, "archive")
	first, second := Source{Architecture: "amd64"}, Source{"trixie-backports", "amd64"}
	want := Want{}
	want.Add(first, "linux-image-amd64", profile.Position{})
	want.Add(second, "linux-image-amd64", profile.Position{})
	files := newArchive(t, key, false, "")
	maps.Copy(files, newSuite(t, key, "trixie-backports", backports, true, ""))
	cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{serve(t, files)}}
	suite := Suite{Name: "trixie", Components: []string{"main"}, Keys: openpgp.EntityList{key}, Now: now}
	lock, err := cache.Lock(t.Context(), suite, want)
	if err != nil {
		t.Fatal(err)
	}
	if lock.Archive.Suite != "trixie" || len(lock.Further) != 1 || lock.Further[0].Suite != "trixie-backports" {
		t.Errorf("archives are %+v and %+v", lock.Archive, lock.Further)
	}
	old, newest := lock.PackageOf("", "linux-image-amd64", "amd64"), lock.PackageOf("trixie-backports", "linux-image-amd64", "amd64")
	if old == nil || newest == nil || old.Version != "6.12.117-1" || newest.Name != "linux-image-7.3-amd64" {
		t.Fatalf("the kernels are %+v and %+v", old, newest)
	}
	var parts []string
	for _, p := range lock.Parts(newest) {
		parts = append(parts, p.Suite+" "+p.Name)
	}
	if got := strings.Join(parts, ", "); got != "trixie-backports linux-binary-7.3-amd64, trixie-backports linux-modules-7.3-amd64" || len(lock.Parts(old)) > 0 {
		t.Errorf("the parts are %s, and of the other kernel %v", got, lock.Parts(old))
	}
	if err := CheckLock(lock, want); err != nil {
		t.Error(err)
	}
	if lines := Changes(&profile.Lock{}, lock); len(lines) != 2 {
		t.Errorf("changes are told as %q", lines)
	}
	delete(want, second)
	if err := CheckLock(lock, want); err == nil || !strings.Contains(err.Error(), "no profile or board wants package linux-modules-7.3-amd64") {
		t.Errorf("what nobody wants any more is not found: %v", err)
	}
	want.Add(second, "hello", profile.Position{})
	if _, err := cache.Lock(t.Context(), suite, want); err == nil || !strings.Contains(err.Error(), "no package hello for amd64 in trixie-backports") {
		t.Errorf("a package of the first suite was taken for one of the second: %v", err)
	}
}

func TestLockRefuses(t *testing.T) {
	key, stranger := newKey(t, "archive"), newKey(t, "stranger")
	tamper := func(name, from, to string) func(map[string][]byte) {
		return func(files map[string][]byte) {
			changed := bytes.Replace(files[name], []byte(from), []byte(to), 1)
			if bytes.Equal(changed, files[name]) {
				panic("nothing was tampered with")
			}
			files[name] = changed
		}
	}
	const inRelease, list = "/dists/trixie/InRelease", "/dists/trixie/main/binary-amd64/Packages.xz"
	for _, c := range []struct {
		name   string
		signer *openpgp.Entity
		extra  string
		suite  string
		mangle func(map[string][]byte)
		wanted string
		want   []string
	}{
		{name: "tampered release", mangle: tamper(inRelease, "Origin: Test", "Origin: Evil"), want: []string{"cannot trust", "signature", "nothing was changed"}},
		{name: "tampered digest", mangle: tamper(inRelease, "SHA256:\n ", "SHA256:\n 0"), want: []string{"cannot trust", "signature"}},
		{name: "signed by a stranger", signer: stranger, want: []string{"cannot trust", "signature"}},
		{name: "not signed", mangle: func(f map[string][]byte) { f[inRelease] = []byte("Codename: trixie\n") }, want: []string{"cannot trust", "not a signed"}},
		{name: "other release", suite: "bookworm", mangle: func(f map[string][]byte) { f["/dists/bookworm/InRelease"] = f[inRelease] }, want: []string{"is of release trixie, not bookworm"}},
		{name: "out of date", extra: "Valid-Until: Wed, 25 Nov 2026 11:00:00 UTC\n", want: []string{"valid until 2026-11-25T11:00:00Z", "out of date"}},
		{name: "tampered list", mangle: func(f map[string][]byte) { f[list][40] ^= 1 }, want: []string{"wrong digest"}},
		{name: "list missing", mangle: func(f map[string][]byte) { delete(f, list) }, want: []string{"package list main/binary-amd64", "does not have it"}},
		{name: "no such package", wanted: "goodbye", want: []string{"p.yaml:3:5", "no package goodbye for amd64", "left as it is"}},
		{name: "stands for nothing", wanted: "linux-image-broken", want: []string{"linux-image-gone", "stands for"}},
		{name: "mirror has nothing", mangle: func(f map[string][]byte) { clear(f) }, want: []string{"cannot fetch dists/trixie/InRelease", "404", "--mirror URL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			signer, suite, name := key, "trixie", "hello"
			if c.signer != nil {
				signer = c.signer
			}
			if c.suite != "" {
				suite = c.suite
			}
			if c.wanted != "" {
				name = c.wanted
			}
			files := newArchive(t, signer, false, c.extra)
			if c.mangle != nil {
				c.mangle(files)
			}
			want := Want{}
			want.Add(Source{Architecture: "amd64"}, name, profile.Position{File: "p.yaml", Line: 3, Column: 5})
			cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{serve(t, files)}}
			lock, err := cache.Lock(t.Context(), Suite{Name: suite, Components: []string{"main"}, Keys: openpgp.EntityList{key}, Now: now}, want)
			if err == nil {
				t.Fatalf("no error, lock %+v", lock)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q:\n%v", part, err)
				}
			}
		})
	}
}

// What stands before or after the signed part must not be read: the signature says nothing about it.
func TestOnlyTheSignedPartIsRead(t *testing.T) {
	key := newKey(t, "archive")
	signed := newArchive(t, key, false, "")["/dists/trixie/InRelease"]
	data := append(append([]byte("Codename: evil\n"), signed...), []byte("\nCodename: evil\n")...)
	r, err := VerifyRelease(data, openpgp.EntityList{key}, now)
	if err != nil {
		return // refusing it is as good
	}
	if r.Codename != "trixie" {
		t.Errorf("read %q from outside of the signed part", r.Codename)
	}
}

// The table in keys/README.md is what a person compares with Debian's own pages.
func TestDebianKeys(t *testing.T) {
	keys, err := DebianKeys()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("keys/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 {
		t.Errorf("there are %d keys, want 2", len(keys))
	}
	for _, k := range keys {
		fingerprint := strings.ToUpper(hex.EncodeToString(k.PrimaryKey.Fingerprint))
		if !strings.Contains(string(readme), fingerprint) {
			t.Errorf("keys/README.md does not have key %s", fingerprint)
		}
		for _, identity := range k.Identities {
			expiry := identity.SelfSignature.CreationTime
			if s := identity.SelfSignature.KeyLifetimeSecs; s != nil {
				expiry = k.PrimaryKey.CreationTime.Add(time.Duration(*s) * time.Second)
			}
			if !strings.Contains(string(readme), expiry.UTC().Format(time.DateOnly)) {
				t.Errorf("keys/README.md does not say that key %s expires on %s", fingerprint, expiry.UTC().Format(time.DateOnly))
			}
		}
	}
}

func TestCheckLockAndChanges(t *testing.T) {
	locked := func(name, version, architecture, stands string) profile.LockedPackage {
		return profile.LockedPackage{Name: name, Version: version, Architecture: architecture, For: stands, Position: profile.Position{File: "skerry.lock", Line: 9, Column: 3}}
	}
	from := &profile.Lock{Packages: []profile.LockedPackage{
		locked("a", "1", "amd64", ""), locked("gone", "1", "all", ""), locked("linux-image-1", "1", "amd64", "linux-image-amd64"), locked("same", "1", "amd64", ""),
	}}
	to := &profile.Lock{Packages: []profile.LockedPackage{
		locked("a", "2", "amd64", ""), locked("new", "1", "all", ""), locked("linux-image-2", "2", "amd64", "linux-image-amd64"), locked("same", "1", "amd64", ""),
	}}
	got := strings.Join(Changes(from, to), "\n")
	want := "a (amd64): 1 -> 2\ngone (all): removed, was 1\nlinux-image-amd64 (amd64): 1 -> 2\nnew (all): added at 1"
	if got != want {
		t.Errorf("changes:\n%s\nwant:\n%s", got, want)
	}
	if lines := Changes(from, from); len(lines) != 0 {
		t.Errorf("changes of a lock to itself: %v", lines)
	}

	w := Want{}
	for _, name := range []string{"a", "new", "linux-image-amd64", "same"} {
		w.Add(Source{Architecture: "amd64"}, name, profile.Position{File: "p.yaml", Line: 1, Column: 1})
	}
	if err := CheckLock(to, w); err != nil {
		t.Errorf("complete lock: %v", err)
	}
	err := CheckLock(from, w)
	want = "p.yaml:1:1: package new for amd64 is not in the lock\nskerry.lock:9:3: no profile or board wants package gone for all any more"
	if err == nil || err.Error() != want {
		t.Errorf("incomplete lock: got:\n%v\nwant:\n%s", err, want)
	}
}
