package plan

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/skerryos/skerry/builder/profile"
)

// An Input is everything that a plan is made of, already read.
type Input struct {
	Profile *profile.Profile
	Board   *profile.Board
	Lock    *profile.Lock
	// Module is the import path of the repository's Go module.
	Module string
	// Fragments are the kernel configuration fragments that the profile and the board name, by those names.
	Fragments map[string][]Option
	// UserData is the content of the #cloud-config file that is baked into the image; empty without one.
	UserData string
	// Keys are the keys that devices are to trust, in any order; one may be there twice.
	Keys []TrustedKey
	// Clients are the authorities of the device API's clients, in any order; one may be there twice.
	Clients []Authority
	// NoRemote keeps the device API off the network; then there are no Clients.
	NoRemote bool
}

// targets says what a Debian architecture is called by everyone else.
var targets = map[string]Target{
	"amd64": {GOARCH: "amd64", Debian: "amd64", Triplet: "x86_64-linux-gnu"},
	"arm64": {GOARCH: "arm64", Debian: "arm64", Triplet: "aarch64-linux-gnu"},
	"armhf": {GOARCH: "arm", GOARM: "7", Debian: "armhf", Triplet: "arm-linux-gnueabihf"},
}

// panicSeconds is after how long a kernel that panicked starts the machine anew. It is long enough to read a screen,
// and short enough that the boot loader's counter soon falls back to the other slot.
const panicSeconds = 10

// Resolve puts profile, board and lock together. It reads nothing but its argument, and reports every mistake at once.
func Resolve(in Input) (*Plan, error) {
	r := resolver{in: in}
	target, ok := targets[in.Board.Architecture]
	if !ok {
		return nil, fmt.Errorf("cannot plan board %s: unknown architecture %q", in.Board.Name, in.Board.Architecture)
	}
	date, err := in.Lock.Archive.Time()
	if err != nil {
		return nil, fmt.Errorf("cannot plan board %s: lock: %w", in.Board.Name, err)
	}
	r.plan = &Plan{
		Name:       "skerry-" + in.Board.Name,
		Version:    in.Profile.Version,
		Board:      in.Board.Name,
		Profile:    in.Profile.Name,
		Target:     target,
		SourceDate: date.Unix(),
		Disk: Disk{
			Table:            in.Board.Disk.Table,
			BootBytes:        int64(in.Board.Disk.Boot),
			RootBytes:        int64(in.Board.Disk.Root),
			MinimumDataBytes: int64(in.Board.Disk.MinimumData),
		},
		BootLoader: in.Board.BootLoader,
		CommandLine: append([]string{
			fmt.Sprintf("panic=%d", panicSeconds),
			"oops=panic", // half a kernel is worse than a restart
			"skerry.version=" + in.Profile.Version,
			"skerry.board=" + in.Board.Name,
		}, in.Board.CommandLine...),
		Overlays: in.Profile.Overlays,
		UserData: in.UserData,
		Keys:     trustedKeys(in.Keys),
		Floor:    in.Profile.Update.Floor,
		Clients:  authorities(in.Clients),
		NoRemote: in.NoRemote,
		Release:  in.Profile.Release,
	}
	r.packages()
	r.kernel()
	r.uboot()
	r.programs()
	r.tree()
	r.images()
	if len(r.errs) > 0 {
		return nil, fmt.Errorf("cannot plan profile %s for board %s:\n%w", in.Profile.Name, in.Board.Name, errors.Join(r.errs...))
	}
	return r.plan, nil
}

// trustedKeys sorts the keys and drops repeated ones. Two keys of one identifier stay apart by their lines; the file names
// in the image show the clash.
func trustedKeys(keys []TrustedKey) []TrustedKey {
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, func(a, b TrustedKey) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Line, b.Line))
	})
	return slices.CompactFunc(sorted, func(a, b TrustedKey) bool { return a.ID == b.ID && a.Line == b.Line })
}

