package artifact

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/skerryos/skerry/builder/plan"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// rootRecipe is part of the key of root images; raise it when the same tree becomes other bytes.
const rootRecipe = 1

// A Root is the root file system of a slot: an EROFS image with its verity tree behind it.
type Root struct {
	Artifact
	Verity
	// Entries are the paths of the file system, sorted, each with its origin and reason.
	Entries []Entry
}

// Root makes the root file system.
func (b *Builder) Root(ctx context.Context, p *plan.Plan) (*Root, error) {
	t, err := b.RootTree(ctx, p)
	if err != nil {
		return nil, err
	}
	digest, err := p.Digest()
	if err != nil {
		return nil, err
	}
	key, err := Key("root", rootRecipe, libraryVersion("github.com/erofs/go-erofs"), t.keyEntries(), p.SourceDate, digest)
	if err != nil {
		return nil, err
	}
	a, v, err := Make(ctx, b.Store, "root", key, func(ctx context.Context, f *os.File) (Verity, error) {
		task := b.Progress.Start("make root file system", 0)
		v, err := makeRoot(ctx, f, t, p.SourceDate, digest, task.Add)
		task.Done(err)
		return v, err
	})
	if err != nil {
		return nil, err
	}
	return &Root{Artifact: a, Verity: v, Entries: t.Entries()}, nil
}

