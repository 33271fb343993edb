package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A whole is a section that always comes from one source: an item of a list, or a section whose keys mean nothing without
// each other. What its keys say together is therefore known as soon as it is read.
type whole interface {
	// incomplete says what is missing or does not go together. It is asked when each key by itself is right.
	incomplete() error
}

// A named whole is an item of a list, in which no name may be given twice.
type named interface {
	whole
	key() string
}

// whole decodes keys with values into a pointer to a struct.
func (d *decoder) whole(n *yaml.Node, v reflect.Value, path string) {
	before := len(d.problems)
	d.section(n, v.Elem(), path)
	if len(d.problems) > before {
		return
	}
	if err := v.Interface().(whole).incomplete(); err != nil {
		d.at(n, "%v", err)
	}
}

// wholes decodes a sequence of keys with values.
func (d *decoder) wholes(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.at(n, "a list is expected here, not %s; begin each item with '- '", kindOf(n))
		return
	}
	seen := map[string]int{}
	items := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	for i, node := range n.Content {
		if node.Kind == yaml.AliasNode {
			d.at(node, "aliases are not supported: write the value out")
			continue
		}
		item, itemPath := reflect.New(v.Type().Elem()), fmt.Sprintf("%s[%d]", path, i)
		d.origin[itemPath] = Position{d.source, node.Line, node.Column}
		d.whole(node, item, itemPath)
		name := item.Interface().(named).key()
		if line, again := seen[name]; again && name != "" {
			d.at(node, "name %q was already given in line %d", name, line)
		}
		seen[name] = node.Line
		items = reflect.Append(items, item.Elem())
	}
	v.Set(items)
}

// byName decodes keys that people choose, each with a whole.
func (d *decoder) byName(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // all of them are commented out
	}
	if n.Kind != yaml.MappingNode {
		d.at(n, "names with keys are expected here, not %s", kindOf(n))
		return
	}
	seen := map[string]int{}
	items := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case d.repeated(seen, key):
			continue
		case key.Kind != yaml.ScalarNode:
			d.at(key, "a name is a text, not %s", kindOf(key))
			continue
		case value.Kind == yaml.AliasNode:
			d.at(value, "aliases are not supported: write the value out")
			continue
		}
		if err := d.checks[ruleOf(path)+"{}"](key.Value); err != nil {
			d.at(key, "%v", err)
			continue
		}
		itemPath := fmt.Sprintf("%s[%d]", path, i/2)
		d.origin[itemPath] = Position{d.source, key.Line, key.Column}
		item := reflect.New(v.Type().Elem())
		d.whole(value, item, itemPath)
		items.SetMapIndex(reflect.ValueOf(key.Value), item.Elem())
	}
	v.Set(items)
}

// list decodes a sequence of texts; a value that is given twice is a mistake of copying.
func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.at(n, "a list is expected here, not %s; write: [%s]", kindOf(n), exampleItem(n))
		return
	}
	seen := map[string]int{}
	items := []string{}
	for i, item := range n.Content {
		text, ok := d.scalar(item, fmt.Sprintf("%s[%d]", path, i))
		if !ok {
			continue
		}
		if line, again := seen[text]; again {
			d.at(item, "%q was already given in line %d", text, line)
			continue
		}
		seen[text] = item.Line
		items = append(items, text)
	}
	v.Set(reflect.ValueOf(items))
}

func exampleItem(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		return n.Value
	}
	return "value, value"
}

// ruleOf is the row of checks for a path: without the numbers of items.
func ruleOf(path string) string {
	var rule strings.Builder
	for {
		before, rest, ok := strings.Cut(path, "[")
		rule.WriteString(before)
		if !ok {
			return rule.String()
		}
		_, path, _ = strings.Cut(rest, "]")
		rule.WriteString("[]")
	}
}