// authorities sorts the authorities and drops repeated ones. A key that has two certificates keeps both.
func authorities(list []Authority) []Authority {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b Authority) int {
		return cmp.Or(strings.Compare(a.Fingerprint, b.Fingerprint), strings.Compare(a.Certificate, b.Certificate))
	})
	return slices.CompactFunc(sorted, func(a, b Authority) bool { return a.Certificate == b.Certificate })
}

type resolver struct {
	in   Input
	plan *Plan
	errs []error
}

func (r *resolver) fail(at profile.Position, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...)))
}

// Wanted lists the packages that profile and board name, each once and sorted: files of the same package from several
// places are put together. The kernel's package is among them.
func Wanted(p *profile.Profile, b *profile.Board) []profile.Package {
	byName := map[string]*profile.Package{}
	var names []string
	kernel := profile.Package{Position: b.Kernel.Position, Name: b.Kernel.Package, Reason: b.Kernel.Reason}
	for _, next := range slices.Concat(p.Packages, b.Packages, []profile.Package{kernel}, bootPackages(p, b)) {
		if next.Name == b.Kernel.Package {
			next.Suite = b.Kernel.Suite
		}
		have, ok := byName[next.Name]
		if !ok {
			next.Files = slices.Clone(next.Files)
			byName[next.Name] = &next
			names = append(names, next.Name)
			continue
		}
		have.Files = append(have.Files, next.Files...)
		if !strings.Contains(have.Reason, next.Reason) {
			have.Reason += "; " + next.Reason
		}
	}
	slices.Sort(names)
	list := make([]profile.Package, 0, len(names))
	for _, n := range names {
		w := *byName[n]
		slices.Sort(w.Files)
		w.Files = slices.Compact(w.Files)
		list = append(list, w)
	}
	return list
}

