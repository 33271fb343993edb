package fetch

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"pault.ag/go/debian/deb"
)

// WalkDeb calls visit for each member of the file system archive in the Debian package at file, in the order of the
// archive, which has folders before what is in them. The header's name is a clean path without a leading slash or dot
// (usr/bin/mount); the root folder itself is left out. Links are passed as the archive has them. visit may read the
// member's content from r until it returns; if it returns an error the walk ends with it. [ErrSkipRest] ends the walk
// without an error.
//
// Maintainer scripts are never run and never passed to visit.
func WalkDeb(file string, visit func(header *tar.Header, r io.Reader) error) error {
	d, closeDeb, err := deb.LoadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read Debian package %s: %w", file, err)
	}
	defer closeDeb()
	for {
		header, err := d.Data.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read Debian package %s: %w", file, err)
		}
		name, err := memberName(header.Name)
		if err != nil {
			return fmt.Errorf("cannot read Debian package %s: %w", file, err)
		}
		if name == "." {
			continue
		}
		header.Name = name
		if header.Typeflag == tar.TypeLink {
			if header.Linkname, err = memberName(header.Linkname); err != nil {
				return fmt.Errorf("cannot read Debian package %s: hard link %s: %w", file, name, err)
			}
		}
		if err := visit(header, d.Data); err != nil {
			if errors.Is(err, ErrSkipRest) {
				return nil
			}
			return err
		}
	}
}

// ErrSkipRest is returned by a visitor of [WalkDeb] that has seen what it wanted.
var ErrSkipRest = errors.New("skip the rest of the package")

// memberName cleans a member's name and refuses one that points out of the archive: even a signed package gets no way
// to write elsewhere.
func memberName(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", fmt.Errorf("member %q has an absolute name", name)
	}
	clean := path.Clean(name)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("member %q is outside of the archive", name)
	}
	return clean, nil
}
