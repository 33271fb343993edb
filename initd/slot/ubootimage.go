package slot

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
)

// ubootFile is how a file of a boot image may be called: all is in one folder, and FAT knows no difference between small and
// capital letters.
var ubootFile = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// mostFiles are in a boot image: kernel, initramfs, start script, device trees and their overlays.
const mostFiles = 256

// unpack writes the files of a boot image, size bytes, to a folder. A boot image is an uncompressed tar archive of plain
// files, without folders, with the start script as the last one. Each file is on the medium before the next is begun.
func (u UBoot) unpack(folder string, image io.Reader, size int64) error {
	count := &counter{Reader: io.LimitReader(image, size)}
	archive := tar.NewReader(count)
	seen := map[string]bool{}
	var total int64
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("it is not a complete tar archive of %d bytes: %w", size, err)
		}
		total += h.Size
		switch {
		case h.Typeflag != tar.TypeReg || !ubootFile.MatchString(h.Name):
			return fmt.Errorf("its file %q is not a plain file with a plain name", h.Name)
		case seen[StartScript]:
			return fmt.Errorf("its file %s is behind %s, which must be the last one", h.Name, StartScript)
		case seen[h.Name]:
			return fmt.Errorf("it has two files %s", h.Name)
		case len(seen) == mostFiles:
			return fmt.Errorf("it has more than %d files", mostFiles)
		case h.Size == 0 || total > size: // an archive can claim holes, which take no room in it
			return fmt.Errorf("its file %s cannot have %d bytes", h.Name, h.Size)
		}
		seen[h.Name] = true
		if err := u.Volume.Create(path.Join(folder, h.Name), archive); err != nil {
			return err
		}
	}
	if !seen[StartScript] {
		return fmt.Errorf("it has no file %s", StartScript)
	}
	if _, err := io.Copy(io.Discard, count); err != nil {
		return err
	}
	if count.n != size {
		return fmt.Errorf("it has %d bytes instead of %d: %w", count.n, size, io.ErrUnexpectedEOF)
	}
	return nil
}

func sortedNames(files map[string]int64) []string { return slices.Sorted(maps.Keys(files)) }
