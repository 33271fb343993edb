// Package upstream makes programs of other projects, which Go cannot import because they are package main, into packages
// of ours: crictl and the CNI plugins.
//
// Nothing of them is committed. Write copies their sources out of the module cache, at the versions that go.mod pins,
// into a folder of the caller's choice, with the package renamed and main exported as Main, and writes a file for "go build
// -overlay" that puts the copies where the packages crictl, bridge, hostlocal, loopback and portmap below this one
// are. Without the overlay those packages hold only a file absent.go, so that everything compiles, is vetted and tested
// as usual; a program that is built so says what it lacks when it is asked for it.
package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Source says where a package's sources come from.
type Source struct {
	Package string // its name, and its folder below this package's
	Module  string
	Dir     string // inside the module
	// Replace are pairs of text: what a copy says instead.
	Replace []string
}

// Sources are all programs that are taken in.
var Sources = []Source{
	{Package: "crictl", Module: "sigs.k8s.io/cri-tools", Dir: "cmd/crictl", Replace: []string{
		// One constant would link two test frameworks.
		"framework.OSWindows", `"windows"`,
		`	"sigs.k8s.io/cri-tools/pkg/framework"` + "\n", "",
	}},
	{Package: "bridge", Module: "github.com/containernetworking/plugins", Dir: "plugins/main/bridge"},
	{Package: "loopback", Module: "github.com/containernetworking/plugins", Dir: "plugins/main/loopback"},
	{Package: "hostlocal", Module: "github.com/containernetworking/plugins", Dir: "plugins/ipam/host-local"},
	{Package: "portmap", Module: "github.com/containernetworking/plugins", Dir: "plugins/meta/portmap"},
}

// Path is this package's folder inside the repository.
const Path = "initd/cluster/upstream"

// Write makes the copies below out and returns the path of the overlay file in it. root is the repository's folder;
// moduleDir gives the folder of a module's sources, as "go list -m -f {{.Dir}}" does. Both folders must be absolute. What is
// written depends on the sources alone: the same inputs give the same bytes.
func Write(root, out string, moduleDir func(module string) (string, error)) (string, error) {
	if !filepath.IsAbs(root) || !filepath.IsAbs(out) {
		return "", fmt.Errorf("cannot write an overlay of %s into %s: both must be absolute paths", root, out)
	}
	replace := map[string]string{}
	for _, s := range Sources {
		module, err := moduleDir(s.Module)
		if err != nil {
			return "", fmt.Errorf("cannot find the sources of %s: %w", s.Module, err)
		}
		target := filepath.Join(root, filepath.FromSlash(Path), s.Package)
		if err := s.copy(filepath.Join(module, filepath.FromSlash(s.Dir)), filepath.Join(out, s.Package), target, replace); err != nil {
			return "", fmt.Errorf("cannot take in %s/%s: %w", s.Module, s.Dir, err)
		}
		replace[filepath.Join(target, "absent.go")] = "" // the file is not there
	}
	b, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("cannot encode the overlay: %w", err)
	}
	path := filepath.Join(out, "overlay.json")
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return "", fmt.Errorf("cannot write the overlay: %w", err)
	}
	return path, nil
}

func (s Source) copy(from, to, target string, replace map[string]string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(from, "*.go"))
	if err != nil {
		return err
	}
	mains := 0
	for _, f := range files {
		name := filepath.Base(f)
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		b, main, err := rename(b, s.Package, s.Replace)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if main {
			mains++
		}
		copied := filepath.Join(to, name)
		// An unchanged copy keeps its time, and with it what Go remembers of it.
		if old, err := os.ReadFile(copied); err != nil || !bytes.Equal(old, b) {
			if err := os.WriteFile(copied, b, 0o644); err != nil {
				return err
			}
		}
		replace[filepath.Join(target, name)] = copied
	}
	if mains != 1 {
		return fmt.Errorf("it has %d functions main; the layout of the module has changed", mains)
	}
	return nil
}

// rename gives a file of package main another package and exports its function main.
func rename(src []byte, pkg string, replace []string) (out []byte, hasMain bool, err error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, false, err
	}
	if f.Name.Name != "main" {
		return nil, false, errors.New("it is not package main")
	}
	type edit struct {
		at, end int
		text    string
	}
	offset := func(p token.Pos) int { return set.Position(p).Offset }
	edits := []edit{{offset(f.Name.Pos()), offset(f.Name.End()), pkg}}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "main" {
			edits = append(edits, edit{offset(fn.Name.Pos()), offset(fn.Name.End()), "Main"})
			hasMain = true
		}
	}
	slices.SortFunc(edits, func(a, b edit) int { return b.at - a.at })
	out = slices.Clone(src)
	for _, e := range edits {
		out = slices.Concat(out[:e.at], []byte(e.text), out[e.end:])
	}
	return []byte(strings.NewReplacer(replace...).Replace(string(out))), hasMain, nil
}

// Missing ends a program that was built without the overlay and is asked for one of the packages.
func Missing(program string) {
	fmt.Fprintf(os.Stderr, "cannot run %s: this program was built without it; build it with the overlay that \"go run ./%s/generate DIR\" writes, as \"make image\" does\n", program, Path)
	os.Exit(127)
}
