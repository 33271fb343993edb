package artifact

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/skerryos/skerry/builder/fetch"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

// unpackRecipe is part of the key of unpacked packages; raise it when unpack.go makes something else of a package.
const unpackRecipe = 1

// Unpacked is a Debian package with its compression taken off: the contents of its files one after the other in one
// file of the store, and where each is.
type Unpacked struct {
	Package plan.Package
	members []member
	byName  map[string]int
	data    string
}

// member is one path of a package.
type member struct {
	// Name is the path without leading slash.
	Name string      `json:"name"`
	Mode fs.FileMode `json:"mode"`
	// Target is where a symbolic link points.
	Target string `json:"target,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Offset int64  `json:"offset,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`

	data string // file of the store, if it is not that of the package
}

// Origin names the package in messages and in the list of origins.
func (u *Unpacked) Origin() string { return "package " + u.Package.Name + " " + u.Package.Version }

// Unpack returns the contents of a package. It may be called from several goroutines.
func (b *Builder) Unpack(ctx context.Context, p plan.Package) (*Unpacked, error) {
	b.mu.Lock()
	u, ok := b.unpacked[p.SHA256]
	b.mu.Unlock()
	if ok {
		u := *u // two names may be locked to one file; the origin is the one asked for
		u.Package = p
		return &u, nil
	}
	key, err := Key("unpack", unpackRecipe, p.SHA256)
	if err != nil {
		return nil, err
	}
	a, members, err := Make(ctx, b.Store, "package", key, func(ctx context.Context, f *os.File) ([]member, error) {
		deb, err := b.Packages.Package(ctx, p)
		if err != nil {
			return nil, err
		}
		return unpackDeb(ctx, deb, f)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot unpack package %s %s: %w", p.Name, p.Version, err)
	}
	u = &Unpacked{Package: p, members: members, byName: map[string]int{}, data: a.Path}
	for i, m := range members {
		u.byName[m.Name] = i
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.unpacked == nil {
		b.unpacked = map[string]*Unpacked{}
	}
	b.unpacked[p.SHA256] = u
	return u, nil
}

// UnpackAll unpacks the plan's packages, as many at a time as there are processors.
func (b *Builder) UnpackAll(ctx context.Context, p *plan.Plan) error {
	b.mu.Lock()
	done := b.unpackedAll
	b.mu.Unlock()
	if done {
		return nil
	}
	task := b.Progress.Start(fmt.Sprintf("unpack %d packages", len(p.Packages)), 0)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	// The largest first, which is the kernel: all others are done while it is under way.
	list := slices.SortedStableFunc(slices.Values(p.Packages), func(a, b plan.Package) int { return cmp.Compare(b.Size, a.Size) })
	for _, pkg := range list {
		g.Go(func() error {
			u, err := b.Unpack(ctx, pkg)
			if err == nil {
				task.Add(u.bytes())
			}
			return err
		})
	}
	err := g.Wait()
	task.Done(err)
	b.mu.Lock()
	b.unpackedAll = err == nil
	b.mu.Unlock()
	return err
}

// bytes is the size of the package's files.
func (u *Unpacked) bytes() int64 {
	var n int64
	for _, m := range u.members {
		n += m.Bytes
	}
	return n
}

func unpackDeb(ctx context.Context, deb string, f io.Writer) ([]member, error) {
	var members []member
	var offset int64
	seen := map[string]int{}
	err := fetch.WalkDeb(deb, func(h *tar.Header, r io.Reader) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		m := member{Name: h.Name, Mode: h.FileInfo().Mode()}
		switch h.Typeflag {
		case tar.TypeDir:
		case tar.TypeSymlink:
			m.Target = h.Linkname
		case tar.TypeLink:
			// A second name of an earlier file; dpkg archives have the file first.
			i, ok := seen[h.Linkname]
			if !ok {
				return fmt.Errorf("hard link %s to %s, which is not in the package before it", h.Name, h.Linkname)
			}
			m = members[i]
			m.Name = h.Name
		case tar.TypeReg:
			sum := sha256.New()
			n, err := Copy(ctx, io.MultiWriter(f, sum), r)
			if err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			m.SHA256, m.Offset, m.Bytes = hex.EncodeToString(sum.Sum(nil)), offset, n
			offset += n
		default:
			return fmt.Errorf("%s is of type %q, which an image cannot carry", h.Name, h.Typeflag)
		}
		seen[m.Name] = len(members)
		members = append(members, m)
		return nil
	})
	sort.Slice(members, func(i, j int) bool { return members[i].Name < members[j].Name })
	return members, err
}

// Content returns the content of a file of the package; name has no leading slash.
func (u *Unpacked) Content(name string) (Content, error) {
	i, ok := u.byName[name]
	if !ok || !u.members[i].Mode.IsRegular() {
		return Content{}, fmt.Errorf("cannot find file %s in %s", name, u.Origin())
	}
	return u.content(u.members[i]), nil
}

func (u *Unpacked) content(m member) Content {
	return Content{SHA256: m.SHA256, Bytes: m.Bytes, path: cmp.Or(m.data, u.data), off: m.Offset}
}

// Kernel returns the files of the plan's kernel, from all packages that it consists of as if they were one.
func (b *Builder) Kernel(ctx context.Context, p *plan.Plan) (*Unpacked, error) {
	pkg, err := lockedPackage(p, p.Kernel.Package, "the kernel")
	if err != nil {
		return nil, err
	}
	all, err := b.Unpack(ctx, pkg)
	if err != nil || len(p.Kernel.Parts) == 0 {
		return all, err
	}
	all = &Unpacked{Package: all.Package, members: slices.Clone(all.members), byName: map[string]int{}, data: all.data}
	for _, name := range p.Kernel.Parts {
		if pkg, err = lockedPackage(p, name, "part of the kernel"); err != nil {
			return nil, err
		}
		part, err := b.Unpack(ctx, pkg)
		if err != nil {
			return nil, err
		}
		for _, m := range part.members {
			m.data = part.data
			all.members = append(all.members, m)
		}
	}
	slices.SortStableFunc(all.members, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
	for i, m := range all.members {
		if first, again := all.byName[m.Name]; again && !(m.Mode.IsDir() && all.members[first].Mode.IsDir()) {
			return nil, fmt.Errorf("cannot put the packages of kernel %s together: two of them have %s", p.Kernel.Release, m.Name)
		}
		all.byName[m.Name] = i
	}
	return all, nil
}

// PackageOf returns the files of a package of the plan; the kernel's package stands for all that the kernel consists of.
func (b *Builder) PackageOf(ctx context.Context, p *plan.Plan, name string) (*Unpacked, error) {
	if name == p.Kernel.Package {
		return b.Kernel(ctx, p)
	}
	pkg, err := lockedPackage(p, name, "board "+p.Board)
	if err != nil {
		return nil, err
	}
	return b.Unpack(ctx, pkg)
}

// Match returns the paths of the package's files that a pattern names; none is an error.
func (u *Unpacked) Match(pattern string) ([]string, error) {
	var names []string
	for _, m := range u.members {
		if m.Mode.IsRegular() && profile.MatchPattern(pattern, m.Name) {
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("cannot find files of %s: pattern %q matches nothing%s", u.Origin(), pattern, u.nearest(pattern))
	}
	return names, nil
}

// Names returns the paths of the package's files and links, sorted, without leading slash.
func (u *Unpacked) Names() []string {
	var out []string
	for _, m := range u.members {
		if !m.Mode.IsDir() {
			out = append(out, m.Name)
		}
	}
	return out
}

// Select returns the package's files and links that the patterns name, as entries of a root file system with merged
// /usr. A pattern that matches nothing is an error: a new version of the package may have moved the file.
func (u *Unpacked) Select(patterns []string) ([]Entry, error) {
	var out []Entry
	taken := map[string]bool{}
	for _, p := range patterns {
		matched := false
		for _, m := range u.members {
			if m.Mode.IsDir() || !profile.MatchPattern(p, m.Name) {
				continue
			}
			matched = true
			if taken[m.Name] {
				continue
			}
			taken[m.Name] = true
			// Only root runs programs on a device, so set-user-ID bits would be a risk without a use.
			mode := m.Mode &^ (fs.ModeSetuid | fs.ModeSetgid)
			e := Entry{Path: mergeUsr(m.Name), Mode: mode, Target: m.Target, Origin: u.Origin(), Reason: u.Package.Reason}
			if m.Mode.IsRegular() {
				e.Content = u.content(m)
			}
			out = append(out, e)
		}
		if !matched {
			return nil, fmt.Errorf("cannot select files of %s: pattern %q matches nothing%s", u.Origin(), p, u.nearest(p))
		}
	}
	return out, nil
}

// nearest helps with a pattern that matches nothing: the files of that base name, wherever they are.
func (u *Unpacked) nearest(pattern string) string {
	var found []string
	for _, n := range u.Names() {
		if ok, err := path.Match(path.Base(pattern), path.Base(n)); ok && err == nil {
			found = append(found, n)
		}
	}
	switch {
	case len(found) == 0:
		return "; the package has no file of that name"
	case len(found) > 3:
		return fmt.Sprintf("; the package has %s and %d more", strings.Join(found[:3], ", "), len(found)-3)
	}
	return "; the package has " + strings.Join(found, ", ")
}

// mergeUsr returns the path that a file of a package has where /bin, /sbin and /lib* are links into /usr.
func mergeUsr(name string) string {
	first, rest, _ := strings.Cut(name, "/")
	switch first {
	case "bin", "sbin", "lib", "lib32", "lib64", "libx32":
		if rest != "" {
			return "/usr/" + name
		}
	}
	return "/" + name
}
