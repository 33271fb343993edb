package profile

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// UBoot is what a board needs whose boot loader is U-Boot. Files and FirmwareConfig lie outside of the slots and are not upgraded;
// everything else is part of a slot.
type UBoot struct {
	Position `yaml:"-"`
	// Files are what the boot partition has for the firmware: the firmware itself, U-Boot, its device trees.
	Files []BootFile `yaml:"files"`
	// Config are the lines of the firmware's config.txt; a board whose firmware has none leaves it out.
	Config []string `yaml:"config,omitempty"`
	// Environment changes U-Boot's default environment.
	Environment *Environment `yaml:"environment,omitempty"`
	// Command is U-Boot's command that starts the kernel: booti (64 bits) or bootz (32 bits).
	Command     string      `yaml:"command"`
	Memory      Memory      `yaml:"memory"`
	DeviceTrees DeviceTrees `yaml:"deviceTrees"`
	// Overlays are applied to the device tree, in this order.
	Overlays []DeviceTreeOverlay `yaml:"overlays,omitempty"`
}

// A BootFile is one or several files of a package that the boot partition has.
type BootFile struct {
	Position `yaml:"-"`
	// Package may be the kernel's, and then stands for all packages that the kernel consists of.
	Package string `yaml:"package"`
	// Files are patterns as in [Package]. Their base names are the names on the boot partition.
	Files []string `yaml:"files"`
	// As is the path on the boot partition if it is not the base name; the pattern then names one file.
	As     string `yaml:"as,omitempty"`
	Reason string `yaml:"reason"`
}

// An Environment changes variables of the default environment that is compiled into U-Boot.
type Environment struct {
	Position `yaml:"-"`
	// In are the paths of U-Boot's programs on the boot partition.
	In []string `yaml:"in"`
	// Set are variables, each NAME=VALUE; Unset are names of those that make room for them, because the size of the whole cannot change.
	Set    []string `yaml:"set"`
	Unset  []string `yaml:"unset,omitempty"`
	Reason string   `yaml:"reason"`
}

// Memory says where U-Boot puts things. Addresses and sizes are in bytes.
type Memory struct {
	Position `yaml:"-"`
	// State is where both copies of the boot state are read to, 64 KiB apart, and the start script 64 KiB after them.
	State Address `yaml:"state"`
	// Kernel is where the kernel is loaded to, and where it runs if the command is booti.
	Kernel     Address `yaml:"kernel"`
	DeviceTree Address `yaml:"deviceTree"`
	Overlay    Address `yaml:"overlay"`
	Initramfs  Address `yaml:"initramfs"`
	// Unpacked is where a kernel for booti is unpacked to before it is moved to Kernel; bootz has none, because its kernels unpack
	// themselves.
	Unpacked Address `yaml:"unpacked,omitempty"`
	// End is the end of what may be used: of the smallest memory of these boards, without what the firmware keeps for itself.
	End Address `yaml:"end"`
}

// An Address is a place in memory, in bytes. It is written in hexadecimal.
type Address uint64

var addressPattern = regexp.MustCompile(`^0x[0-9a-f]{1,16}$`)

// UnmarshalText reads an address. Only one form is accepted, because U-Boot takes every number as a hexadecimal one.
func (a *Address) UnmarshalText(text []byte) error {
	if !addressPattern.Match(text) {
		return fmt.Errorf("address %q is not of the form 0x2500000", text)
	}
	_, err := fmt.Sscanf(string(text), "0x%x", (*uint64)(a))
	return err
}

// DeviceTrees are the device trees of a slot. They come with the kernel.
type DeviceTrees struct {
	Position `yaml:"-"`
	// Folder is a pattern of the folder of the kernel's package that has them; the kernel's release is part of it.
	Folder string       `yaml:"folder"`
	Boards []DeviceTree `yaml:"boards"`
}

// A DeviceTree goes with one kind of board.
type DeviceTree struct {
	Position `yaml:"-"`
	// Board is what U-Boot calls the board: its variable fdtfile.
	Board string `yaml:"board"`
	// File is the base name of the device tree in the folder, if it is not that of Board.
	File string `yaml:"file,omitempty"`
}

// A DeviceTreeOverlay is a compiled overlay (.dtbo).
type DeviceTreeOverlay struct {
	Position `yaml:"-"`
	// Package has the overlay; without one the overlay is a file of the repository.
	Package string `yaml:"package,omitempty"`
	// File is the overlay's path in the package or in the repository.
	File   string `yaml:"file"`
	Reason string `yaml:"reason"`
}

