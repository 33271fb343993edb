package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"aead.dev/minisign"
)

// A PublicKey is a key that signatures are checked with.
type PublicKey = minisign.PublicKey

// maxKeyFile is more than any public key has, in bytes.
const maxKeyFile = 1 << 10

// KeyID is a key's identifier as people and manifests write it: 16 digits, hexadecimal, as the minisign tool has them.
func KeyID(k PublicKey) string { return keyID(k.ID()) }

func keyID(id uint64) string { return fmt.Sprintf("%016X", id) }

var keyIDForm = regexp.MustCompile(`^[0-9A-F]{16}$`)

// ParsePublicKey reads a public key: a file of the minisign tool, or the one line of it that is the key.
func ParsePublicKey(text string) (PublicKey, error) {
	var k PublicKey
	if len(text) > maxKeyFile {
		return k, fmt.Errorf("a public key has at most %d bytes, this has %d", maxKeyFile, len(text))
	}
	if err := k.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
		return k, errors.New("it is not a public key of minisign (a comment, and a line that begins with RW)")
	}
	return k, nil
}

// A KeyChange is what a bundle does to the keys that a device trusts.
type KeyChange struct {
	// Add are public keys, each as the one line that is the key.
	Add []string `json:"add,omitempty"`
	// Retire are identifiers of keys that are never to be trusted again, whatever an image or another bundle says.
	Retire []string `json:"retire,omitempty"`
}

// Empty tells whether nothing is changed.
func (c KeyChange) Empty() bool { return len(c.Add) == 0 && len(c.Retire) == 0 }

// parse checks the change by itself and returns the keys to add.
func (c KeyChange) parse() ([]PublicKey, error) {
	if len(c.Add) > MaxKeys || len(c.Retire) > MaxKeys {
		return nil, fmt.Errorf("%d keys to add and %d to retire; allowed are %d of each", len(c.Add), len(c.Retire), MaxKeys)
	}
	var add []PublicKey
	seen := map[string]bool{}
	for i, line := range c.Add {
		k, err := ParsePublicKey(line)
		if err != nil {
			return nil, fmt.Errorf("key %d to add: %w", i, err)
		}
		if k.String() != line {
			return nil, fmt.Errorf("key %d to add is not just the line that is the key", i)
		}
		if seen[KeyID(k)] {
			return nil, fmt.Errorf("key %s is added twice", KeyID(k))
		}
		seen[KeyID(k)] = true
		add = append(add, k)
	}
	for _, id := range c.Retire {
		if !keyIDForm.MatchString(id) {
			return nil, fmt.Errorf("%q to retire is not the identifier of a key (16 digits, hexadecimal, large letters)", id)
		}
		if seen[id] {
			return nil, fmt.Errorf("key %s is retired twice, or added and retired", id)
		}
		seen[id] = true
	}
	return add, nil
}

// Keys are the keys that a device trusts: those of its image, and what bundles have changed since. The zero Keys trust
// nobody. Their JSON form is what a device keeps.
type Keys struct {
	trusted []PublicKey
	retired []string
}

// keysState is the JSON form of Keys.
type keysState struct {
	Trusted []string `json:"trusted"`
	Retired []string `json:"retired"`
}

