package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// header is the first line of every source, as cloud-init has it.
const header = "#cloud-config"

// MaxSize is the largest source in bytes. A real one has a few KiB; the bound keeps a mistaken file out of PID 1's memory.
const MaxSize = 256 << 10

// Parse reads one source. The error is of type Problems and lists every mistake; it concerns single keys only: whether
// keys go together is known after the merge, see Config.Check.
func Parse(name string, data []byte) (*Config, error) {
	c := Default()
	d := &decoder{source: name, origin: c.origin, checks: checks, foreign: foreignKeys}
	if text, ok := d.text(data); ok && d.headed(text) {
		if n := d.document(text); n != nil {
			d.section(n, reflect.ValueOf(c).Elem(), "")
		}
	}
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	c.ignored = d.ignored
	return c, nil
}

type decoder struct {
	source string
	origin map[string]Position
	checks map[string]func(string) error
	// foreign are keys that are accepted and have no meaning here, with the reason; allowed at the top only.
	foreign  map[string]string
	ignored  []Problem
	problems Problems
}

func (d *decoder) problem(line, column int, format string, args ...any) {
	at := Position{Source: d.source, Line: max(line, 1), Column: max(column, 1)}
	d.problems = append(d.problems, Problem{at, fmt.Sprintf(format, args...)})
}

func (d *decoder) at(n *yaml.Node, format string, args ...any) {
	d.problem(n.Line, n.Column, format, args...)
}

// text checks what must hold before the YAML parser is asked. Files on the boot partition are edited on any PC, so a byte
// order mark and carriage returns, which some editors add, are no mistake.
func (d *decoder) text(data []byte) ([]byte, bool) {
	switch {
	case len(data) > MaxSize:
		d.problem(1, 1, "the file has %d bytes, at most %d are read", len(data), MaxSize)
		return nil, false
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		d.problem(1, 1, "the file is UTF-16 text; save it as UTF-8")
		return nil, false
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	if !utf8.Valid(data) {
		d.problem(1+bytes.Count(validPrefix(data), []byte("\n")), 1, "the line is not UTF-8 text; save the file as UTF-8")
		return nil, false
	}
	return data, true
}

// headed checks the first line of what text returns.
func (d *decoder) headed(data []byte) bool {
	first, _, _ := bytes.Cut(data, []byte("\n"))
	if strings.TrimRight(string(first), " \t") != header {
		d.problem(1, 1, "the first line must be %q", header)
		return false
	}
	return true
}

func validPrefix(data []byte) []byte {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return data[:i]
		}
		i += size
	}
	return data
}

// document returns the node of the only document; nil when there is nothing in it, or a problem.
func (d *decoder) document(data []byte) *yaml.Node {
	// With all documents asked for, an empty file is no error but an empty list.
	var documents []yaml.Node
	if err := yaml.Load(data, &documents, yaml.WithAllDocuments()); err != nil {
		d.yamlError(err)
		return nil
	}
	if len(documents) > 1 {
		d.at(&documents[1], "a second document starts here; one file holds one")
		return nil
	}
	if len(documents) == 1 && len(documents[0].Content) == 1 {
		return documents[0].Content[0]
	}
	return nil
}

// yamlError turns the parser's errors into problems with a position.
func (d *decoder) yamlError(err error) {
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case errors.As(err, &many) && len(many.Errors) > 0:
		for _, e := range many.Errors {
			d.problem(e.Mark.Line, e.Mark.Column, "%s", e.Message)
		}
	case errors.As(err, &one):
		d.problem(one.Mark.Line, one.Mark.Column, "%s", one.Message)
	default:
		d.problem(1, 1, "%v", err)
	}
}

// value decodes a node into a field of any of the kinds that Config uses.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		d.at(n, "aliases are not supported: write the value out")
		return
	}
	switch {
	case v.Type() == reflect.TypeFor[Labels]():
		d.labels(n, v, path)
	case v.Kind() == reflect.Map:
		d.byName(n, v, path)
	case v.Kind() == reflect.Struct:
		d.section(n, v, path)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.whole(n, v, path)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		d.wholes(n, v, path)
	case v.Kind() == reflect.Slice:
		d.list(n, v, path)
	case v.Kind() == reflect.Bool:
		d.truth(n, v, path)
	default:
		if text, ok := d.scalar(n, path); ok {
			if err := setText(v, text); err != nil {
				d.at(n, "%v", err)
			}
		}
	}
}