func makeRoot(ctx context.Context, f *os.File, t *Tree, date int64, seed string, add func(int64)) (Verity, error) {
	if err := WriteEROFS(ctx, f, t, date); err != nil {
		return Verity{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return Verity{}, fmt.Errorf("cannot measure the root file system: %w", err)
	}
	v, err := AppendVerity(ctx, f, info.Size(), seed)
	if err != nil {
		return Verity{}, err
	}
	add(info.Size())
	return v, nil
}

// RootTree puts together the root file system, and checks that its programs can run.
func (b *Builder) RootTree(ctx context.Context, p *plan.Plan) (*Tree, error) {
	if err := b.Prepare(ctx, p); err != nil {
		return nil, err
	}
	t := &Tree{}
	known, err := b.addPackages(ctx, t, p)
	if err != nil {
		return nil, err
	}
	for _, o := range p.Overlays {
		if err := b.addOverlay(ctx, t, o); err != nil {
			return nil, err
		}
	}
	for _, l := range p.Links {
		if err := t.Add(Entry{Path: l.Path, Mode: fs.ModeSymlink | 0o777, Target: l.Target, Origin: "profile", Reason: l.Reason}); err != nil {
			return nil, err
		}
	}
	for _, d := range p.Directories {
		mode := fs.ModeDir | fs.FileMode(d.Mode).Perm()
		if d.Mode&0o1000 != 0 {
			mode |= fs.ModeSticky
		}
		if err := t.Add(Entry{Path: d.Path, Mode: mode, Origin: "profile", Reason: d.Reason}); err != nil {
			return nil, err
		}
	}
	programs, err := b.Programs(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, prog := range p.Programs {
		if prog.Path == "" {
			continue
		}
		if err := t.Add(Entry{Path: prog.Path, Mode: 0o755, Content: programs[prog.Name], Origin: "program " + prog.Name + " (" + prog.Package + ")", Reason: prog.Reason}); err != nil {
			return nil, err
		}
	}
	index, err := b.Modules(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := index.AddModules(t, p); err != nil {
		return nil, err
	}
	if err := b.addImages(ctx, t, p); err != nil {
		return nil, err
	}
	if err := b.addGenerated(ctx, t, p, programs); err != nil {
		return nil, err
	}
	if err := CheckLinks(t, p.Target, known); err != nil {
		return nil, fmt.Errorf("cannot make the root file system of %s:\n%w", p.Name, err)
	}
	return t, nil
}

// addPackages adds the files that packages give to the root file system, and returns these packages.
func (b *Builder) addPackages(ctx context.Context, t *Tree, p *plan.Plan) ([]*Unpacked, error) {
	var known []*Unpacked
	for _, pkg := range p.Packages {
		if len(pkg.Files) == 0 {
			continue
		}
		u, err := b.PackageOf(ctx, p, pkg.Name)
		if err != nil {
			return nil, err
		}
		known = append(known, u)
		entries, err := u.Select(pkg.Files)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if err := t.Add(e); err != nil {
				return nil, err
			}
		}
	}
	return known, nil
}

// leftBehind are names of files that nobody has put into a folder.
var leftBehind = regexp.MustCompile(`^(\.DS_Store|.*~|\..*\.sw[a-p]|#.*#)$`)

// addOverlay adds a folder of the repository. Of permissions only "executable or not" counts, which is all that a
// version control system keeps.
func (b *Builder) addOverlay(ctx context.Context, t *Tree, folder string) error {
	root := filepath.Join(b.Source, filepath.FromSlash(folder))
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if rel == "." {
			return nil
		}
		rel = filepath.ToSlash(rel)
		e := Entry{Path: "/" + rel, Mode: 0o644, Origin: path.Join(folder, rel), Reason: "the repository's overlay"}
		switch {
		case d.IsDir():
			return nil // made by what is in it
		case d.Type() == fs.ModeSymlink:
			e.Mode = fs.ModeSymlink | 0o777
			if e.Target, err = os.Readlink(name); err != nil {
				return err
			}
		case leftBehind.MatchString(d.Name()):
			return fmt.Errorf("%s is what an editor or a file manager leaves behind, and does not belong into an image: remove it", e.Origin)
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			if info.Mode()&0o111 != 0 {
				e.Mode = 0o755
			}
			if e.Content, err = FileContent(ctx, name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither file, folder nor link", e.Origin)
		}
		return t.Add(e)
	})
	if err != nil {
		return fmt.Errorf("cannot add overlay %s: %w", folder, err)
	}
	return nil
}

// addGenerated adds the files that the builder writes itself.
func (b *Builder) addGenerated(ctx context.Context, t *Tree, p *plan.Plan, programs map[string]Content) error {
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	manifest, err := deviceManifestOf(p, digest, programs)
	if err != nil {
		return err
	}
	type file struct {
		path, reason string
		data         []byte
	}
	files := []file{
		{"/etc/os-release", "says what this system is: os-release(5)", osRelease(p, digest)},
		{"/usr/lib/skerry/build-time", "the clock is never set to before this", decimalLine(p.SourceDate)},
		{"/usr/lib/skerry/minimum-data-bytes", "a first boot refuses a disk that leaves less for the data partition", decimalLine(p.Disk.MinimumDataBytes)},
		{"/usr/share/skerry/manifest.json", "says what this image is made of", manifest},
	}
	if p.UserData != "" {
		files = append(files, file{"/usr/share/skerry/user-data", "configuration baked into the image", []byte(p.UserData)})
	}
	for _, k := range p.Keys {
		files = append(files, file{"/usr/lib/skerry/keys/" + k.ID + ".pub", "bundles signed with this key are trusted", []byte(k.File())})
	}
	if p.Floor > 0 {
		files = append(files, file{"/usr/lib/skerry/floor", "bundles with a lower security floor are refused", strconv.AppendUint(nil, p.Floor, 10)})
	}
	if len(p.Clients) > 0 {
		files = append(files, file{v1.ClientsPath, plan.ClientsReason, []byte(p.ClientsFile())})
	}
	if pkg := p.PackageNamed("ca-certificates"); pkg != nil {
		u, err := b.Unpack(ctx, *pkg)
		if err != nil {
			return err
		}
		bundle, err := certificateBundle(u)
		if err != nil {
			return err
		}
		files = append(files, file{"/etc/ssl/certs/ca-certificates.crt", pkg.Reason, bundle})
	}
	for _, f := range files {
		if err := t.Add(Entry{Path: f.path, Mode: 0o644, Content: BytesContent(f.data), Origin: "builder", Reason: f.reason}); err != nil {
			return err
		}
	}
	return nil
}