// ReadKeys reads the keys of an image: every file *.pub of the folder, in the order of their names. Any of them that
// cannot be read is an error, since a device that trusts fewer keys than it was given may be one that nobody can upgrade.
func ReadKeys(dir fs.FS) ([]PublicKey, error) {
	names, err := fs.Glob(dir, "*.pub")
	if err != nil {
		return nil, fmt.Errorf("cannot list the trusted keys: %w", err)
	}
	var keys []PublicKey
	for _, n := range names {
		text, err := fs.ReadFile(dir, n)
		if err != nil {
			return nil, fmt.Errorf("cannot read trusted key: %w", err)
		}
		k, err := ParsePublicKey(string(text))
		if err != nil {
			return nil, fmt.Errorf("cannot read trusted key %s: %w", path.Base(n), err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Trust adds keys of the image. One that is retired stays so: an older image does not bring back what a bundle took away.
func (k *Keys) Trust(keys ...PublicKey) {
	for _, n := range keys {
		known := slices.ContainsFunc(k.trusted, func(o PublicKey) bool { return o.Equal(n) })
		if !known && !k.IsRetired(KeyID(n)) {
			k.trusted = append(k.trusted, n)
		}
	}
}

// Trusted are the keys that a bundle may be signed with.
func (k *Keys) Trusted() []PublicKey { return slices.Clone(k.trusted) }

// Retired are the identifiers of keys that are never trusted again.
func (k *Keys) Retired() []string { return slices.Clone(k.retired) }

// IsRetired tells whether the key of that identifier is never trusted again.
func (k *Keys) IsRetired(id string) bool { return slices.Contains(k.retired, id) }

// Apply changes the keys as a bundle asks that one of them has signed. It is all or nothing: a change that would leave no
// trusted key, or that would bring back a retired one, changes nothing. Applying a change again changes nothing either.
//
// A device applies the change when it commits to the bundle's version, not before: after a rollback the old version must
// still accept what its own keys sign.
func (k *Keys) Apply(c KeyChange) error {
	add, err := c.parse()
	if err != nil {
		return fmt.Errorf("cannot change the trusted keys: %w; they stay as they are", err)
	}
	next := Keys{trusted: k.Trusted(), retired: k.Retired()}
	for _, n := range add {
		id := KeyID(n)
		if next.IsRetired(id) {
			return fmt.Errorf("cannot trust key %s: it is retired; the trusted keys stay as they are; make a new key with: skerry keys rotate", id)
		}
		// Identifiers are not part of what is signed. Two keys that share one could not be told apart when one is retired.
		if slices.ContainsFunc(next.trusted, func(o PublicKey) bool { return KeyID(o) == id && !o.Equal(n) }) {
			return fmt.Errorf("cannot trust key %s: another key has this identifier; the trusted keys stay as they are", id)
		}
		next.Trust(n)
	}
	for _, id := range c.Retire {
		if !next.IsRetired(id) {
			next.retired = append(next.retired, id)
		}
		next.trusted = slices.DeleteFunc(next.trusted, func(o PublicKey) bool { return KeyID(o) == id })
	}
	if len(next.trusted) == 0 && !c.Empty() {
		return errors.New("cannot retire keys: no trusted key would be left, and nobody could upgrade the device any more; the trusted keys stay as they are")
	}
	*k = next
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (k Keys) MarshalJSON() ([]byte, error) {
	s := keysState{Trusted: []string{}, Retired: append([]string{}, k.retired...)}
	for _, t := range k.trusted {
		s.Trusted = append(s.Trusted, t.String())
	}
	return json.Marshal(s)
}

// UnmarshalJSON implements [json.Unmarshaler]. What it cannot read leaves the keys as they were.
func (k *Keys) UnmarshalJSON(data []byte) error {
	var s keysState
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return fmt.Errorf("cannot read the trusted keys: %w", err)
	}
	var next Keys
	for _, id := range s.Retired {
		if !keyIDForm.MatchString(id) {
			return fmt.Errorf("cannot read the trusted keys: %q is not the identifier of a key", id)
		}
		next.retired = append(next.retired, id)
	}
	for _, line := range s.Trusted {
		t, err := ParsePublicKey(line)
		if err != nil {
			return fmt.Errorf("cannot read the trusted keys: %w", err)
		}
		next.Trust(t)
	}
	*k = next
	return nil
}

// Open is [Open] with the trusted keys, and an error that tells a retired key from one that was never trusted.
func (k *Keys) Open(r io.Reader) (*Reader, error) {
	b, err := Open(r, k.trusted)
	var u *UntrustedError
	if errors.As(err, &u) && k.IsRetired(u.KeyID) {
		u.Retired = true
	}
	return b, err
}