func (r *resolver) packages() {
	add := func(locked *profile.LockedPackage, files []string, reason string) {
		r.plan.Packages = append(r.plan.Packages, Package{
			Name:         locked.Name,
			Version:      locked.Version,
			Architecture: locked.Architecture,
			Path:         locked.Path,
			SHA256:       locked.SHA256,
			Size:         locked.Size,
			Files:        files,
			Reason:       reason,
		})
	}
	suites := map[string]bool{}
	for _, w := range Wanted(r.in.Profile, r.in.Board) {
		locked := r.in.Lock.PackageOf(w.Suite, w.Name, r.in.Board.Architecture)
		if locked == nil {
			r.fail(w.Position, "package %s for %s is not in the lock; add it with: skerry lock --update", w.Name, r.in.Board.Architecture)
			continue
		}
		suites[w.Suite] = true
		add(locked, w.Files, w.Reason)
		for _, part := range r.in.Lock.Parts(locked) {
			add(part, nil, "part of "+locked.Name)
		}
	}
	r.dates(suites)
	slices.SortFunc(r.plan.Packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
}

func (r *resolver) kernel() {
	const prefix = "linux-image-"
	at := r.in.Board.Kernel.Position
	if locked := r.in.Lock.PackageOf(r.in.Board.Kernel.Suite, r.in.Board.Kernel.Package, r.in.Board.Architecture); locked != nil {
		// Debian names a kernel's package after its release.
		release, ok := strings.CutPrefix(locked.Name, prefix)
		if !ok {
			r.fail(at, "package %s is not a kernel: its name does not start with %s", locked.Name, prefix)
		}
		r.plan.Kernel = Kernel{Package: locked.Name, Release: release}
		for _, part := range r.in.Lock.Parts(locked) {
			r.plan.Kernel.Parts = append(r.plan.Kernel.Parts, part.Name)
		}
	}
	byName := map[string]Option{}
	for _, name := range slices.Concat(r.in.Profile.KernelConfig, r.in.Board.KernelConfig) {
		options, ok := r.in.Fragments[name]
		if !ok {
			r.errs = append(r.errs, fmt.Errorf("kernel configuration fragment %s was not read", name))
			continue
		}
		for _, o := range options {
			if len(o.Architectures) > 0 && !slices.Contains(o.Architectures, r.in.Board.Architecture) {
				continue
			}
			first, again := byName[o.Name]
			if again && (first.Value != o.Value || first.Stage != o.Stage) {
				r.errs = append(r.errs, fmt.Errorf("%s: %s=%s in stage %q contradicts %s, which has %s in stage %q", o.Origin, o.Name, o.Value, o.Stage, first.Origin, first.Value, first.Stage))
				continue
			}
			if again {
				continue
			}
			byName[o.Name] = o
			// The order of the files is kept: a fragment groups what belongs together, and modules of one stage are loaded
			// in it.
			r.plan.Kernel.Config = append(r.plan.Kernel.Config, o)
		}
	}
}

func (r *resolver) programs() {
	first := map[string]profile.Position{}
	for _, g := range r.in.Profile.Programs {
		if at, again := first[g.Name]; again {
			r.fail(g.Position, "program %s is already in %s", g.Name, at)
			continue
		}
		first[g.Name] = g.Position
		r.plan.Programs = append(r.plan.Programs, Program{Name: g.Name, Package: path.Join(r.in.Module, g.Package), Path: g.Path, Reason: g.Reason})
	}
	slices.SortFunc(r.plan.Programs, func(a, b Program) int { return strings.Compare(a.Name, b.Name) })
}

// tree checks and sorts what has a path of its own in the root file system.
func (r *resolver) tree() {
	first := map[string]profile.Position{}
	claim := func(at profile.Position, name string) bool {
		if other, again := first[name]; again {
			r.fail(at, "path %s is already taken by %s", name, other)
			return false
		}
		first[name] = at
		return true
	}
	for _, g := range r.in.Profile.Programs {
		if g.Path != "" {
			claim(g.Position, g.Path)
		}
	}
	for _, l := range r.in.Profile.Links {
		if claim(l.Position, l.Path) {
			r.plan.Links = append(r.plan.Links, Link{Path: l.Path, Target: l.Target, Reason: l.Reason})
		}
	}
	for _, d := range r.in.Profile.Directories {
		mode, err := strconv.ParseUint(d.Mode, 8, 32)
		if err != nil {
			r.fail(d.Position, "mode %q of directory %s is not octal", d.Mode, d.Path)
		}
		if claim(d.Position, d.Path) {
			r.plan.Directories = append(r.plan.Directories, Directory{Path: d.Path, Mode: uint32(mode), Reason: d.Reason})
		}
	}
	slices.SortFunc(r.plan.Links, func(a, b Link) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(r.plan.Directories, func(a, b Directory) int { return strings.Compare(a.Path, b.Path) })
}

func (r *resolver) images() {
	first := map[string]profile.Position{}
	known := func(name string) bool {
		return slices.ContainsFunc(r.plan.Programs, func(p Program) bool { return p.Name == name })
	}
	for _, i := range r.in.Profile.Images {
		if at, again := first[i.Reference]; again {
			r.fail(i.Position, "image %s is already in %s", i.Reference, at)
			continue
		}
		first[i.Reference] = i.Position
		for _, name := range i.Programs {
			if !known(name) {
				r.fail(i.Position, "image %s: unknown program %q; programs are: %s", i.Reference, name, strings.Join(r.programNames(), ", "))
			}
		}
		out := Image{Reference: i.Reference, Programs: i.Programs, Files: i.Files, Entrypoint: i.Entrypoint, Reason: i.Reason}
		for _, name := range i.Packages {
			locked := r.in.Lock.Package(name, r.in.Board.Architecture)
			if locked == nil || r.plan.PackageNamed(locked.Name) == nil {
				r.fail(i.Position, "image %s: package %s is not among the profile's packages; list it there without files", i.Reference, name)
				continue
			}
			out.Packages = append(out.Packages, locked.Name)
		}
		for _, l := range i.Links {
			out.Links = append(out.Links, Link{Path: l.Path, Target: l.Target, Reason: cmp.Or(l.Reason, i.Reason)})
		}
		r.plan.Images = append(r.plan.Images, out)
	}
	slices.SortFunc(r.plan.Images, func(a, b Image) int { return strings.Compare(a.Reference, b.Reference) })
}

func (r *resolver) programNames() []string {
	var names []string
	for _, p := range r.plan.Programs {
		names = append(names, p.Name)
	}
	return names
}
