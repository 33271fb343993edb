package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"aead.dev/minisign"
	"github.com/klauspost/compress/zstd"
)

// An UntrustedError says that no trusted key has signed a bundle.
type UntrustedError struct {
	// KeyID is that of the key which the signature names.
	KeyID string
	// Retired tells that this key was trusted once. Forged tells that it is trusted, but has not signed this manifest.
	Retired, Forged bool
	trusted         []string
}

func (e *UntrustedError) Error() string {
	const refused = "bundle refused, nothing was written: "
	switch {
	case e.Retired:
		return refused + "it is signed with key " + e.KeyID + ", which is retired; sign it with a key that is still trusted"
	case e.Forged:
		return refused + "its manifest is not what key " + e.KeyID + " has signed: it was damaged or tampered with; fetch it again from where it was made"
	case len(e.trusted) == 0:
		return refused + "no key is trusted; build the image with --key"
	default:
		return refused + "it is signed with key " + e.KeyID + ", which is not trusted; trusted are: " + strings.Join(e.trusted, ", ")
	}
}

// A Reader reads a bundle: first [Open], then [Reader.Next] until io.EOF.
type Reader struct {
	manifest *Manifest
	signer   string
	header   []byte // everything before the first chunk

	r    io.Reader
	next int   // the chunk that r is positioned at
	err  error // what ended the reading

	stored, plain []byte // of the largest chunk
	decoder       *zstd.Decoder
}

// Open reads the head of a bundle and nothing else. It refuses what none of the keys has signed.
func Open(r io.Reader, keys []PublicKey) (*Reader, error) {
	return open(r, func(manifest, signature []byte) (string, error) { return verify(manifest, signature, keys) })
}

// OpenUnverified is Open for a person who wants to see what a bundle says of itself: nobody vouches for any of it.
func OpenUnverified(r io.Reader) (*Reader, error) {
	return open(r, func(_, signature []byte) (string, error) {
		s, err := parseSignature(signature)
		return keyID(s.KeyID), err
	})
}

func open(r io.Reader, verify func(manifest, signature []byte) (string, error)) (*Reader, error) {
	b := &Reader{r: r}
	if err := b.readMagic(); err != nil {
		return nil, fmt.Errorf("cannot read bundle: %w", err)
	}
	manifest, err := b.readPart("manifest", MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("cannot read bundle: %w", err)
	}
	signature, err := b.readPart("signature", MaxSignature)
	if err != nil {
		return nil, fmt.Errorf("cannot read bundle: %w", err)
	}
	// Signature first: what no trusted key has signed is not even decoded.
	if b.signer, err = verify(manifest, signature); err != nil {
		return nil, err
	}
	if b.manifest, err = parseManifest(manifest); err != nil {
		return nil, fmt.Errorf("bundle refused, nothing was written: manifest: %w", err)
	}
	b.manifest.place(int64(len(b.header)))
	return b, nil
}

func (r *Reader) readMagic() error {
	r.header = make([]byte, len(magic))
	if err := r.readFull(r.header); err != nil {
		return fmt.Errorf("magic: %w", err)
	}
	got, version := string(r.header[:len(magic)-1]), r.header[len(magic)-1]
	if got != magic[:len(magic)-1] {
		return errors.New("it is not a bundle (.skb)")
	}
	if version != magic[len(magic)-1] {
		return fmt.Errorf("it is in format %q, this version reads format %d only; upgrade to a version in between first", version, Format)
	}
	return nil
}