// section decodes keys with values into a struct.
func (d *decoder) section(n *yaml.Node, v reflect.Value, path string) {
	allowed := keysOf(v.Type())
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // a section of which every key is commented out
	}
	if n.Kind != yaml.MappingNode {
		d.at(n, "keys with values are expected here, not %s; allowed here: %s", kindOf(n), strings.Join(allowed, ", "))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if d.repeated(seen, key) {
			continue
		}
		if why, is := d.foreign[key.Value]; is && path == "" {
			if why != "" {
				d.ignored = append(d.ignored, Problem{Position{d.source, key.Line, key.Column}, fmt.Sprintf("%q has no effect: %s", key.Value, why)})
			}
			continue
		}
		field, ok := fieldOf(v, key.Value)
		if !ok || key.Kind != yaml.ScalarNode {
			d.at(key, "unknown key %q%s allowed here: %s", key.Value, suggestion(key.Value, allowed), strings.Join(allowed, ", "))
			continue
		}
		d.origin[join(path, key.Value)] = Position{d.source, value.Line, value.Column}
		d.value(value, field, join(path, key.Value))
	}
}

func (d *decoder) repeated(seen map[string]int, key *yaml.Node) bool {
	if line, again := seen[key.Value]; again {
		d.at(key, "key %q was already given in line %d", key.Value, line)
		return true
	}
	seen[key.Value] = key.Line
	return false
}

func fieldOf(section reflect.Value, key string) (reflect.Value, bool) {
	for i := range section.NumField() {
		if tag := section.Type().Field(i).Tag.Get("yaml"); tag != "" && tag == key {
			return section.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func (d *decoder) truth(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
		d.at(n, "true or false is expected here, not %s", kindOf(n))
		return
	}
	v.SetBool(strings.EqualFold(n.Value, "true"))
}

// scalar reads one text and applies the check for its path (see checks). Numbers are taken as they are written, so that 0755
// and 1.10 stay what they look like; a truth value is not, because yes and on look like words.
func (d *decoder) scalar(n *yaml.Node, path string) (string, bool) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.at(n, "aliases are not supported: write the value out")
		return "", false
	case n.Kind != yaml.ScalarNode, n.ShortTag() == "!!null":
		d.at(n, "a text is expected here, not %s", kindOf(n))
		return "", false
	case n.ShortTag() == "!!bool":
		d.at(n, "a text is expected here, not %s; quote it if it is meant as text", kindOf(n))
		return "", false
	}
	d.origin[path] = Position{d.source, n.Line, n.Column}
	if err := d.checks[ruleOf(path)](n.Value); err != nil {
		d.at(n, "%v", err)
		return "", false
	}
	return n.Value, true
}

// labels decodes keys with values, or a list of key=value as the flag of kubelet and K3s has it.
func (d *decoder) labels(n *yaml.Node, v reflect.Value, path string) {
	labels := Labels{}
	seen := map[string]int{}
	add := func(at *yaml.Node, key, value string) {
		if line, again := seen[key]; again {
			d.at(at, "label %q was already given in line %d", key, line)
			return
		}
		seen[key] = at.Line
		if err := checkLabel(key, value); err != nil {
			d.at(at, "%v", err)
			return
		}
		d.origin[join(path, key)] = Position{d.source, at.Line, at.Column}
		labels[key] = value
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Kind != yaml.ScalarNode || value.Kind != yaml.ScalarNode {
				d.at(value, "a label's key and value are texts, not %s", kindOf(value))
				continue
			}
			text := value.Value
			if value.ShortTag() == "!!null" {
				text = "" // "key:" is a label without a value
			}
			add(key, key.Value, text)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				d.at(item, "a label is written key=value here, not as %s", kindOf(item))
				continue
			}
			key, value, ok := strings.Cut(item.Value, "=")
			if !ok {
				d.at(item, "label %q has no value: write %s=VALUE, or %s= for an empty one", item.Value, item.Value, item.Value)
				continue
			}
			add(item, key, value)
		}
	default:
		d.at(n, "keys with values, or a list of key=value, are expected here, not %s", kindOf(n))
		return
	}
	v.Set(reflect.ValueOf(labels))
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
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
