package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A Source is an artefact in the making.
type Source struct {
	Name    string
	Size    int64
	Content io.ReaderAt
	// ChunkSize is how many bytes a chunk has, at most MaxChunk: the larger, the better they are compressed; the smaller, the
	// more of them artefacts share that are alike. 0 is MaxChunk.
	ChunkSize int64
	// Alike says that most chunks equal those at the same place of the source before this one. Equal ones are stored once.
	Alike bool
}

// Create writes a bundle. Of m it takes everything but artefacts and chunks, which it makes of the sources, in this order; sign
// returns the signature of the manifest's bytes. The same arguments give the same bytes as long as sign does. The chunks
// wait in a temporary file until the manifest that comes before them is known.
func Create(w io.Writer, m Manifest, sources []Source, sign func(manifest []byte) ([]byte, error)) (*Manifest, error) {
	spool, err := os.CreateTemp("", "skerry-bundle-*")
	if err != nil {
		return nil, fmt.Errorf("cannot create bundle: %w", err)
	}
	defer os.Remove(spool.Name())
	defer spool.Close()

	m.Format, m.Chunks, m.Artefacts = Format, nil, nil
	c := creator{manifest: &m, sources: sources, spool: spool}
	if err := c.run(); err != nil {
		return nil, fmt.Errorf("cannot create bundle: %w", err)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("cannot create bundle: %w", err)
	}
	header, err := sealHeader(&m, sign)
	if err != nil {
		return nil, fmt.Errorf("cannot create bundle: %w", err)
	}
	m.place(int64(len(header)))
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("cannot create bundle: %w", err)
	}
	if _, err := io.Copy(w, io.MultiReader(bytes.NewReader(header), spool)); err != nil {
		return nil, fmt.Errorf("cannot write bundle: %w", err)
	}
	return &m, nil
}

// sealHeader is everything before the first chunk.
func sealHeader(m *Manifest, sign func([]byte) ([]byte, error)) ([]byte, error) {
	manifest, err := m.encode()
	if err != nil {
		return nil, err
	}
	if len(manifest) > MaxManifest {
		return nil, fmt.Errorf("manifest of %d bytes; allowed are %d; make the chunks larger", len(manifest), MaxManifest)
	}
	signature, err := sign(manifest)
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	if len(signature) == 0 || len(signature) > MaxSignature {
		return nil, fmt.Errorf("signature of %d bytes; allowed are 1 to %d", len(signature), MaxSignature)
	}
	header := []byte(magic)
	for _, part := range [][]byte{manifest, signature} {
		header = binary.BigEndian.AppendUint32(header, uint32(len(part)))
		header = append(header, part...)
	}
	return header, nil
}

// A piece is what becomes a chunk: bytes of a source. Its number counts the pieces of its source.
type piece struct {
	source, number int
	offset, size   int64
}

// creator turns sources into chunks.
type creator struct {
	manifest *Manifest
	sources  []Source
	spool    io.Writer
}

// pieces lists the pieces in the order of the stream. Sources that are alike take turns, so that the chunks which they share
// ascend in each of them.
func (c *creator) pieces() ([]piece, error) {
	var list []piece
	for first := 0; first < len(c.sources); {
		end := first + 1
		for end < len(c.sources) && c.sources[end].Alike {
			end++
		}
		more := true
		for number := 0; more; number++ {
			more = false
			for i := first; i < end; i++ {
				s := c.sources[i]
				step := s.ChunkSize
				if step == 0 {
					step = MaxChunk
				}
				if step < 0 || step > MaxChunk {
					return nil, fmt.Errorf("artefact %s in chunks of %d bytes; allowed are 1 to %d", s.Name, step, MaxChunk)
				}
				if offset := int64(number) * step; offset < s.Size {
					list = append(list, piece{i, number, offset, min(step, s.Size-offset)})
					more = true
				}
			}
			if len(list) > len(c.sources)*MaxChunks {
				return nil, fmt.Errorf("more than %d chunks; make them larger", MaxChunks)
			}
		}
		first = end
	}
	return list, nil
}

// run makes all chunks, several at a time, and adds them in their order.
func (c *creator) run() error {
	todo, err := c.pieces()
	if err != nil {
		return err
	}
	sums := make([]hash.Hash, len(c.sources))
	for i, s := range c.sources {
		sums[i] = sha256.New()
		c.manifest.Artefacts = append(c.manifest.Artefacts, Artefact{Name: s.Name, Size: s.Size})
	}
	workers := make([]*worker, runtime.GOMAXPROCS(0))
	for i := range workers {
		if workers[i], err = newWorker(); err != nil {
			return err
		}
	}
	type position struct {
		number int
		sum    string
	}
	stored := map[position]int{} // index of the chunk that was made of the source before, at the same place
	for len(todo) > 0 {
		batch := workers[:min(len(workers), len(todo))]
		var wait sync.WaitGroup
		for i, w := range batch {
			wait.Go(func() { w.encode(c.sources[todo[i].source], todo[i]) })
		}
		wait.Wait()
		for i, w := range batch {
			p := todo[i]
			if w.err != nil {
				return fmt.Errorf("cannot read artefact %s: %w", c.sources[p.source].Name, w.err)
			}
			sums[p.source].Write(w.plain)
			if p.number == 0 && !c.sources[p.source].Alike {
				clear(stored)
			}
			at := position{p.number, w.chunk.SHA256}
			index, again := stored[at]
			if !again {
				index = len(c.manifest.Chunks)
				stored[at] = index
				c.manifest.Chunks = append(c.manifest.Chunks, w.chunk)
				if _, err := c.spool.Write(w.stored); err != nil {
					return err
				}
			}
			a := &c.manifest.Artefacts[p.source]
			a.Chunks = append(a.Chunks, index)
		}
		todo = todo[len(batch):]
	}
	for i := range sums {
		c.manifest.Artefacts[i].SHA256 = hex.EncodeToString(sums[i].Sum(nil))
	}
	return nil
}

// A worker encodes one piece at a time.
type worker struct {
	encoder *zstd.Encoder
	buffer  []byte // MaxChunk bytes, plain points into it
	packed  []byte

	plain, stored []byte
	chunk         Chunk
	err           error
}

func newWorker() (*worker, error) {
	// The window is a whole chunk. A checksum in the frame would say less than the manifest's.
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxChunk), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("cannot make a Zstandard encoder: %w", err)
	}
	return &worker{encoder: e, buffer: make([]byte, MaxChunk)}, nil
}

// encode sets everything below packed.
func (w *worker) encode(s Source, p piece) {
	w.plain = w.buffer[:p.size]
	n, err := s.Content.ReadAt(w.plain, p.offset)
	if int64(n) < p.size {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		w.err = err
		return
	}
	w.chunk = Chunk{Size: p.size, SHA256: sum(w.plain)}
	if isZero(w.plain) {
		w.chunk.Encoding, w.stored = Zero, nil
		return
	}
	w.packed = w.encoder.EncodeAll(w.plain, w.packed[:0])
	w.chunk.Encoding, w.stored = Zstd, w.packed
	if len(w.packed) >= len(w.plain) {
		w.chunk.Encoding, w.stored = None, w.plain
	}
	w.chunk.Stored = int64(len(w.stored))
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