// readPart reads a part of the header that has its length in front of it.
func (r *Reader) readPart(name string, most uint32) ([]byte, error) {
	var length [4]byte
	if err := r.readFull(length[:]); err != nil {
		return nil, fmt.Errorf("length of the %s: %w", name, err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n == 0 || n > most {
		return nil, fmt.Errorf("%s of %d bytes; allowed are 1 to %d", name, n, most)
	}
	r.header = append(r.header, length[:]...)
	at := len(r.header)
	r.header = append(r.header, make([]byte, n)...)
	if err := r.readFull(r.header[at:]); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r.header[at:], nil
}

// readFull fills b; a stream that ends before is always io.ErrUnexpectedEOF.
func (r *Reader) readFull(b []byte) error {
	_, err := io.ReadFull(r.r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parseSignature(text []byte) (minisign.Signature, error) {
	var s minisign.Signature
	if err := s.UnmarshalText(text); err != nil {
		return s, fmt.Errorf("bundle refused, nothing was written: its signature is not one of minisign: %w", err)
	}
	// The other algorithm signs the message itself. One is enough.
	if s.Algorithm != minisign.HashEdDSA {
		return s, errors.New("bundle refused, nothing was written: its signature is of minisign's legacy kind, not prehashed")
	}
	return s, nil
}

// verify returns the identifier of the key that has signed the manifest.
func verify(manifest, signature []byte, keys []PublicKey) (string, error) {
	s, err := parseSignature(signature)
	if err != nil {
		return "", err
	}
	refusal := &UntrustedError{KeyID: keyID(s.KeyID)}
	for _, k := range keys {
		if minisign.Verify(k, manifest, signature) {
			return KeyID(k), nil
		}
		refusal.Forged = refusal.Forged || k.ID() == s.KeyID
		refusal.trusted = append(refusal.trusted, KeyID(k))
	}
	return "", refusal
}

// Manifest is what the bundle says of itself. It must not be changed.
func (r *Reader) Manifest() *Manifest { return r.manifest }

// Signer is the identifier of the key that has signed the bundle.
func (r *Reader) Signer() string { return r.signer }

// Header is everything before the first chunk. Whoever keeps it can open the bundle again and continue in its middle:
// Open the header, then [Reader.Resume].
func (r *Reader) Header() []byte { return r.header }

// Signed are the parts of the header that the minisign tool takes: the manifest, and its signature.
func (r *Reader) Signed() (manifest, signature []byte) {
	rest := r.header[len(magic):]
	n := binary.BigEndian.Uint32(rest)
	return rest[4:][:n], rest[4+n+4:]
}

// Resume continues at a chunk with another stream, which begins at the chunk's [Manifest.Offset]. An error of the former
// stream is forgotten.
func (r *Reader) Resume(chunk int, rest io.Reader) error {
	if chunk < 0 || chunk > len(r.manifest.Chunks) {
		return fmt.Errorf("cannot resume bundle at chunk %d: it has %d", chunk, len(r.manifest.Chunks))
	}
	r.r, r.next, r.err = rest, chunk, nil
	return nil
}

// SkipTo passes over chunks, without looking at them, until the given one is next. It serves where a stream cannot be
// asked to begin in the middle.
func (r *Reader) SkipTo(chunk int) error {
	if chunk < r.next || chunk > len(r.manifest.Chunks) {
		return fmt.Errorf("cannot skip to chunk %d of bundle: chunk %d of %d is next", chunk, r.next, len(r.manifest.Chunks))
	}
	if r.err != nil {
		return r.err
	}
	n := r.manifest.Offset(chunk) - r.manifest.Offset(r.next)
	if _, err := io.CopyN(io.Discard, r.r, n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		r.err = fmt.Errorf("cannot skip to chunk %d of bundle: %w", chunk, err)
		return r.err
	}
	r.next = chunk
	return nil
}

// Next returns the next chunk, whose sum is right, and its index. The bytes are valid until the next call. After the last
// chunk, and when the stream ends there too, the error is io.EOF; every other error wraps what the stream said, which is
// io.ErrUnexpectedEOF when it has ended too early. An error ends the reading until [Reader.Resume].
func (r *Reader) Next() (index int, plain []byte, err error) {
	if r.err == nil {
		r.err = r.read()
	}
	if r.err != nil {
		return 0, nil, r.err
	}
	r.next++
	return r.next - 1, r.plain[:r.manifest.Chunks[r.next-1].Size], nil
}

// read reads the next chunk into r.plain.
func (r *Reader) read() error {
	if r.next == len(r.manifest.Chunks) {
		return r.readEnd()
	}
	if r.plain == nil {
		if err := r.allocate(); err != nil {
			return err
		}
	}
	c := r.manifest.Chunks[r.next]
	if err := r.decode(c, r.plain[:c.Size]); err != nil {
		return fmt.Errorf("cannot read chunk %d of %d of bundle, at byte %d: %w", r.next, len(r.manifest.Chunks), r.manifest.Offset(r.next), err)
	}
	if sum(r.plain[:c.Size]) != c.SHA256 {
		return fmt.Errorf("chunk %d of bundle, at byte %d, refused: its sum is not that of the signed manifest; it was damaged or tampered with; nothing of it was written; fetch the bundle again", r.next, r.manifest.Offset(r.next))
	}
	return nil
}

// readEnd makes sure that nothing follows the last chunk.
func (r *Reader) readEnd() error {
	var one [1]byte
	switch _, err := io.ReadFull(r.r, one[:]); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return fmt.Errorf("cannot read the end of bundle: %w", err)
	default:
		return errors.New("bundle refused: something follows its last chunk")
	}
}

// allocate takes the memory that the largest chunk needs, once.
func (r *Reader) allocate() error {
	var plain, stored int64
	for _, c := range r.manifest.Chunks {
		plain = max(plain, c.Size)
		if c.Encoding == Zstd {
			stored = max(stored, c.Stored)
		}
	}
	var err error
	// The decoder may write as much as the buffer that it is given holds, and no more.
	r.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(MaxChunk), zstd.WithDecoderMaxMemory(MaxChunk))
	if err != nil {
		return fmt.Errorf("cannot make a Zstandard decoder: %w", err)
	}
	r.plain, r.stored = make([]byte, plain), make([]byte, stored)
	return nil
}

// decode fills plain with the chunk.
func (r *Reader) decode(c Chunk, plain []byte) error {
	switch c.Encoding {
	case Zero:
		clear(plain)
		return nil
	case None:
		return r.readFull(plain)
	case Zstd:
		stored := r.stored[:c.Stored]
		if err := r.readFull(stored); err != nil {
			return err
		}
		out, err := r.decoder.DecodeAll(stored, plain[:0:len(plain)])
		if err != nil {
			return fmt.Errorf("cannot unpack: %w", err)
		}
		if len(out) != len(plain) {
			return fmt.Errorf("unpacked to %d bytes instead of %d", len(out), len(plain))
		}
		return nil
	}
	return fmt.Errorf("encoding %q is not known", c.Encoding)
}

// Verify reads what is left of a bundle, and checks besides each chunk that each artefact has the sum that the manifest
// says. The reader must be at its first chunk.
func Verify(r *Reader) error {
	type state struct {
		hash hash.Hash
		next int // index into the artefact's chunks
	}
	artefacts := make([]state, len(r.manifest.Artefacts))
	for i := range artefacts {
		artefacts[i].hash = sha256.New()
	}
	for {
		index, plain, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i, a := range r.manifest.Artefacts {
			if s := &artefacts[i]; s.next < len(a.Chunks) && a.Chunks[s.next] == index {
				s.hash.Write(plain)
				s.next++
			}
		}
	}
	for i, a := range r.manifest.Artefacts {
		if got := hex.EncodeToString(artefacts[i].hash.Sum(nil)); got != a.SHA256 {
			return fmt.Errorf("artefact %s of bundle has SHA-256 %s, not %s as the manifest says", a.Name, got, a.SHA256)
		}
	}
	return nil
}
