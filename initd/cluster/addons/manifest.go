package addons

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// object is one object of an add-on and the line in its file where it begins, counted from 1.
type object struct {
	*unstructured.Unstructured
	line int
}

// document is the part of a file between two `---` lines.
type document struct {
	text []byte
	line int
}

// yamlLine finds the line, counted from 1 within a document, in an error of the YAML library.
var yamlLine = regexp.MustCompile(`line (\d+)`)

// parse reads the objects of a file, as kubectl would: several documents, Lists, YAML 1.1 booleans; but a key that occurs
// twice is an error. All that is wrong is reported, each with file:line. Objects come back in an order in
// which they can be made: what others need (namespaces, definitions, accounts) first, else as in the file.
func parse(path string, text []byte) ([]object, error) {
	var (
		out  []object
		errs []error
	)
	for _, doc := range split(text) {
		objects, err := doc.decode()
		if err != nil {
			line := doc.line
			if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
				n, _ := strconv.Atoi(m[1])
				line += n - 1
			}
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, line, err))
			continue
		}
		out = append(out, objects...)
	}
	seen := map[string]int{}
	for _, o := range out {
		id := refTo(o.Unstructured).String()
		if first, ok := seen[id]; ok {
			errs = append(errs, fmt.Errorf("%s:%d: %s is there already in line %d", path, o.line, id, first))
		}
		seen[id] = o.line
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	slices.SortStableFunc(out, func(a, b object) int { return rank(a.GetKind()) - rank(b.GetKind()) })
	return out, nil
}

// rank orders kinds that other objects of the same file may need.
func rank(kind string) int {
	switch kind {
	case "Namespace", "CustomResourceDefinition", "PriorityClass":
		return 0
	case "ServiceAccount":
		return 1
	}
	return 2
}

// split cuts a file at the lines that are or begin with `---`. The first line of a document is the one after the separator, or
// after the comments and blanks that follow it.
func split(text []byte) []document {
	var (
		out   []document
		start = 0
		line  = 1
	)
	add := func(from, to, firstLine int) {
		part := text[from:to]
		for len(part) > 0 {
			end := bytes.IndexByte(part, '\n') + 1
			if end == 0 {
				end = len(part)
			}
			if first := bytes.TrimSpace(part[:end]); len(first) > 0 && first[0] != '#' {
				out = append(out, document{part, firstLine})
				return
			}
			part, firstLine = part[end:], firstLine+1
		}
	}
	first := 1
	for at := 0; at < len(text); line++ {
		end := bytes.IndexByte(text[at:], '\n') + 1
		if end == 0 {
			end = len(text) - at
		}
		row := bytes.TrimRight(text[at:at+end], " \t\r\n")
		if bytes.Equal(row, []byte("---")) || bytes.HasPrefix(row, []byte("--- ")) {
			add(start, at, first)
			start, first = at+end, line+1
		}
		at += end
	}
	add(start, len(text), first)
	return out
}

func (d document) decode() ([]object, error) {
	var content any
	if err := yaml.UnmarshalStrict(d.text, &content); err != nil {
		return nil, fmt.Errorf("cannot read YAML: %w", err)
	}
	if content == nil {
		return nil, nil
	}
	top, ok := content.(map[string]any)
	if !ok {
		return nil, errors.New("cannot read manifest: a document must be an object with apiVersion, kind and metadata")
	}
	return d.objects(top)
}

// objects takes a List apart.
func (d document) objects(content map[string]any) ([]object, error) {
	u := &unstructured.Unstructured{Object: content}
	if u.GetAPIVersion() == "" || u.GetKind() == "" {
		return nil, errors.New("cannot read manifest: apiVersion or kind is missing")
	}
	if u.IsList() {
		var out []object
		items, _ := content["items"].([]any)
		for i, item := range items {
			m, ok := item.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("cannot read manifest: item %d of the %s is not an object", i+1, u.GetKind())
			}
			objects, err := d.objects(m)
			if err != nil {
				return nil, err
			}
			out = append(out, objects...)
		}
		return out, nil
	}
	if u.GetName() == "" {
		return nil, fmt.Errorf("cannot read manifest: %s has no metadata.name", u.GetKind())
	}
	return []object{{u, d.line}}, nil
}
