package plan

import (
	"fmt"
	"slices"

	"github.com/skerryos/skerry/builder/profile"
)

// LoaderArgument tells init on a board with U-Boot which boot loader keeps the slots; without it, it is systemd-boot.
const LoaderArgument = "skerry.loader=uboot"

// UBoot is what a board with U-Boot boots from.
type UBoot struct {
	// Files go onto the boot partition, outside of the slots, and so does a config.txt with the lines of Config.
	Files  []BootFile `json:"files"`
	Config []string   `json:"config,omitempty"`
	// Environment changes U-Boot's default environment, in its programs among Files.
	Environment *Environment `json:"environment,omitempty"`
	// Command starts the kernel: booti or bootz.
	Command string `json:"command"`
	Memory  Memory `json:"memory"`
	// DeviceTrees are files of the kernel's packages, in the folder that the pattern DeviceTreeFolder names.
	DeviceTreeFolder string       `json:"deviceTreeFolder"`
	DeviceTrees      []DeviceTree `json:"deviceTrees"`
	// Overlays are applied to the device tree, in this order.
	Overlays []DeviceTreeOverlay `json:"overlays,omitempty"`
}

// A BootFile is what the boot partition has of a package.
type BootFile struct {
	// Package is an element of Plan.Packages; the kernel's stands for all of its packages.
	Package string `json:"package"`
	// Files are patterns; the names on the boot partition are the base names, or As.
	Files []string `json:"files"`
	As    string   `json:"as,omitempty"`
}

// An Environment is variables, each NAME=VALUE, that are compiled into U-Boot's programs. The paths of these on the boot partition are
// In; variables of Unset, by name, make room.
type Environment struct {
	In    []string `json:"in"`
	Set   []string `json:"set"`
	Unset []string `json:"unset,omitempty"`
}

// Memory says where U-Boot puts things, in bytes.
type Memory struct {
	State      uint64 `json:"state"`
	Kernel     uint64 `json:"kernel"`
	DeviceTree uint64 `json:"deviceTree"`
	Overlay    uint64 `json:"overlay"`
	Initramfs  uint64 `json:"initramfs"`
	// Unpacked is 0 for a kernel that unpacks itself.
	Unpacked uint64 `json:"unpacked,omitempty"`
	End      uint64 `json:"end"`
}

// A DeviceTree is a file, and the name by which U-Boot knows the board that it is for.
type DeviceTree struct {
	Board string `json:"board"`
	File  string `json:"file"`
}

// A DeviceTreeOverlay is a file of a package or, without one, of the repository.
type DeviceTreeOverlay struct {
	Package string `json:"package,omitempty"`
	File    string `json:"file"`
	Reason  string `json:"reason"`
}

// uboot resolves what only boards with U-Boot have.
func (r *resolver) uboot() {
	u := r.in.Board.UBoot
	if u == nil {
		for _, o := range r.in.Profile.DeviceTreeOverlays {
			r.fail(o.Position, "device tree overlay %s is of no use: board %s has no device tree of ours", o.File, r.in.Board.Name)
		}
		return
	}
	m := u.Memory
	out := &UBoot{
		Config: u.Config, Command: u.Command, DeviceTreeFolder: u.DeviceTrees.Folder,
		Memory: Memory{
			State: uint64(m.State), Kernel: uint64(m.Kernel), DeviceTree: uint64(m.DeviceTree), Overlay: uint64(m.Overlay),
			Initramfs: uint64(m.Initramfs), Unpacked: uint64(m.Unpacked), End: uint64(m.End),
		},
	}
	for _, f := range u.Files {
		out.Files = append(out.Files, BootFile{Package: r.lockedName(f.Package), Files: f.Files, As: f.As})
	}
	if e := u.Environment; e != nil {
		out.Environment = &Environment{In: e.In, Set: e.Set, Unset: e.Unset}
	}
	for _, d := range u.DeviceTrees.Boards {
		out.DeviceTrees = append(out.DeviceTrees, DeviceTree{Board: d.Board, File: d.Name()})
	}
	for _, o := range slices.Concat(u.Overlays, r.in.Profile.DeviceTreeOverlays) {
		out.Overlays = append(out.Overlays, DeviceTreeOverlay{Package: r.lockedName(o.Package), File: o.File, Reason: o.Reason})
	}
	r.plan.UBoot = out
	r.plan.CommandLine = append(r.plan.CommandLine, LoaderArgument)
}

// lockedName is the locked name of one of the plan's packages: that of the newest kernel for linux-image-arm64. A package that is
// not locked was reported before.
func (r *resolver) lockedName(name string) string {
	for _, w := range Wanted(r.in.Profile, r.in.Board) {
		if w.Name != name {
			continue
		}
		if locked := r.in.Lock.PackageOf(w.Suite, name, r.in.Board.Architecture); locked != nil {
			return locked.Name
		}
	}
	return name
}

// bootPackages are the packages that a board with U-Boot needs only to boot.
func bootPackages(p *profile.Profile, b *profile.Board) []profile.Package {
	if b.UBoot == nil {
		return nil
	}
	var list []profile.Package
	for _, f := range b.UBoot.Files {
		list = append(list, profile.Package{Position: f.Position, Name: f.Package, Reason: f.Reason})
	}
	for _, o := range slices.Concat(b.UBoot.Overlays, p.DeviceTreeOverlays) {
		if o.Package != "" {
			list = append(list, profile.Package{Position: o.Position, Name: o.Package, Reason: o.Reason})
		}
	}
	return list
}

// dates are those of the suites, beyond the lock's first one, that the plan's packages are from.
func (r *resolver) dates(suites map[string]bool) {
	for _, a := range r.in.Lock.Further {
		if !suites[a.Suite] {
			continue
		}
		date, err := a.Time()
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("lock: %w", err))
			continue
		}
		r.plan.FurtherDates = append(r.plan.FurtherDates, date.Unix())
	}
}
