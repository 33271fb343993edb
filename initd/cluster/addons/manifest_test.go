package addons

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":        {"", ""},
		"comments only":  {"# one\n---\n\n# two\n---\n", ""},
		"one":            {"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", "1 Secret a\n"},
		"no end of line": {"apiVersion: v1\nkind: Secret\nmetadata: {name: a}", "1 Secret a\n"},
		"windows":        {"# c\r\n---\r\napiVersion: v1\r\nkind: Secret\r\nmetadata: {name: a}\r\n---\r\n", "3 Secret a\n"},
		"JSON":           {`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"n"}}`, "1 Secret n/a\n"},
		"lines": {"---\n# c\n\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n--- # next\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\n",
			"4 Secret a\n8 Secret b\n"},
		"separator in a block": {"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  x: |\n    ---\n    y\n", "1 Secret a\n"},
		"order": {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: apps}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
			"9 Namespace apps\n5 ServiceAccount s\n1 Deployment d\n13 Secret a\n"},
		"list": {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n",
			"1 Secret a\n1 Secret b\n"},
		"empty list": {"apiVersion: v1\nkind: List\nitems: []\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := parse("f.yaml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, o := range objects {
				fmt.Fprintf(&got, "%d %s\n", o.line, refTo(o.Unstructured))
			}
			if got.String() != c.want {
				t.Errorf("got\n%swant\n%s", &got, c.want)
			}
		})
	}
}

// kubectl's meaning of YAML 1.1 scalars, so that a manifest means the same here.
func TestParseScalars(t *testing.T) {
	objects, err := parse("f.yaml", []byte("apiVersion: v1\nkind: X\nmetadata: {name: a}\nspec: {yes: yes, mode: 0644, size: 1e3, text: \"yes\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(objects[0].Object["spec"]), "map[mode:420 size:1000 text:yes true:true]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"indentation":   {"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Secret\n metadata: {name: b}\n", "f.yaml:7: "},
		"tab":           {"a:\n\tb: c\n", "f.yaml:2: "},
		"key twice":     {"# c\napiVersion: v1\nkind: Secret\nkind: ConfigMap\nmetadata: {name: a}\n", "f.yaml:4: "},
		"no kind":       {"---\napiVersion: v1\nmetadata: {name: a}\n", "f.yaml:2: cannot read manifest: apiVersion or kind is missing"},
		"no apiVersion": {"kind: Secret\nmetadata: {name: a}\n", "f.yaml:1: cannot read manifest: apiVersion or kind is missing"},
		"no name":       {"apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n", "f.yaml:1: cannot read manifest: Pod has no metadata.name"},
		"no object":     {"- a\n- b\n", "f.yaml:1: cannot read manifest: a document must be an object"},
		"item":          {"apiVersion: v1\nkind: List\nitems: [a]\n", "item 1 of the List is not an object"},
		"object twice":  {"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", "f.yaml:5: Secret a is there already in line 1"},
		"two mistakes":  {"a: [\n---\n- b\n", "f.yaml:3: cannot read manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("f.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := strings.Count(string(text), "\n") + 1
		objects, err := parse("f.yaml", text)
		if err != nil {
			return
		}
		for _, o := range objects {
			if o.line < 1 || o.line > lines {
				t.Errorf("%s in line %d of %d", refTo(o.Unstructured), o.line, lines)
			}
		}
	})
}
