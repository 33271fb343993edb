// Package fetchtest makes Debian packages and archives for tests.
package fetchtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A Member is one member of a package's file system archive, written as it is given: names are not cleaned, so that
// hostile ones can be made.
type Member struct {
	Name string
	// Content is that of a regular file.
	Content string
	// Link is the target of a symbolic link, HardLink that of a hard link; Dir makes a folder.
	Link     string
	HardLink string
	Dir      bool
}

// Deb returns a Debian package with these members. compression is xz, zst, gz or empty. The result is an ar archive as
// in deb(5).
func Deb(name, version, architecture, compression string, members ...Member) ([]byte, error) {
	control, err := archive("gz", Member{Name: "./control", Content: fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Test <test@example.com>\nDescription: test\n", name, version, architecture)})
	if err != nil {
		return nil, err
	}
	data, err := archive(compression, members...)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	suffix := ""
	if compression != "" {
		suffix = "." + compression
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", control}, {"data.tar" + suffix, data}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", f.name, 0, 0, 0, "100644", len(f.data))
		b.Write(f.data)
		if len(f.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes(), nil
}

func archive(compression string, members ...Member) ([]byte, error) {
	var b bytes.Buffer
	c, err := Compress(&b, compression)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(c)
	for _, m := range members {
		h := &tar.Header{Name: m.Name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(m.Content))}
		switch {
		case m.Dir:
			h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, strings.TrimSuffix(m.Name, "/")+"/"
		case m.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, m.Link
		case m.HardLink != "":
			h.Typeflag, h.Linkname = tar.TypeLink, m.HardLink
		}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(t, m.Content); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	if err := c.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Compress returns a writer that compresses onto w; compression is xz, zst, gz or empty.
func Compress(w io.Writer, compression string) (io.WriteCloser, error) {
	switch compression {
	case "xz":
		return xz.NewWriter(w)
	case "zst":
		return zstd.NewWriter(w)
	case "gz":
		return gzip.NewWriter(w), nil
	case "":
		return plain{w}, nil
	}
	return nil, fmt.Errorf("unknown compression %q", compression)
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }
