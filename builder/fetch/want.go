package fetch

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/skerryos/skerry/builder/profile"
)

// CheckLock says what a lock lacks of what is wanted, and what it has that nobody wants.
func CheckLock(lock *profile.Lock, want Want) error {
	var errs []error
	used := map[*profile.LockedPackage]bool{}
	for _, from := range slices.SortedFunc(maps.Keys(want), compareSources) {
		for _, name := range slices.Sorted(maps.Keys(want[from])) {
			p := lock.PackageOf(from.Suite, name, from.Architecture)
			if p == nil {
				errs = append(errs, fmt.Errorf("%s: package %s for %s is not in the lock", want[from][name], name, from.Architecture))
				continue
			}
			used[p] = true
			for _, part := range lock.Parts(p) {
				used[part] = true
			}
		}
	}
	for i := range lock.Packages {
		if p := &lock.Packages[i]; !used[p] {
			errs = append(errs, fmt.Errorf("%s: no profile or board wants package %s for %s any more", p.Position, p.Name, p.Architecture))
		}
	}
	return errors.Join(errs...)
}

// Changes tells a person what became of each package from one lock to the next, one line each; without a difference
// there is no line.
func Changes(from, to *profile.Lock) []string {
	type key struct{ name, architecture, suite string }
	index := func(l *profile.Lock) map[key]profile.LockedPackage {
		m := map[key]profile.LockedPackage{}
		for _, p := range l.Packages {
			// A kernel has its version in its name; by what it stands for, a new one is an upgrade and not a stranger.
			name := p.Name
			if p.For != "" {
				name = p.For
			}
			if p.PartOf != "" {
				continue // it goes with the whole
			}
			m[key{name, p.Architecture, p.Suite}] = p
		}
		return m
	}
	before, after := index(from), index(to)
	var lines []string
	for k, p := range after {
		switch old, ok := before[k]; {
		case !ok:
			lines = append(lines, fmt.Sprintf("%s (%s): added at %s", k.name, k.architecture, p.Version))
		case old.Version != p.Version:
			lines = append(lines, fmt.Sprintf("%s (%s): %s -> %s", k.name, k.architecture, old.Version, p.Version))
		case old.SHA256 != p.SHA256:
			// Never expected: an archive does not change a version that it has published.
			lines = append(lines, fmt.Sprintf("%s (%s): %s has another content than before", k.name, k.architecture, p.Version))
		}
	}
	for k, p := range before {
		if _, ok := after[k]; !ok {
			lines = append(lines, fmt.Sprintf("%s (%s): removed, was %s", k.name, k.architecture, p.Version))
		}
	}
	slices.Sort(lines)
	return lines
}
