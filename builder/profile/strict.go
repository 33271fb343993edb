package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A Position is where an entry was written; embedded in a struct, it is filled in by the decoder.
type Position struct {
	File string `yaml:"-"`
	// Line and Column count from 1.
	Line   int `yaml:"-"`
	Column int `yaml:"-"`
}

func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// mistakes collects what is wrong with one file, so that a person mends it in one go.
type mistakes struct {
	file string
	root *yaml.Node
	list []mistake
}

type mistake struct {
	at      Position
	message string
}

func (m *mistakes) add(at Position, format string, args ...any) {
	at.File = m.file
	m.list = append(m.list, mistake{at, fmt.Sprintf(format, args...)})
}

// err is nil without mistakes; otherwise each is a line of its own, in the order of the file.
func (m *mistakes) err() error {
	slices.SortStableFunc(m.list, func(a, b mistake) int {
		if a.at.Line != b.at.Line {
			return a.at.Line - b.at.Line
		}
		return a.at.Column - b.at.Column
	})
	var errs []error
	for _, x := range m.list {
		errs = append(errs, fmt.Errorf("%s: %s", x.at, x.message))
	}
	return errors.Join(errs...)
}

// decode reads one YAML document into out, a pointer to a struct. Unknown and repeated keys and values of the wrong
// kind are mistakes; embedded Positions are filled in. The mistakes that are returned with a nil error are empty, and
// know where each key is, for the validation that follows.
func decode(file string, data []byte, out any) (*mistakes, error) {
	m := &mistakes{file: file}
	top := Position{Line: 1, Column: 1}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithKnownFields())
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", file, err)
	}
	var document, second yaml.Node
	if err := loader.Load(&document); err != nil && !errors.Is(err, io.EOF) {
		m.addYAML(err)
		return nil, m.err()
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 {
		m.add(top, "the file is empty; allowed here: %s", strings.Join(keysOf(reflect.TypeOf(out).Elem()), ", "))
		return nil, m.err()
	}
	if err := loader.Load(&second); err == nil {
		m.add(Position{Line: second.Line, Column: second.Column}, "a second document begins here; one file describes one thing")
		return nil, m.err()
	} else if !errors.Is(err, io.EOF) {
		m.addYAML(err)
		return nil, m.err()
	}
	m.root = document.Content[0]
	m.check(m.root, reflect.TypeOf(out).Elem())
	if len(m.list) > 0 {
		return nil, m.err()
	}
	// The walk above has better words for unknown keys; KnownFields stays on so that the two can never disagree silently.
	if err := document.Load(out, yaml.WithKnownFields()); err != nil {
		m.addYAML(err)
		return nil, m.err()
	}
	m.place(m.root, reflect.ValueOf(out).Elem())
	return m, nil
}

// at is the position of the value that a path of keys and indexes leads to from the top of the file, or of the last
// part of the path that is there.
func (m *mistakes) at(path ...any) Position {
	n := m.root
	for _, step := range path {
		next := (*yaml.Node)(nil)
		switch step := step.(type) {
		case string:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next = n.Content[i+1]
				}
			}
		case int:
			if step < len(n.Content) {
				next = n.Content[step]
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return Position{Line: n.Line, Column: n.Column}
}

// addYAML turns the decoder's errors into mistakes with a position.
func (m *mistakes) addYAML(err error) {
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case errors.As(err, &many):
		for _, e := range many.Errors {
			m.addYAMLError(e)
		}
	case errors.As(err, &one):
		m.addYAMLError(one)
	default:
		m.add(Position{Line: 1, Column: 1}, "%v", err)
	}
}

func (m *mistakes) addYAMLError(e *yaml.LoadError) {
	m.add(Position{Line: max(e.Mark.Line, 1), Column: max(e.Mark.Column, 1)}, "%s", e.Message)
}

// textual is implemented by types such as Size that read themselves from a scalar.
var textual = reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()

// check holds a node against the type that it will be decoded into.
func (m *mistakes) check(n *yaml.Node, t reflect.Type) {
	at := Position{Line: n.Line, Column: n.Column}
	if n.Kind == yaml.AliasNode {
		m.add(at, "aliases are not supported: write the value out")
		return
	}
	switch {
	case reflect.PointerTo(t).Implements(textual):
		if n.Kind != yaml.ScalarNode {
			m.add(at, "a single value is expected here, not %s", kindName(n))
		}
	case t.Kind() == reflect.Pointer:
		m.check(n, t.Elem())
	case t.Kind() == reflect.Struct:
		m.checkStruct(n, t)
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			m.add(at, "a list is expected here, not %s", kindName(n))
			return
		}
		for _, item := range n.Content {
			m.check(item, t.Elem())
		}
	case t.Kind() == reflect.String:
		// Without this, 0755 or 1.10 would be accepted and change on its way through a number.
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			m.add(at, "text is expected here, not %s; quote it if it is meant as text", kindName(n))
		}
	default:
		if n.Kind != yaml.ScalarNode {
			m.add(at, "a single value is expected here, not %s", kindName(n))
		}
	}
}

func (m *mistakes) checkStruct(n *yaml.Node, t reflect.Type) {
	allowed := keysOf(t)
	if n.Kind != yaml.MappingNode {
		m.add(Position{Line: n.Line, Column: n.Column}, "keys with values are expected here, not %s; allowed here: %s", kindName(n), strings.Join(allowed, ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := Position{Line: key.Line, Column: key.Column}
		field, ok := fieldNamed(t, key.Value)
		if !ok {
			hint := ""
			if near := nearest(key.Value, allowed); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			m.add(at, "unknown key %q%s; allowed here: %s", key.Value, hint, strings.Join(allowed, ", "))
			continue
		}
		if line, again := seen[key.Value]; again {
			m.add(at, "key %q was already given in line %d", key.Value, line)
			continue
		}
		seen[key.Value] = key.Line
		m.check(value, field.Type)
	}
}

// place fills in the embedded Positions of a decoded value.
func (m *mistakes) place(n *yaml.Node, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		m.place(n, v.Elem())
	case reflect.Struct:
		if f := v.FieldByName("Position"); f.IsValid() && f.Type() == reflect.TypeFor[Position]() {
			f.Set(reflect.ValueOf(Position{File: m.file, Line: n.Line, Column: n.Column}))
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if field, ok := fieldNamed(v.Type(), n.Content[i].Value); ok {
				m.place(n.Content[i+1], v.FieldByIndex(field.Index))
			}
		}
	case reflect.Slice:
		for i := range min(v.Len(), len(n.Content)) {
			m.place(n.Content[i], v.Index(i))
		}
	}
}

// keysOf lists a struct's keys in the order in which it declares them.
func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" && name != "-" {
			keys = append(keys, name)
		}
	}
	return keys
}

func fieldNamed(t reflect.Type, key string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name == key && name != "-" {
			return t.Field(i), true
		}
	}
	return reflect.StructField{}, false
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the truth value " + n.Value
	}
	return fmt.Sprintf("the text %q", n.Value)
}

// nearest is the candidate that a person most likely meant: the one with the smallest edit distance, if that is at most
// a third of the word, rounded up so that two letters of a short word may be swapped; otherwise empty.
func nearest(word string, candidates []string) string {
	best, limit := "", (len(word)+2)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d <= limit {
			best, limit = c, d-1
		}
	}
	return best
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
