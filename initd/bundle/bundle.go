// Package bundle is the signed update format: one stream (.skb) that carries the bytes of a slot, and is made of
//
//	8 bytes    magic, "SKERRYB1"
//	4 bytes    length of the manifest, big endian, at most MaxManifest
//	           manifest, JSON
//	4 bytes    length of the signature, big endian, at most MaxSignature
//	           signature of the manifest, as minisign writes it
//	           chunks, back to back, in the order of the manifest
//
// and nothing after it. docs/bundle-format.md is the reference.
//
// The manifest comes first and is signed, and it has the sum of every chunk: [Open] returns once signature and manifest
// are right, having read nothing else, and [Reader.Next] hands out a chunk only when its sum is right. Whoever reads the
// stream thus never acts on a byte that no trusted key vouches for. Every size is held against a limit before memory is
// taken for it, so a stream from anywhere may be read. Nothing in it names a file.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
)

// Format is the version of the format that this package writes, and the only one that it reads.
const Format = 1

// magic opens every bundle; its last byte is the format's version.
const magic = "SKERRYB1"

// Limits of the format. A bundle beyond one of them cannot be written, and is refused before memory is taken for it.
const (
	// MaxManifest and MaxSignature are in bytes.
	MaxManifest  = 4 << 20
	MaxSignature = 4 << 10
	// MaxChunk is the size of the largest chunk, in plain bytes. A reader holds a chunk twice, plain and as it is stored,
	// so this bounds what an upgrade costs a device in memory.
	MaxChunk = 16 << 20
	// MaxChunks and MaxArtefacts are how many of them a bundle may have, MaxKeys how many keys it may add or retire.
	MaxChunks    = 16384
	MaxArtefacts = 16
	MaxKeys      = 16
	// MaxFloor is the largest floor that every reader of JSON keeps exactly (RFC 8259, section 6).
	MaxFloor = 1<<53 - 1
)

// RootArtefact is the name of the artefact with the bytes of a slot's root partition. Its chunks come before all others:
// what starts a slot is written only when there is something to start.
const RootArtefact = "root"

// BootArtefact is the name of the artefact with what starts a slot, "a" or "b". On machines with UEFI it is the slot's
// unified kernel image.
func BootArtefact(slot string) string { return "boot-" + slot }

// A Manifest says what a bundle is for and what it holds.
type Manifest struct {
	Format int `json:"format"`
	// Board and Architecture (in the words of GOARCH) say which devices it is for.
	Board        string `json:"board"`
	Architecture string `json:"architecture"`
	// Version is the image's, as in skerry.version on the kernel command line.
	Version string `json:"version"`
	// Floor is the security floor: a device refuses bundles with a lower one than the highest that it has committed, so
	// that nobody can take it back to a version with a known hole.
	Floor uint64 `json:"floor"`
	// Created is the one date of the image that the bundle was made from, in Unix seconds.
	Created   int64      `json:"created"`
	Artefacts []Artefact `json:"artefacts"`
	// Chunks are the stream, in its order.
	Chunks []Chunk   `json:"chunks"`
	Keys   KeyChange `json:"keys"`

	// offsets are where each chunk begins in the bundle, and behind them where the bundle ends. Open and Create fill them in.
	offsets []int64
}

// An Artefact is a file made of chunks.
type Artefact struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Chunks are indices into Manifest.Chunks, ascending: whoever follows the stream writes each artefact from its start to
	// its end.
	Chunks []int `json:"chunks"`
}

// A Chunk is a piece of one or several artefacts.
type Chunk struct {
	// Size is in plain bytes, Stored in bytes of the stream.
	Size   int64 `json:"size"`
	Stored int64 `json:"stored"`
	// SHA256 is that of the plain bytes.
	SHA256   string   `json:"sha256"`
	Encoding Encoding `json:"encoding"`
}

// An Encoding is how a chunk is stored.
type Encoding string

// The encodings.
const (
	None Encoding = "none" // as it is
	Zstd Encoding = "zstd" // a Zstandard frame (RFC 8878), smaller than the chunk
	Zero Encoding = "zero" // nothing is stored: all bytes are zero
)

// A Place is where in an artefact a chunk belongs.
type Place struct {
	Artefact string
	Offset   int64
}

// Places lists where a chunk belongs: in one artefact, or in several that are alike. It looks at all artefacts; whoever
// follows the whole stream does better to advance one offset for each artefact.
func (m *Manifest) Places(chunk int) []Place {
	var places []Place
	for _, a := range m.Artefacts {
		at, ok := slices.BinarySearch(a.Chunks, chunk)
		if !ok {
			continue
		}
		p := Place{Artefact: a.Name}
		for _, before := range a.Chunks[:at] {
			p.Offset += m.Chunks[before].Size
		}
		places = append(places, p)
	}
	return places
}

// Artefact returns the artefact of that name, or nil.
func (m *Manifest) Artefact(name string) *Artefact {
	for i := range m.Artefacts {
		if m.Artefacts[i].Name == name {
			return &m.Artefacts[i]
		}
	}
	return nil
}

// Offset is where a chunk begins, in bytes from the start of the bundle; Offset(len(m.Chunks)) is the bundle's size. Only
// manifests of [Open] and [Create] know.
func (m *Manifest) Offset(chunk int) int64 { return m.offsets[chunk] }

// Size is the size of the whole bundle, in bytes.
func (m *Manifest) Size() int64 { return m.Offset(len(m.Chunks)) }

