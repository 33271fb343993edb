package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"
)

var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// readFiles applies path and then path.d/*.yaml in the order of their names: a later file's value replaces an earlier one, a
// key with a "+" behind it adds to the list. What the command line or the environment set is not touched.
// A missing file is an error only when it is required.
func readFiles(flags *pflag.FlagSet, path string, role Role, required bool) error {
	files := []string{path}
	more, err := filepath.Glob(filepath.Join(path+".d", "*.y*ml"))
	if err != nil {
		return fmt.Errorf("cannot list %s.d: %w", path, err)
	}
	slices.Sort(more)
	files = append(files, more...)

	// Each flag is set once, after all files are read, so that lists do not pile up.
	values := map[string][]string{}
	for i, file := range files {
		b, err := os.ReadFile(file)
		if i == 0 && errors.Is(err, fs.ErrNotExist) && !required {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot read the configuration: %w", err)
		}
		if err := parse(b, file, flags, role, values); err != nil {
			return err
		}
	}
	return apply(flags, values)
}

func apply(flags *pflag.FlagSet, values map[string][]string) error {
	for name, list := range values {
		f := flags.Lookup(name)
		if f.Changed {
			continue
		}
		if sv, ok := f.Value.(pflag.SliceValue); ok {
			// Replace takes each value whole: commas in a file's list item are the item's own.
			if err := sv.Replace(list); err != nil {
				return fmt.Errorf("cannot use %s from the configuration: %w", name, err)
			}
			f.Changed = true
			continue
		}
		if err := flags.Set(name, list[0]); err != nil {
			return fmt.Errorf("cannot use %s from the configuration: %w", name, err)
		}
	}
	return nil
}

// parse reads one file into values: flag name to list of values, one for a flag that is not a list.
func parse(b []byte, file string, flags *pflag.FlagSet, role Role, values map[string][]string) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return nil // empty, or comments only
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: cannot read the configuration: it must be a list of \"key: value\" lines", file, root.Line)
	}
	for i := 0; i < len(root.Content); i += 2 {
		key, val := root.Content[i], root.Content[i+1]
		name, add := strings.CutSuffix(key.Value, "+")
		at := fmt.Sprintf("%s:%d:%d", file, key.Line, key.Column)
		f := flags.Lookup(name)
		if f == nil || name == "config" || name == "help" {
			return fmt.Errorf("%s: cannot use key %q: skerryd %s has no such setting%s", at, name, role, nearest(flags, name))
		}
		_, isList := f.Value.(pflag.SliceValue)
		if add && !isList {
			return fmt.Errorf("%s: cannot add to %q: it is not a list", at, name)
		}
		list, err := scalars(val, isList)
		if err != nil {
			return fmt.Errorf("%s: cannot use %q: %w", at, name, err)
		}
		if add {
			list = append(values[name], list...)
		}
		values[name] = list
	}
	return nil
}

// scalars reads a value: a scalar, or for list flags also a sequence of scalars. A list flag's scalar may hold several
// values with commas between them, as on the command line.
func scalars(n *yaml.Node, isList bool) ([]string, error) {
	switch {
	case n.Kind == yaml.ScalarNode && isList:
		if n.Value == "" {
			return nil, nil
		}
		return strings.Split(n.Value, ","), nil
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, nil
	case n.Kind == yaml.SequenceNode && isList:
		list := []string{}
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("line %d: a list item must be a simple value", c.Line)
			}
			list = append(list, c.Value)
		}
		return list, nil
	case isList:
		return nil, errors.New("it must be a list or a simple value")
	default:
		return nil, errors.New("it must be a simple value")
	}
}

// nearest suggests the flag whose name is closest to a mistyped one.
func nearest(flags *pflag.FlagSet, name string) string {
	best, bestDist := "", len(name)/3+2
	flags.VisitAll(func(f *pflag.Flag) {
		if d := distance(f.Name, name); d < bestDist {
			best, bestDist = f.Name, d
		}
	})
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
