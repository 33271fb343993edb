package updatetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"aead.dev/minisign"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
)

// Sizes in bytes.
const (
	ChunkSize = 1024
	RootSize  = 12 * ChunkSize
	BootSize  = 3 * ChunkSize
	// PartitionSize is larger than the root file system: what is behind it is none of the upgrade's business.
	PartitionSize = RootSize + 2*ChunkSize
)

// made are contents by slot and version: they are asked for ten thousands of times.
var made sync.Map

func once(key string, make func() []byte) []byte {
	if b, ok := made.Load(key); ok {
		return b.([]byte)
	}
	b, _ := made.LoadOrStore(key, make())
	return b.([]byte)
}

// Image is a boot image: it says of itself what it is, and which root file system it wants.
func Image(n slot.Name, version string) []byte {
	return once(string(n)+" "+version, func() []byte {
		sum := sha256.Sum256(RootFS(version))
		text := fmt.Sprintf("%s %s %s ", n, version, hex.EncodeToString(sum[:]))
		return []byte(strings.Repeat(text, BootSize/len(text)+1)[:BootSize])
	})
}

// RootFS is noise, zeros and text, so that bundles have chunks of every encoding.
func RootFS(version string) []byte {
	return once(version, func() []byte {
		seed := sha256.Sum256([]byte(version))
		noise := make([]byte, 4*ChunkSize)
		_, _ = rand.NewChaCha8(seed).Read(noise) // never fails
		b := append(noise, make([]byte, 2*ChunkSize)...)
		return append(b, strings.Repeat(version+" ", RootSize)[:RootSize-len(b)]...)
	})
}

// A Signer is a key that is the same in every run.
type Signer struct {
	Public  minisign.PublicKey
	private minisign.PrivateKey
}

func newSigner(seed byte) Signer {
	public, private, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		panic(err)
	}
	return Signer{public, private}
}

// Owner is whom devices trust; Next is somebody else.
var Owner, Next = newSigner(1), newSigner(2)

// Bundle makes a bundle of a version; change may change its manifest before it is signed, and key signs it.
func Bundle(t testing.TB, version string, key Signer, change func(*bundle.Manifest)) []byte {
	t.Helper()
	source := func(name string, b []byte) bundle.Source {
		return bundle.Source{Name: name, Size: int64(len(b)), Content: bytes.NewReader(b), ChunkSize: ChunkSize}
	}
	m := bundle.Manifest{Board: Board, Architecture: Architecture, Version: version, Created: 1764000000}
	sources := []bundle.Source{source("root", RootFS(version)), source("boot-a", Image(slot.A, version)), source("boot-b", Image(slot.B, version))}
	if change != nil {
		change(&m)
	}
	var b bytes.Buffer
	_, err := bundle.Create(&b, m, sources, func(manifest []byte) ([]byte, error) {
		r := minisign.NewReader(bytes.NewReader(manifest))
		if _, err := io.Copy(io.Discard, r); err != nil {
			return nil, err
		}
		return r.SignWithComments(key.private, "test", "test"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
