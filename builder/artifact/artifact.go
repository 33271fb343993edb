// Package artifact carries out a [plan.Plan] up to the point where only a disk is missing: it makes the programs,
// the trimmed kernel modules, the initramfs, the container images and the root file system with its verity tree.
//
// Every artefact is a pure function of its inputs. It is kept in a [Store] under the digest of those inputs,
// verified when it is read, and made anew when it is missing or damaged, so an interrupted or spoilt cache costs
// time and never correctness. Nothing here needs root, a mount or a tool other than Go.
package artifact

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
)

// Packages gives the local path of a locked package, verified against its SHA-256. It belongs to the caller,
// who decides about mirrors and caches.
type Packages interface {
	Package(ctx context.Context, p plan.Package) (string, error)
}

// A Builder makes the artefacts of one plan, and remembers them for as long as it lives. The fields are set before the first call and not changed after it.
type Builder struct {
	// Source is the folder of this repository: programs are built in it, overlays are read from it.
	Source string
	// Store keeps what is made.
	Store *Store
	// Packages fetches Debian packages.
	Packages Packages
	// Progress is told what is being done.
	Progress progress.Reporter

	mu          sync.Mutex // guards the next two
	unpacked    map[string]*Unpacked
	unpackedAll bool

	programs  map[string]Content
	goVersion string
	index     *ModuleIndex
}

// Prepare does side by side what takes longest and does not depend on each other: the programs, and packages with the
// index of kernel modules. What is asked for afterwards finds them done.
func (b *Builder) Prepare(ctx context.Context, p *plan.Plan) error {
	if err := b.check(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := b.Programs(ctx, p)
		return err
	})
	g.Go(func() error {
		if err := b.UnpackAll(ctx, p); err != nil {
			return err
		}
		_, err := b.Modules(ctx, p)
		return err
	})
	return g.Wait()
}

// check reports a builder that was put together wrongly.
func (b *Builder) check() error {
	switch {
	case b.Source == "":
		return errors.New("artifact builder has no source folder")
	case b.Store == nil:
		return errors.New("artifact builder has no store")
	case b.Packages == nil:
		return errors.New("artifact builder has no packages")
	case b.Progress == nil:
		return errors.New("artifact builder has no progress reporter")
	}
	return nil
}

// lockedPackage returns the plan's package of that name.
func lockedPackage(p *plan.Plan, name, why string) (plan.Package, error) {
	pkg := p.PackageNamed(name)
	if pkg == nil {
		return plan.Package{}, fmt.Errorf("cannot find package %q in the plan of %s: %s needs it; add it to the board or run `skerry lock --update`", name, p.Name, why)
	}
	return *pkg, nil
}
