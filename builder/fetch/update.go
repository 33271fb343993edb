package fetch

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ulikunitz/xz"

	"github.com/skerryos/skerry/builder/profile"
)

// A Want says which packages a lock shall have: names by where they are from, each with the place that asks for it.
type Want map[Source]map[string]profile.Position

// A Source is the packages of an architecture, by Debian's name, in a suite. The suite is empty for the lock's first one.
type Source struct{ Suite, Architecture string }

func compareSources(a, b Source) int {
	return cmp.Or(strings.Compare(a.Suite, b.Suite), strings.Compare(a.Architecture, b.Architecture))
}

// Add notes that a package is wanted.
func (w Want) Add(from Source, name string, at profile.Position) {
	if w[from] == nil {
		w[from] = map[string]profile.Position{}
	}
	if _, ok := w[from][name]; !ok {
		w[from][name] = at
	}
}

// suites are the names of all suites that something is wanted of, the first one by its own name.
func (w Want) suites(first string) []string {
	names := map[string]bool{first: true}
	for from := range w {
		names[cmp.Or(from.Suite, first)] = true
	}
	delete(names, first)
	return append([]string{first}, slices.Sorted(maps.Keys(names))...)
}

// Suite is what a lock is made from.
type Suite struct {
	// Name is the release's code name.
	Name string
	// Components that packages may come from.
	Components []string
	// Keys that may sign it, see [DebianKeys].
	Keys openpgp.EntityList
	// Now is the time at which signatures must be valid.
	Now time.Time
}

// Lock resolves what is wanted against the current, signed package lists of the suite, and of those that single packages are
// wanted of: all have the same components and keys. Packages themselves are not fetched: the lists have their digests.
func (c *Cache) Lock(ctx context.Context, s Suite, want Want) (*profile.Lock, error) {
	lock := &profile.Lock{}
	var errs []error
	for i, name := range want.suites(s.Name) {
		of := s
		of.Name = name
		from := name
		if i == 0 {
			from = ""
		}
		archive, missing, err := c.lockSuite(ctx, of, from, want, lock)
		if err != nil {
			return nil, err
		}
		errs = append(errs, missing...)
		if i == 0 {
			lock.Archive = archive
		} else {
			lock.Further = append(lock.Further, archive)
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("cannot resolve the lock; it was left as it is:\n%w", errors.Join(errs...))
	}
	return lock, nil
}

// lockSuite adds to the lock what is wanted of one suite, which Sources call from. What the suite lacks is returned as missing.
func (c *Cache) lockSuite(ctx context.Context, s Suite, from string, want Want, lock *profile.Lock) (a profile.Archive, missing []error, err error) {
	release, digest, mirror, err := c.release(ctx, s)
	if err != nil {
		return a, nil, err
	}
	a = profile.Archive{Suite: s.Name, Components: s.Components, Date: release.Date.Format(time.RFC3339), InRelease: digest}
	seen := map[string]bool{}
	// The lists must come from the mirror that the signed file came from: another may be a few hours behind.
	here := *c
	here.Mirrors = []Mirror{mirror}
	for _, source := range slices.SortedFunc(maps.Keys(want), compareSources) {
		if source.Suite != from {
			continue
		}
		index, err := here.index(ctx, s, release, source.Architecture)
		if err != nil {
			return a, nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(want[source])) {
			found, err := index.Find(name)
			if err != nil {
				missing = append(missing, fmt.Errorf("%s: %w for %s in %s %v", want[source][name], err, source.Architecture, s.Name, s.Components))
				continue
			}
			for _, p := range found {
				p.Suite = from
				if key := p.Name + "/" + p.Architecture; !seen[key] {
					seen[key] = true
					lock.Packages = append(lock.Packages, p)
				}
			}
		}
	}
	return a, missing, nil
}

// release fetches and verifies the suite's InRelease file, and says which mirror has it.
func (c *Cache) release(ctx context.Context, s Suite) (*Release, string, Mirror, error) {
	// Debian's is about 150 kB.
	const limit = 4 << 20
	name := "dists/" + s.Name + "/InRelease"
	data, from, err := c.small(ctx, name, limit)
	if err != nil {
		return nil, "", Mirror{}, err
	}
	r, err := VerifyRelease(data, s.Keys, s.Now)
	if err != nil {
		return nil, "", Mirror{}, fmt.Errorf("cannot trust %s/%s: %w; nothing was changed. If the mirror is not one of Debian, %s", from.URL, name, err, remedy)
	}
	if r.Codename != s.Name {
		return nil, "", Mirror{}, fmt.Errorf("cannot use %s/%s: it is of release %s, not %s; nothing was changed", from.URL, name, r.Codename, s.Name)
	}
	sum := sha256.Sum256(data)
	return r, hex.EncodeToString(sum[:]), from, nil
}

// index fetches the package lists of an architecture, which the release vouches for by digest.
func (c *Cache) index(ctx context.Context, s Suite, r *Release, architecture string) (Index, error) {
	x := Index{}
	for _, component := range s.Components {
		dir := component + "/binary-" + architecture
		list, ok := r.Lists[dir+"/Packages.xz"]
		if !ok {
			return nil, fmt.Errorf("cannot find the package list %s/Packages.xz in release %s: the release has no such component or architecture", dir, s.Name)
		}
		f := File{Name: "package list " + dir, Path: "dists/" + s.Name + "/" + dir + "/Packages.xz", SHA256: list.SHA256, Size: list.Size}
		if r.ByHash {
			f.Path = "dists/" + s.Name + "/" + dir + "/by-hash/SHA256/" + list.SHA256
		}
		name, err := c.File(ctx, f)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", f.Name, err)
		}
		plain, err := xz.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", f.Name, err)
		}
		if err := x.Add(plain); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return x, nil
}
