// Package keys keeps the keys that bundles are signed with: pairs of files of the minisign tool in a folder of the user,
// NAME.key (secret, mode 0600) and NAME.pub.
package keys

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"aead.dev/minisign"

	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/initd/bundle"
)

// A Store is a folder of keys.
type Store struct {
	Dir string
}

// Default is the user's own store: $XDG_CONFIG_HOME/skerry/keys, or what the system has in its place.
func Default() (Store, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return Store{}, fmt.Errorf("cannot find the folder of keys: %w", err)
	}
	return Store{filepath.Join(dir, "skerry", "keys")}, nil
}

// A Key is a pair in the store.
type Key struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	// Public is the line that images and devices are given.
	Public string `json:"public"`
	// Secret is the file with the secret half, empty if only the public one is here.
	Secret string `json:"secret,omitempty"`
	// Encrypted tells that a passphrase is needed to sign.
	Encrypted bool `json:"encrypted"`
}

// Development is the name of the key that is made where none was named, so that a first image can be upgraded at all. Its
// secret half is not encrypted, so no image for the field may trust it.
const Development = "development"

const (
	secretSuffix = ".key"
	publicSuffix = ".pub"
)

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func (s Store) file(name, suffix string) string { return filepath.Join(s.Dir, name+suffix) }

// PublicFile is the file with the public half of a key.
func (s Store) PublicFile(name string) string { return s.file(name, publicSuffix) }

// New makes a key. With an empty passphrase the secret half is not encrypted. An existing key of that name is never replaced:
// devices that trust only it could not be upgraded any more.
func (s Store) New(name, passphrase string) (Key, error) {
	if !nameForm.MatchString(name) {
		return Key{}, fmt.Errorf("cannot make key %q: a name has small letters, digits, dots and hyphens, 64 at most", name)
	}
	public, secret, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("cannot make key %s: %w", name, err)
	}
	var text []byte
	if passphrase == "" {
		text, err = secret.MarshalText()
	} else {
		text, err = minisign.EncryptKey(passphrase, secret)
	}
	if err != nil {
		return Key{}, fmt.Errorf("cannot make key %s: %w", name, err)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return Key{}, fmt.Errorf("cannot make the folder of keys: %w", err)
	}
	// A public half alone may be in images already: a new secret one would not go with it.
	if _, err := os.Lstat(s.file(name, publicSuffix)); err == nil {
		return Key{}, fmt.Errorf("cannot keep key %s: %w: %s; nothing was replaced; take another name", name, fs.ErrExist, s.file(name, publicSuffix))
	}
	// The secret half first: a public one that nobody can sign for must not come into an image.
	for _, f := range []struct {
		suffix string
		text   []byte
		mode   fs.FileMode
	}{
		{secretSuffix, append(text, '\n'), 0o600},
		{publicSuffix, []byte(trustedKey(name, public).File()), 0o644},
	} {
		if err := writeNew(s.file(name, f.suffix), f.text, f.mode); err != nil {
			return Key{}, fmt.Errorf("cannot keep key %s: %w; nothing was replaced", name, err)
		}
	}
	return s.Get(name)
}

// writeNew writes a file that must not be there, and makes it durable.
func writeNew(name string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// Get finds a key by its name.
func (s Store) Get(name string) (Key, error) {
	text, err := os.ReadFile(s.file(name, publicSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return Key{}, fmt.Errorf("there is no key %q in %s; make it with: skerry keys new %s: %w", name, s.Dir, name, fs.ErrNotExist)
	}
	if err != nil {
		return Key{}, fmt.Errorf("cannot read key %s: %w", name, err)
	}
	public, err := bundle.ParsePublicKey(string(text))
	if err != nil {
		return Key{}, fmt.Errorf("cannot read key %s: %w", s.file(name, publicSuffix), err)
	}
	k := Key{Name: name, ID: bundle.KeyID(public), Public: public.String()}
	secret, err := os.ReadFile(s.file(name, secretSuffix))
	switch {
	case err == nil:
		k.Secret, k.Encrypted = s.file(name, secretSuffix), minisign.IsEncrypted(secret)
	case !errors.Is(err, fs.ErrNotExist):
		return Key{}, fmt.Errorf("cannot read key %s: %w", name, err)
	}
	return k, nil
}

// Trusted is the public half as images carry it.
func (k Key) Trusted() plan.TrustedKey {
	return plan.TrustedKey{ID: k.ID, Line: k.Public, Development: k.Name == Development}
}

func trustedKey(name string, public bundle.PublicKey) plan.TrustedKey {
	return Key{Name: name, ID: bundle.KeyID(public), Public: public.String()}.Trusted()
}

// Trusted reads files with public keys that an image is to trust. A development key is known by its comment, which goes
// along when the file is copied, and if it is this store's own by the key itself.
func (s Store) Trusted(files []string) ([]plan.TrustedKey, error) {
	own, err := s.Get(Development)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []plan.TrustedKey
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read public key: %w", err)
		}
		public, err := bundle.ParsePublicKey(string(text))
		if err != nil {
			return nil, fmt.Errorf("cannot read public key %s: %w", name, err)
		}
		k := trustedKey("", public)
		k.Development = k.Line == own.Public || bytes.HasPrefix(text, []byte("untrusted comment: skerry development key"))
		list = append(list, k)
	}
	return list, nil
}

// List lists the keys by name.
func (s Store) List() ([]Key, error) {
	files, err := filepath.Glob(filepath.Join(s.Dir, "*"+publicSuffix))
	if err != nil {
		return nil, fmt.Errorf("cannot list the keys in %s: %w", s.Dir, err)
	}
	slices.Sort(files)
	list := []Key{}
	for _, f := range files {
		k, err := s.Get(strings.TrimSuffix(filepath.Base(f), publicSuffix))
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

// A Signer signs manifests.
type Signer struct {
	// ID is the identifier of its key.
	ID     string
	secret minisign.PrivateKey
}

// Open opens the secret half in a file for signing. passphrase is asked only if it is encrypted.
func Open(file string, passphrase func() (string, error)) (*Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the signing key: %w", err)
	}
	return Parse(file, text, passphrase)
}

// Parse is Open for a secret half that is not in a file; origin stands in messages.
func Parse(origin string, text []byte, passphrase func() (string, error)) (*Signer, error) {
	var secret minisign.PrivateKey
	if minisign.IsEncrypted(text) {
		word, err := passphrase()
		if err != nil {
			return nil, err
		}
		if secret, err = minisign.DecryptKey(word, text); err != nil {
			return nil, fmt.Errorf("cannot decrypt the signing key %s: the passphrase is wrong, or the file is damaged", origin)
		}
	} else if err := secret.UnmarshalText(text); err != nil {
		return nil, fmt.Errorf("cannot read the signing key %s: it is not a secret key of minisign: %w", origin, err)
	}
	public, ok := secret.Public().(minisign.PublicKey)
	if !ok {
		return nil, fmt.Errorf("cannot read the signing key %s: it has no public half", origin)
	}
	return &Signer{ID: bundle.KeyID(public), secret: secret}, nil
}

// Sign signs a manifest. The comment is part of what is signed; the same manifest, comment and key give the same signature.
func (s *Signer) Sign(manifest []byte, trustedComment string) ([]byte, error) {
	// By way of a reader, because that signs a hash: bundles allow nothing else.
	r := minisign.NewReader(bytes.NewReader(manifest))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return r.SignWithComments(s.secret, trustedComment, "signature of a skerry bundle's manifest, key "+s.ID), nil
}
