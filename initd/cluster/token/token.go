// Package token reads and writes the secret that lets a node join a cluster.
//
// The full form is the one of K3s, so that scripts written for it go on working:
//
//	K10<64 hex digits>::<user>:<secret>
//
// The hex digits are the SHA-256 of the cluster's server-ca.crt file, byte for byte: they let a node know the server
// before it says the secret. The short form is the secret alone, as operators write it into the configuration of a whole
// fleet before any certificate authority exists; then the server proves itself by a signature made with the secret.
package token

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	prefix    = "K10"
	separator = "::"
	// User is the name in tokens that this program writes; K3s uses the same.
	User = "server"
	// MaxSecret bounds a secret, in bytes: far above any real one, it keeps a mistaken file out of a header.
	MaxSecret = 1024
)

// Token is a parsed join token.
type Token struct {
	// CAHash is the SHA-256 of the server's CA file in lower-case hex, empty in the short form.
	CAHash string
	// User is the name in front of the secret, empty in the short form.
	User string
	// Secret is what server and node share. It is never empty.
	Secret string
}

// Parse reads either form. Surrounding white space is dropped, because tokens are read from files and pasted by hand.
func Parse(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return Token{}, errors.New("cannot read the token: it is empty")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return Token{}, errors.New("cannot read the token: it contains white space or control characters")
	}
	if !strings.HasPrefix(s, prefix) || !strings.Contains(s, separator) {
		return checkSecret(Token{Secret: s})
	}
	hash, rest, _ := strings.Cut(strings.TrimPrefix(s, prefix), separator)
	if raw, err := hex.DecodeString(hash); err != nil || len(raw) != sha256.Size {
		return Token{}, fmt.Errorf("cannot read the token: between %q and %q there must be the 64 hex digits of the CA's SHA-256", prefix, separator)
	}
	user, secret, ok := strings.Cut(rest, ":")
	if !ok || user == "" {
		return Token{}, fmt.Errorf("cannot read the token: after %q there must be user:secret", separator)
	}
	return checkSecret(Token{CAHash: strings.ToLower(hash), User: user, Secret: secret})
}

func checkSecret(t Token) (Token, error) {
	if t.Secret == "" {
		return Token{}, errors.New("cannot read the token: its secret is empty")
	}
	if len(t.Secret) > MaxSecret {
		return Token{}, fmt.Errorf("cannot read the token: its secret has %d bytes, %d are allowed", len(t.Secret), MaxSecret)
	}
	return t, nil
}

// String writes the token in the form it was read in.
func (t Token) String() string {
	if t.CAHash == "" {
		return t.Secret
	}
	return prefix + t.CAHash + separator + t.User + ":" + t.Secret
}

// Full gives the long form for a cluster whose CA file has the content caPEM.
func (t Token) Full(caPEM []byte) Token {
	return Token{CAHash: Hash(caPEM), User: User, Secret: t.Secret}
}

// Hash is the form in which tokens name a CA file.
func Hash(caPEM []byte) string {
	sum := sha256.Sum256(caPEM)
	return hex.EncodeToString(sum[:])
}

// Generate makes a secret of 128 random bits in hex.
func Generate() Token {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return Token{Secret: hex.EncodeToString(b[:])}
}

// Bootstrap derives the Kubernetes bootstrap token (id, secret) in the form [a-z0-9]{6} and [a-z0-9]{16} of
// k8s.io/cluster-bootstrap. Both sides derive the same one; from it the secret itself cannot be computed, so whoever may
// read Secrets of kube-system does not learn the token.
func (t Token) Bootstrap() (id, secret string) {
	key, err := hkdf.Key(sha256.New, []byte(t.Secret), nil, "skerry bootstrap token v1", 22)
	if err != nil {
		panic(err) // only for lengths above 255 hashes
	}
	// 32 symbols: the low five bits of each byte, without bias.
	const symbols = "abcdefghijklmnopqrstuvwxyz234567"
	for i, b := range key {
		key[i] = symbols[b&31]
	}
	return string(key[:6]), string(key[6:])
}
