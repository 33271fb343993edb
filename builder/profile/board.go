package profile

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Board is a kind of machine: a processor, a way to boot, and the drivers that come with it.
type Board struct {
	// Name is the base name of the file without its extension.
	Name string `yaml:"-"`
	// Title is for people: what machines these are.
	Title string `yaml:"title"`
	// Architecture is the processor, by Debian's name: amd64, arm64 or armhf.
	Architecture string `yaml:"architecture"`
	// BootLoader is the kind of boot loader: systemd-boot or uboot.
	BootLoader string `yaml:"bootLoader"`
	// UBoot is what boards with the boot loader uboot need besides, and no other board has.
	UBoot  *UBoot `yaml:"uboot,omitempty"`
	Disk   Disk   `yaml:"disk"`
	Kernel Kernel `yaml:"kernel"`
	// Emulator says how QEMU emulates the board itself; without it, it is run as a virtual machine with UEFI, if it has that.
	Emulator *Emulator `yaml:"emulator,omitempty"`
	// ImagerDevices are the models that the image is for, in the words of Raspberry Pi Imager: pi4-64bit.
	ImagerDevices []string `yaml:"imagerDevices,omitempty"`
	// CommandLine is what the kernel command line has on this board only, such as consoles.
	CommandLine []string `yaml:"commandLine,omitempty"`
	// Packages are Debian packages that this board needs beyond the profile's: boot loader, firmware.
	Packages []Package `yaml:"packages,omitempty"`
	// KernelConfig lists kernel configuration fragments, relative to the repository.
	KernelConfig []string `yaml:"kernelConfig,omitempty"`
}

// Disk is the layout of a board's disk.
type Disk struct {
	Position `yaml:"-"`
	// Table is gpt or mbr.
	Table string `yaml:"table"`
	// Boot, Root and MinimumData are sizes, such as 512MiB: of the partition that the firmware reads, of each of the two
	// root partitions, and of the smallest data partition that a device accepts.
	Boot        Size `yaml:"boot"`
	Root        Size `yaml:"root"`
	MinimumData Size `yaml:"minimumData"`
}

// Kernel names a board's kernel.
type Kernel struct {
	Position `yaml:"-"`
	// Package is the Debian package of the kernel. A package that only depends on the newest kernel, such as
	// linux-image-amd64, is followed when the lock is written.
	Package string `yaml:"package"`
	// Suite is where the package is from, if not from the release that all others are from: trixie-backports.
	Suite  string `yaml:"suite,omitempty"`
	Reason string `yaml:"reason"`
}

// An Emulator is how QEMU emulates a board. Of the firmware's work only the last step is done: what the firmware loads from the boot
// partition is given to QEMU.
type Emulator struct {
	Position `yaml:"-"`
	// Machine is QEMU's name of the board.
	Machine string `yaml:"machine"`
	// Loader and DeviceTree are paths on the boot partition.
	Loader     string `yaml:"loader"`
	DeviceTree string `yaml:"deviceTree"`
	// Serial is the number of the serial line that is the console, from 0.
	Serial int `yaml:"serial,omitempty"`
	// Enable and Disable are nodes of the device tree, by path, in which QEMU differs from the board. Only U-Boot sees the
	// difference; the kernel gets the device tree of the slot.
	Enable  []string `yaml:"enable,omitempty"`
	Disable []string `yaml:"disable,omitempty"`
}

func (e *Emulator) validate(m *mistakes) {
	if !machineName.MatchString(e.Machine) || e.Serial < 0 || e.Serial > 8 {
		m.add(e.Position, "emulator needs a machine, such as raspi3b, and a serial line from 0 to 8")
	}
	for _, node := range slices.Concat(e.Enable, e.Disable) {
		m.absolute(e.Position, node)
	}
	for _, name := range []string{e.Loader, e.DeviceTree} {
		if !bootPath.MatchString(name) {
			m.add(e.Position, "%q is not a path on the boot partition, such as u-boot.bin", name)
		}
	}
}

// A Size is a number of bytes, written with a binary unit: 512MiB, 1GiB.
type Size int64

var sizePattern = regexp.MustCompile(`^([1-9]\d{0,6})(KiB|MiB|GiB)$`)

