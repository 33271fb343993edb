package fetch

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"pault.ag/go/debian/version"

	"github.com/skerryos/skerry/builder/profile"
)

// An Index is the newest version of each package of a suite, for one architecture.
type Index map[string]Entry

// An Entry is one package of an index.
type Entry struct {
	profile.LockedPackage
	// Depends is the field as it is, for packages that only stand for another.
	Depends string
	version version.Version
}

// Add reads a Packages list into the index. Of several versions the newest stays.
func (x Index) Add(r io.Reader) error {
	scan := bufio.NewScanner(r)
	// The longest lines are lists of dependencies; the default of 64 KiB has been seen to be too short.
	scan.Buffer(nil, 4<<20)
	fields := map[string]string{}
	for scan.Scan() {
		line := scan.Text()
		switch {
		case line == "":
			if err := x.add(fields); err != nil {
				return err
			}
			clear(fields)
		case line[0] == ' ' || line[0] == '\t':
			// Continued fields are descriptions, which nobody needs here.
		default:
			if key, value, ok := strings.Cut(line, ":"); ok {
				fields[key] = strings.TrimSpace(value)
			}
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("cannot read package list: %w", err)
	}
	return x.add(fields)
}

func (x Index) add(fields map[string]string) error {
	name := fields["Package"]
	if name == "" {
		return nil
	}
	v, err := version.Parse(fields["Version"])
	if err != nil {
		return fmt.Errorf("cannot read package list: version of %s: %w", name, err)
	}
	size, err := strconv.ParseInt(fields["Size"], 10, 64)
	if err != nil {
		return fmt.Errorf("cannot read package list: size of %s: %w", name, err)
	}
	if have, ok := x[name]; ok && version.Compare(have.version, v) >= 0 {
		return nil
	}
	x[name] = Entry{
		LockedPackage: profile.LockedPackage{
			Name:         name,
			Version:      fields["Version"],
			Architecture: fields["Architecture"],
			Path:         fields["Filename"],
			SHA256:       fields["SHA256"],
			Size:         size,
		},
		Depends: fields["Depends"],
		version: v,
	}
	return nil
}

// Find returns the package of that name. One that only stands for another, as linux-image-amd64 does for the newest
// kernel, is followed: it is recognised by a dependency whose name starts like its own (linux-image-). A kernel whose files are in
// packages of their own (linux-modules-RELEASE) is returned with these behind it.
func (x Index) Find(name string) ([]profile.LockedPackage, error) {
	e, ok := x[name]
	if !ok {
		return nil, fmt.Errorf("the archive has no package %s", name)
	}
	const kernel = "linux-image-"
	if !strings.HasPrefix(name, kernel) {
		return []profile.LockedPackage{e.LockedPackage}, nil
	}
	for _, target := range e.depends() {
		if !strings.HasPrefix(target, kernel) {
			continue
		}
		real, ok := x[target]
		if !ok {
			return nil, fmt.Errorf("the archive has no package %s, which %s stands for", target, name)
		}
		e = real
		e.For = name
		break
	}
	found := []profile.LockedPackage{e.LockedPackage}
	release := strings.TrimPrefix(e.Name, kernel)
	for _, target := range e.depends() {
		if !strings.HasPrefix(target, "linux-") || !strings.HasSuffix(target, "-"+release) {
			continue
		}
		part, ok := x[target]
		if !ok {
			return nil, fmt.Errorf("the archive has no package %s, which is part of %s", target, e.Name)
		}
		part.PartOf = e.Name
		found = append(found, part.LockedPackage)
	}
	return found, nil
}

// depends are the names of the packages that the entry depends on; of alternatives the first.
func (e Entry) depends() []string {
	var names []string
	for one := range strings.SplitSeq(e.Depends, ",") {
		if words := strings.Fields(one); len(words) > 0 {
			names = append(names, words[0])
		}
	}
	return names
}
