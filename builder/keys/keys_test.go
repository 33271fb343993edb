package keys

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerryos/skerry/initd/bundle"
)

func TestNewSignsWhatItsPublicHalfVerifies(t *testing.T) {
	s := Store{filepath.Join(t.TempDir(), "keys")}
	k, err := s.New("fleet", "")
	if err != nil {
		t.Fatal(err)
	}
	sign, err := Open(k.Secret, func() (string, error) { return "", errors.New("a passphrase was asked for") })
	if err != nil {
		t.Fatal(err)
	}
	public, err := bundle.ParsePublicKey(k.Public)
	if err != nil {
		t.Fatal(err)
	}
	root := []byte("root")
	sources := []bundle.Source{{Name: "root", Size: 4, Content: bytes.NewReader(root)}}
	var first bytes.Buffer
	m := bundle.Manifest{Board: "x86-64", Architecture: "amd64", Version: "1.0.0"}
	if _, err := bundle.Create(&first, m, sources, func(b []byte) ([]byte, error) { return sign.Sign(b, "1.0.0") }); err != nil {
		t.Fatal(err)
	}
	if _, err := bundle.Open(bytes.NewReader(first.Bytes()), []bundle.PublicKey{public}); err != nil {
		t.Error(err)
	}
	other, err := s.New("other", "")
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := bundle.ParsePublicKey(other.Public)
	if _, err := bundle.Open(bytes.NewReader(first.Bytes()), []bundle.PublicKey{stranger}); err == nil {
		t.Error("another key has verified the bundle")
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Name != "fleet" || list[1].Name != "other" {
		t.Errorf("the list is %+v, %v", list, err)
	}
}

func TestNewNeverReplaces(t *testing.T) {
	s := Store{t.TempDir()}
	if _, err := s.New("fleet", ""); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(filepath.Join(s.Dir, "fleet.key"))
	if _, err := s.New("fleet", ""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the second key of a name: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(s.Dir, "fleet.key")); !bytes.Equal(before, after) {
		t.Error("the secret half was replaced")
	}
	if info, err := os.Stat(filepath.Join(s.Dir, "fleet.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret half: %v, %v", info, err)
	}
}

func TestMistakes(t *testing.T) {
	s := Store{t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.Dir, "broken.key"), []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"name with a folder", func() error { _, err := s.New("../x", ""); return err }, "a name has small letters"},
		{"no such key", func() error { _, err := s.Get("nobody"); return err }, "make it with: skerry keys new nobody"},
		{"not a key", func() error { _, err := Open(filepath.Join(s.Dir, "broken.key"), nil); return err }, "not a secret key of minisign"},
	} {
		if err := c.do(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