// UnmarshalText reads a size with its unit; there is no default unit to guess wrong.
func (s *Size) UnmarshalText(text []byte) error {
	m := sizePattern.FindStringSubmatch(string(text))
	if m == nil {
		return fmt.Errorf("size %q is not a whole number with a unit KiB, MiB or GiB, such as 512MiB", text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return fmt.Errorf("size %q: %w", text, err)
	}
	*s = Size(n << map[string]int{"KiB": 10, "MiB": 20, "GiB": 30}[m[2]])
	return nil
}

// Architectures are the processors that boards may have, in Debian's words.
var Architectures = []string{"amd64", "arm64", "armhf"}

// Kinds of boot loader that the builder can install.
const (
	SystemdBoot = "systemd-boot"
	UBootLoader = "uboot"
)

// Partition tables.
const (
	GPT = "gpt"
	MBR = "mbr"
)

// tables are the partition tables that go with each boot loader: UEFI reads a GPT, and the boot ROMs of boards with U-Boot an MBR.
var tables = map[string]string{SystemdBoot: GPT, UBootLoader: MBR}

// ReadBoard reads the board at file.
func ReadBoard(file string) (*Board, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read board: %w", err)
	}
	b := &Board{}
	m, err := decode(file, data, b)
	if err != nil {
		return nil, err
	}
	b.Name = strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
	return b, b.validate(m)
}

func (b *Board) validate(m *mistakes) error {
	if b.Title == "" {
		m.add(m.at("title"), "title is missing: say in a few words what machines these are")
	}
	m.oneOf(m.at("architecture"), "architecture", b.Architecture, Architectures)
	m.oneOf(m.at("bootLoader"), "bootLoader", b.BootLoader, []string{SystemdBoot, UBootLoader})
	m.oneOf(m.at("disk", "table"), "disk table", b.Disk.Table, []string{GPT, MBR})
	if want, ok := tables[b.BootLoader]; ok && (b.Disk.Table == GPT || b.Disk.Table == MBR) && b.Disk.Table != want {
		m.add(m.at("disk", "table"), "boot loader %s needs disk table %s, not %s", b.BootLoader, want, b.Disk.Table)
	}
	switch {
	case b.BootLoader == UBootLoader && b.UBoot == nil:
		m.add(m.at("bootLoader"), "boot loader uboot needs a section uboot: what the boot partition has, and where in memory things go")
	case b.BootLoader != UBootLoader && b.UBoot != nil:
		m.add(m.at("uboot"), "section uboot is only for boot loader uboot, not for %s", b.BootLoader)
	case b.UBoot != nil:
		b.UBoot.validate(m)
	}
	const unit = 1 << 20
	for _, s := range []struct {
		name string
		size Size
	}{{"boot", b.Disk.Boot}, {"root", b.Disk.Root}, {"minimumData", b.Disk.MinimumData}} {
		if s.size == 0 || s.size%unit != 0 {
			m.add(m.at("disk", s.name), "disk size %s must be a multiple of 1MiB: partitions are aligned to it", s.name)
		}
	}
	if !debianName.MatchString(b.Kernel.Package) {
		m.add(b.Kernel.Position, "kernel package %q is not the name of a Debian package", b.Kernel.Package)
	}
	m.needs(b.Kernel.Position, "kernel", b.Kernel.Package, b.Kernel.Reason)
	if b.Kernel.Suite != "" && !suiteName.MatchString(b.Kernel.Suite) {
		m.add(m.at("kernel", "suite"), "%q is not the name of a suite, such as trixie-backports", b.Kernel.Suite)
	}
	if b.Emulator != nil {
		b.Emulator.validate(m)
	}
	for i, d := range b.ImagerDevices {
		if !imagerDevice.MatchString(d) {
			m.add(m.at("imagerDevices", i), "%q is not a model in the words of Raspberry Pi Imager, such as pi4-64bit", d)
		}
	}
	for i, a := range b.CommandLine {
		if a == "" || strings.ContainsAny(a, " \t\n") {
			m.add(m.at("commandLine", i), "kernel argument %q must be one word; list each argument on its own", a)
		}
	}
	for i, name := range b.KernelConfig {
		m.relative(m.at("kernelConfig", i), name)
	}
	validatePackages(m, b.Packages)
	return m.err()
}

// imagerDevice is a tag of a device in the catalogue of Raspberry Pi Imager.
var imagerDevice = regexp.MustCompile(`^pi[1-9]-(32|64)bit$`)

// machineName is what QEMU may call a machine, without options.
var machineName = regexp.MustCompile(`^[a-z0-9-]+$`)

// suiteName is the name of a release and, behind a hyphen, what is added to it.
var suiteName = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func (m *mistakes) oneOf(at Position, what, value string, allowed []string) {
	if !slices.Contains(allowed, value) {
		m.add(at, "%s %q is not known; allowed here: %s", what, value, strings.Join(allowed, ", "))
	}
}
