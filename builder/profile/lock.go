package profile

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"
)

// A Lock pins every Debian package that an image is made of, by digest. It is written by `skerry lock --update` and
// kept under version control; two people with the same lock build the same image.
type Lock struct {
	Archive Archive `yaml:"archive"`
	// Further are the states of other suites that some packages were taken from, sorted by suite.
	Further []Archive `yaml:"further,omitempty"`
	// Packages are sorted by name, then architecture.
	Packages []LockedPackage `yaml:"packages"`
}

// An Archive is the state of a Debian archive that the packages were taken from.
type Archive struct {
	// Suite is the code name of the release, such as trixie.
	Suite string `yaml:"suite"`
	// Components of the suite that packages may come from.
	Components []string `yaml:"components"`
	// Date is the Date field of the signed InRelease file, in RFC 3339 and UTC.
	Date string `yaml:"date"`
	// InRelease is the SHA-256 of that file, in hexadecimal.
	InRelease string `yaml:"inRelease"`
}

// A LockedPackage is one package with its digest.
type LockedPackage struct {
	Position     `yaml:"-"`
	Name         string `yaml:"name"`
	Version      string `yaml:"version"`
	Architecture string `yaml:"architecture"`
	// Path is the package's path below the archive's root, pool/...
	Path   string `yaml:"path"`
	SHA256 string `yaml:"sha256"`
	// Size is in bytes.
	Size int64 `yaml:"size"`
	// For is the package that a board names when that one only depends on this one (linux-image-amd64).
	For string `yaml:"for,omitempty"`
	// Suite is where the package is from, if not from the lock's first archive.
	Suite string `yaml:"suite,omitempty"`
	// PartOf is the package that consists of this one and others: a kernel whose image and modules are packages of their own.
	PartOf string `yaml:"partOf,omitempty"`
}

// Time is the archive's date.
func (a Archive) Time() (time.Time, error) {
	t, err := time.Parse(time.RFC3339, a.Date)
	if err != nil {
		return time.Time{}, fmt.Errorf("archive date %q is not in RFC 3339", a.Date)
	}
	return t.UTC(), nil
}

// Package returns the locked package of the lock's first archive that answers to name on a Debian architecture, or nil.
func (l *Lock) Package(name, architecture string) *LockedPackage {
	return l.PackageOf("", name, architecture)
}

// PackageOf returns the locked package of a suite that answers to name on a Debian architecture, or nil. The suite is empty for that
// of the lock's first archive.
func (l *Lock) PackageOf(suite, name, architecture string) *LockedPackage {
	for i := range l.Packages {
		p := &l.Packages[i]
		if p.Suite == suite && (p.Name == name || p.For == name) && (p.Architecture == architecture || p.Architecture == "all") {
			return p
		}
	}
	return nil
}

// Parts are the other packages that p consists of.
func (l *Lock) Parts(p *LockedPackage) []*LockedPackage {
	var parts []*LockedPackage
	for i := range l.Packages {
		if q := &l.Packages[i]; q.PartOf == p.Name && q.Suite == p.Suite && q.Architecture == p.Architecture {
			parts = append(parts, q)
		}
	}
	return parts
}

// ReadLock reads a lock file.
func ReadLock(file string) (*Lock, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read lock %s: the file does not exist; write it with: skerry lock --update", file)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read lock: %w", err)
	}
	l := &Lock{}
	m, err := decode(file, data, l)
	if err != nil {
		return nil, err
	}
	return l, l.validate(m)
}

func (l *Lock) validate(m *mistakes) error {
	suites := map[string]bool{"": true}
	archive := func(a Archive, path ...any) {
		if a.Suite == "" || len(a.Components) == 0 {
			m.add(m.at(path...), "archive has no suite or no components")
		}
		if _, err := a.Time(); err != nil {
			m.add(m.at(append(path, "date")...), "%v", err)
		}
	}
	archive(l.Archive, "archive")
	for i, a := range l.Further {
		archive(a, "further", i)
		suites[a.Suite] = true
	}
	for _, p := range l.Packages {
		if !suites[p.Suite] {
			m.add(p.Position, "package %s is from suite %q, which is not among the lock's archives", p.Name, p.Suite)
		}
		if raw, err := hex.DecodeString(p.SHA256); err != nil || len(raw) != 32 || strings.ToLower(p.SHA256) != p.SHA256 {
			m.add(p.Position, "package %s: sha256 %q is not 64 lower-case hexadecimal digits", p.Name, p.SHA256)
		}
		if !strings.HasPrefix(p.Path, "pool/") || path.Clean(p.Path) != p.Path {
			m.add(p.Position, "package %s: path %q is not a clean path below pool/", p.Name, p.Path)
		}
		if p.Name == "" || p.Version == "" || p.Architecture == "" || p.Size <= 0 {
			m.add(p.Position, "package %q needs name, version, architecture and size", p.Name)
		}
	}
	return m.err()
}

// Bytes is the lock as it is written to a file: sorted, one value on a line, so that a change reads well in a diff.
func (l *Lock) Bytes() ([]byte, error) {
	sorted := *l
	sorted.Packages = slices.Clone(l.Packages)
	sorted.Further = slices.Clone(l.Further)
	slices.SortFunc(sorted.Packages, func(a, b LockedPackage) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Architecture, b.Architecture), strings.Compare(a.Suite, b.Suite))
	})
	slices.SortFunc(sorted.Further, func(a, b Archive) int { return strings.Compare(a.Suite, b.Suite) })
	body, err := yaml.Dump(&sorted, yaml.WithIndent(2))
	if err != nil {
		return nil, fmt.Errorf("cannot encode lock: %w", err)
	}
	var b bytes.Buffer
	b.WriteString("# Every Debian package that images are made of. Written by: skerry lock --update. Not edited by hand.\n")
	b.Write(body)
	return b.Bytes(), nil
}

// Write replaces the lock at file in one step.
func (l *Lock) Write(file string) error {
	data, err := l.Bytes()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(file, data, 0o644); err != nil {
		return fmt.Errorf("cannot write lock %s: %w", file, err)
	}
	return nil
}
