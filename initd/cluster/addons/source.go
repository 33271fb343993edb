package addons

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// source is where add-ons come from.
type source struct {
	dir      string
	values   Values
	disabled []string
}

// addon is one add-on as it should be.
type addon struct {
	name   string
	path   string // of its file, for messages
	digest string // of its text
	text   []byte
}

// listing is what a source has at one moment.
type listing struct {
	addons   []addon
	disabled []string // names whose objects shall go
	dirs     []string // directories to watch
	problems []problem
}

// problem is a file that cannot become an add-on.
type problem struct {
	path string
	err  error
}

// nameOK holds a name to what both a key of a ConfigMap and the value of a label may be.
var nameOK = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_]{0,61}[A-Za-z0-9])?$`)

// list reads the directory and puts the built-in add-ons first, in their own order, then the operator's by path.
func (s source) list() (listing, error) {
	var out listing
	files := map[string]string{} // add-on name to file
	skipped := map[string]bool{}
	err := filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil && path != s.dir:
			if !errors.Is(err, fs.ErrNotExist) { // removed meanwhile
				out.problems = append(out.problems, problem{path, err})
			}
			return nil
		case err != nil:
			return err
		case strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() && path != s.dir {
				return filepath.SkipDir
			}
			return nil
		case entry.IsDir():
			out.dirs = append(out.dirs, path)
			return nil
		}
		name, _, _ := strings.Cut(entry.Name(), ".")
		switch filepath.Ext(entry.Name()) {
		case ".skip":
			skipped[name] = true
		case ".yaml", ".yml", ".json":
			if !nameOK.MatchString(name) {
				out.problems = append(out.problems, problem{path, errors.New("the file's name up to the first dot must be letters, digits, - and _, at most 63; rename it")})
			} else if first, ok := files[name]; ok {
				out.problems = append(out.problems, problem{path, fmt.Errorf("%s has the same name up to the first dot and is used; rename one of them", first)})
			} else {
				files[name] = path
			}
		}
		return nil
	})
	if err != nil {
		return listing{}, fmt.Errorf("cannot read the manifests directory: %w", err)
	}

	names := slices.Clone(builtin)
	own := make([]string, 0, len(files))
	for name := range files {
		if !slices.Contains(builtin, name) {
			own = append(own, name)
		}
	}
	slices.SortFunc(own, func(a, b string) int { return strings.Compare(files[a], files[b]) })
	for _, name := range append(names, own...) {
		if slices.Contains(s.disabled, name) || skipped[name] {
			continue
		}
		a, err := s.read(name, files[name])
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile; the watch tells
		} else if err != nil {
			out.problems = append(out.problems, problem{files[name], err})
			continue
		}
		out.addons = append(out.addons, a)
	}
	out.disabled = s.disabled
	return out, nil
}

func (s source) read(name, path string) (addon, error) {
	a := addon{name: name, path: path}
	var err error
	if path == "" {
		a.path = "built-in " + name + ".yaml"
		a.text, err = s.values.render(name)
	} else {
		a.text, err = os.ReadFile(path)
	}
	if err != nil {
		return addon{}, err
	}
	a.digest = digest(a.text)
	return a, nil
}

// digest names a text; 128 bits are plenty where nobody gains by a collision, and fit a label or an annotation well.
func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