// place computes the offsets of chunks that follow a header of that size.
func (m *Manifest) place(header int64) {
	m.offsets = make([]int64, 0, len(m.Chunks)+1)
	for _, c := range m.Chunks {
		m.offsets = append(m.offsets, header)
		header += c.Stored
	}
	m.offsets = append(m.offsets, header)
}

// encode writes the manifest in its one form: without white space, keys in the order in which Manifest declares them.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// parseManifest reads a manifest strictly. It is called with bytes whose signature is right; that they are checked anyway
// keeps a mistake of a signer from becoming one of every device.
func parseManifest(data []byte) (*Manifest, error) {
	m := &Manifest{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the manifest")
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	// One value, one form: a key that is given twice or in other letters means different things to different readers.
	form, err := m.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(form, data) {
		return nil, errors.New("it is not in the one form that the format allows (compact, every key once, in order)")
	}
	return m, nil
}

var (
	// plainName is the form of boards, architectures and artefacts.
	plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	// plainVersion holds every version of https://semver.org.
	plainVersion = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$`)
	digest       = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// validate checks everything that the manifest says by itself.
func (m *Manifest) validate() error {
	if m.Format != Format {
		return fmt.Errorf("format %d is not known, only %d", m.Format, Format)
	}
	switch {
	case !plainName.MatchString(m.Board):
		return fmt.Errorf("board %q is not a name in small letters, digits and hyphens", m.Board)
	case !plainName.MatchString(m.Architecture):
		return fmt.Errorf("architecture %q is not a name in small letters and digits", m.Architecture)
	case !plainVersion.MatchString(m.Version):
		return fmt.Errorf("version %q is not of the form 1.2.3", m.Version)
	case m.Floor > MaxFloor:
		return fmt.Errorf("floor %d is above the highest allowed, %d", m.Floor, int64(MaxFloor))
	case m.Created < 0:
		return fmt.Errorf("creation time %d is before 1970", m.Created)
	case len(m.Chunks) == 0 || len(m.Chunks) > MaxChunks:
		return fmt.Errorf("%d chunks; allowed are 1 to %d", len(m.Chunks), MaxChunks)
	case len(m.Artefacts) == 0 || len(m.Artefacts) > MaxArtefacts:
		return fmt.Errorf("%d artefacts; allowed are 1 to %d", len(m.Artefacts), MaxArtefacts)
	}
	for i, c := range m.Chunks {
		if err := c.validate(); err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
	}
	if err := m.validateArtefacts(); err != nil {
		return err
	}
	_, err := m.Keys.parse()
	return err
}

func (m *Manifest) validateArtefacts() error {
	names := map[string]bool{}
	used := make([]bool, len(m.Chunks))
	root, others := -1, len(m.Chunks) // last chunk of the root, first chunk of what is not the root
	for _, a := range m.Artefacts {
		if !plainName.MatchString(a.Name) {
			return fmt.Errorf("artefact %q is not a name in small letters, digits and hyphens", a.Name)
		}
		if names[a.Name] {
			return fmt.Errorf("artefact %s is listed twice", a.Name)
		}
		names[a.Name] = true
		if !digest.MatchString(a.SHA256) {
			return fmt.Errorf("artefact %s: %q is not a SHA-256 in hexadecimal", a.Name, a.SHA256)
		}
		if len(a.Chunks) == 0 {
			return fmt.Errorf("artefact %s has no chunks", a.Name)
		}
		// The sum stays far below the range of int64: at most MaxChunks different chunks of at most MaxChunk bytes.
		var size int64
		last := -1
		for _, i := range a.Chunks {
			if i < 0 || i >= len(m.Chunks) {
				return fmt.Errorf("artefact %s names chunk %d; there are chunks 0 to %d", a.Name, i, len(m.Chunks)-1)
			}
			if i <= last {
				return fmt.Errorf("artefact %s names chunk %d after chunk %d; chunks must ascend", a.Name, i, last)
			}
			last = i
			used[i] = true
			size += m.Chunks[i].Size
		}
		if size != a.Size {
			return fmt.Errorf("artefact %s is said to have %d bytes, its chunks have %d", a.Name, a.Size, size)
		}
		if a.Name == RootArtefact {
			root = last
		} else {
			others = min(others, a.Chunks[0])
		}
	}
	if root >= others {
		return fmt.Errorf("chunk %d of another artefact comes before the last one of artefact %s, chunk %d", others, RootArtefact, root)
	}
	if i := slices.Index(used, false); i >= 0 {
		return fmt.Errorf("chunk %d belongs to no artefact", i)
	}
	return nil
}

func (c Chunk) validate() error {
	if c.Size < 1 || c.Size > MaxChunk {
		return fmt.Errorf("%d bytes; allowed are 1 to %d", c.Size, MaxChunk)
	}
	if !digest.MatchString(c.SHA256) {
		return fmt.Errorf("%q is not a SHA-256 in hexadecimal", c.SHA256)
	}
	var right bool
	switch c.Encoding {
	case None:
		right = c.Stored == c.Size
	case Zstd:
		right = c.Stored > 0 && c.Stored < c.Size
	case Zero:
		right = c.Stored == 0
	default:
		return fmt.Errorf("encoding %q is not known", c.Encoding)
	}
	if !right {
		return fmt.Errorf("%d bytes of the stream cannot be %d bytes with encoding %s", c.Stored, c.Size, c.Encoding)
	}
	return nil
}

// sum is a SHA-256 as the manifest has it.
func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
