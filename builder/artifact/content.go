package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// Content is the content of a regular file, wherever it is kept. Its digest is known before it is read, so a tree
// of files can be a cache key.
type Content struct {
	SHA256 string
	Bytes  int64

	data []byte // when path is empty
	path string // else a section of this file
	off  int64
}

// BytesContent is content held in memory.
func BytesContent(b []byte) Content {
	sum := sha256.Sum256(b)
	return Content{SHA256: hex.EncodeToString(sum[:]), Bytes: int64(len(b)), data: b}
}

// FileContent is the content of the file at path, which must not change while the Content is in use.
func FileContent(ctx context.Context, path string) (Content, error) {
	f, err := os.Open(path)
	if err != nil {
		return Content{}, fmt.Errorf("cannot read input: %w", err)
	}
	defer f.Close()
	sum, n, err := digestOf(ctx, f)
	if err != nil {
		return Content{}, fmt.Errorf("cannot read input %s: %w", path, err)
	}
	return Content{SHA256: sum, Bytes: n, path: path}, nil
}

// Open returns a reader at the content's start.
func (c Content) Open() (ContentReader, error) {
	if c.path == "" {
		return memoryReader{bytes.NewReader(c.data)}, nil
	}
	f, err := os.Open(c.path)
	if err != nil {
		return nil, fmt.Errorf("cannot open content: %w", err)
	}
	return sectionReader{io.NewSectionReader(f, c.off, c.Bytes), f}, nil
}

// ReadAll returns the whole content.
func (c Content) ReadAll() ([]byte, error) {
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, c.Bytes)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("cannot read content: %w", err)
	}
	return b, nil
}

// ContentReader reads content in any order.
type ContentReader interface {
	io.ReadCloser
	io.ReaderAt
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

type sectionReader struct {
	*io.SectionReader
	f *os.File
}

func (r sectionReader) Close() error { return r.f.Close() }