var (
	// bootPath is a path that FAT, U-Boot's shell and a boot image leave alone.
	bootPath  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$`)
	slotFile  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	variable  = regexp.MustCompile(`^[A-Za-z0-9_]+=[ -~]+$`)
	boardName = regexp.MustCompile(`^[A-Za-z0-9._/-]+$`)
)

func (u *UBoot) validate(m *mistakes) {
	if len(u.Files) == 0 {
		m.add(u.Position, "uboot has no files: the firmware of a board needs at least U-Boot")
	}
	for _, f := range u.Files {
		f.validate(m)
	}
	for i, line := range u.Config {
		if strings.ContainsAny(line, "\n\r") || len(line) > 98 {
			m.add(m.at("uboot", "config", i), "line %q of config.txt must be one line of at most 98 bytes, which is what the firmware reads of it", line)
		}
	}
	if u.Environment != nil {
		u.Environment.validate(m)
	}
	m.oneOf(m.at("uboot", "command"), "command", u.Command, []string{"booti", "bootz"})
	u.Memory.validate(m, u.Command)
	t := u.DeviceTrees
	m.pattern(t.Position, t.Folder)
	if len(t.Boards) == 0 {
		m.add(t.Position, "deviceTrees has no boards: say for which ones there is a device tree, by U-Boot's name (fdtfile)")
	}
	seen := map[string]bool{}
	for _, d := range t.Boards {
		if !boardName.MatchString(d.Board) || !slotFile.MatchString(d.Name()) {
			m.add(d.Position, "device tree %q for board %q is not a plain name for a plain name", d.Name(), d.Board)
		}
		if seen[d.Board] {
			m.add(d.Position, "board %q has two device trees", d.Board)
		}
		seen[d.Board] = true
	}
	validateOverlays(m, u.Overlays)
}

// Name is the base name of the device tree.
func (d DeviceTree) Name() string {
	if d.File != "" {
		return d.File
	}
	return path.Base(d.Board)
}

func (f BootFile) validate(m *mistakes) {
	m.needs(f.Position, "boot file of package", f.Package, f.Reason)
	if len(f.Files) == 0 {
		m.add(f.Position, "package %s is to give files to the boot partition, but none is named", f.Package)
	}
	for _, p := range f.Files {
		m.pattern(f.Position, p)
	}
	if f.As != "" && (len(f.Files) != 1 || !bootPath.MatchString(f.As)) {
		m.add(f.Position, "as: %q must be a plain path on the boot partition, for one file", f.As)
	}
}

func (e Environment) validate(m *mistakes) {
	if len(e.In) == 0 {
		m.add(e.Position, "environment has no in: name U-Boot's programs by their paths on the boot partition")
	} else {
		m.needs(e.Position, "environment of U-Boot in", strings.Join(e.In, ", "), e.Reason)
	}
	for _, name := range e.In {
		if !bootPath.MatchString(name) {
			m.add(e.Position, "in: %q must be a plain path on the boot partition", name)
		}
	}
	if len(e.Set) == 0 {
		m.add(e.Position, "environment sets no variable")
	}
	for i, v := range e.Set {
		if !variable.MatchString(v) {
			m.add(m.at("uboot", "environment", "set", i), "variable %q must be NAME=VALUE: a name of letters, digits and _, and a value of one line in ASCII", v)
		}
	}
}

func (a Memory) validate(m *mistakes, command string) {
	for _, x := range []struct {
		name    string
		address Address
	}{
		{"state", a.State}, {"kernel", a.Kernel}, {"deviceTree", a.DeviceTree}, {"overlay", a.Overlay}, {"initramfs", a.Initramfs}, {"end", a.End},
	} {
		if x.address == 0 || x.address%4096 != 0 {
			m.add(m.at("uboot", "memory", x.name), "memory address %s is %#x; it must be given, and be a multiple of 0x1000", x.name, uint64(x.address))
		}
	}
	if (command == "booti") != (a.Unpacked != 0) || a.Unpacked%4096 != 0 {
		m.add(m.at("uboot", "memory", "unpacked"), "memory address unpacked must be given for booti, whose kernel is compressed, and only for it; a multiple of 0x1000")
	}
}

func validateOverlays(m *mistakes, list []DeviceTreeOverlay) {
	for _, o := range list {
		m.needs(o.Position, "device tree overlay", o.File, o.Reason)
		m.relative(o.Position, o.File)
		if base := path.Base(o.File); !slotFile.MatchString(base) || path.Ext(base) != ".dtbo" {
			m.add(o.Position, "device tree overlay %q must have a plain name in lower case that ends in .dtbo", o.File)
		}
	}
}
