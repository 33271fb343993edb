// Package plan turns what people write (a profile, a board, a lock) into a Plan: the complete, ordered
// description of one image.
//
// A Plan names every input by digest and every file by its origin, and holds no path of the workstation and
// no time of day. Resolve is pure: it reads no file, asks no network and depends on nothing but its arguments,
// so the same arguments give the same Plan on every machine, and [Plan.Digest] can key a cache.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// A Plan is what the builder carries out. Its JSON form is what `skerry plan --json` prints.
type Plan struct {
	// Name is the base name of the outputs, "skerry-" and the board's name.
	Name string `json:"name"`
	// Version is the version of the image (semantic versioning), shown by devices and compared by upgrades.
	Version string `json:"version"`
	Board   string `json:"board"`
	Profile string `json:"profile"`
	// Target is the processor that the image is for.
	Target Target `json:"target"`
	// SourceDate is the one time that goes into the image, in Unix seconds: the modification time of every
	// file, and the earliest time that a device believes in. See https://reproducible-builds.org/specs/source-date-epoch/.
	SourceDate int64 `json:"sourceDate"`
	Disk       Disk  `json:"disk"`
	// FurtherDates are those of the suites that single packages are from, in Unix seconds, without that of SourceDate.
	FurtherDates []int64 `json:"furtherDates,omitempty"`
	// BootLoader is "systemd-boot" or "uboot".
	BootLoader string `json:"bootLoader"`
	// UBoot is set if BootLoader is "uboot".
	UBoot *UBoot `json:"uboot,omitempty"`
	// CommandLine is the kernel command line, without what is known only once the root file system is built
	// (skerry.slot, skerry.roothash, skerry.rootblocks).
	CommandLine []string `json:"commandLine"`
	Kernel      Kernel   `json:"kernel"`
	// Packages are the Debian packages that the image takes files from, sorted by name.
	Packages []Package `json:"packages"`
	// Programs are our own programs, built from this repository.
	Programs []Program `json:"programs"`
	// Overlays are folders of the repository copied verbatim into the root file system, in this order.
	Overlays []string `json:"overlays"`
	// Links are symbolic links of the root file system.
	Links []Link `json:"links"`
	// Directories are empty directories of the root file system (mount points).
	Directories []Directory `json:"directories"`
	// Images are container images made by the builder and carried in the root file system.
	Images []Image `json:"images"`
	// UserData is the #cloud-config file baked into the image; empty without one.
	UserData string `json:"userData,omitempty"`
	// Keys are the keys that devices trust: they upgrade to what one of them has signed. Sorted by identifier.
	Keys []TrustedKey `json:"keys,omitempty"`
	// Floor is the security floor of the image: devices refuse bundles with a lower one, also when they have committed none.
	Floor uint64 `json:"floor,omitempty"`
	// Clients are the authorities whose certificates the device API lets in; without one it is not on the network. Sorted by
	// fingerprint.
	Clients []Authority `json:"clients,omitempty"`
	// NoRemote says that this is meant to be so: the device API is not on the network.
	NoRemote bool `json:"noRemote,omitempty"`
	// Release says that the image is for devices in the field.
	Release bool `json:"release,omitempty"`
}

// A TrustedKey is a public key in minisign's format.
type TrustedKey struct {
	// ID is the key's identifier, 16 hexadecimal digits.
	ID string `json:"id"`
	// Line is the key itself, without the comment above it.
	Line string `json:"line"`
	// Development tells that the secret half lies unprotected on somebody's workstation.
	Development bool `json:"development,omitempty"`
}

// File is what stands in the key's file on a device.
func (k TrustedKey) File() string {
	kind := "public"
	if k.Development {
		kind = "development"
	}
	return fmt.Sprintf("untrusted comment: skerry %s key %s\n%s\n", kind, k.ID, k.Line)
}

// An Authority signs the certificates of people and programs that may use the device API.
type Authority struct {
	// Name is the common name of its certificate.
	Name string `json:"name"`
	// Fingerprint is that of its key, such as SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU.
	Fingerprint string `json:"fingerprint"`
	// Certificate is in PEM form.
	Certificate string `json:"certificate"`
}

// ClientsFile is what stands in [v1.ClientsPath] on a device: one certificate after the other. It is empty without an authority.
func (p *Plan) ClientsFile() string {
	var text strings.Builder
	for _, a := range p.Clients {
		text.WriteString(a.Certificate)
	}
	return text.String()
}

// A Target is a processor architecture in the words of each tool that needs it.
type Target struct {
	// GOARCH and GOARM are those of the Go toolchain; GOARM is "7" on 32-bit ARM and empty elsewhere.
	GOARCH string `json:"goarch"`
	GOARM  string `json:"goarm,omitempty"`
	// Debian is the architecture's name in Debian: amd64, arm64, armhf.
	Debian string `json:"debian"`
	// Triplet is the multiarch directory of shared libraries, such as x86_64-linux-gnu.
	Triplet string `json:"triplet"`
}

// Disk is the layout of the disk image. Sizes are in bytes and multiples of 1 MiB.
type Disk struct {
	// Table is "gpt" or "mbr".
	Table string `json:"table"`
	// BootBytes is the size of the FAT32 partition that the firmware reads.
	BootBytes int64 `json:"bootBytes"`
	// RootBytes is the size of each of the two root partitions: file system and verity tree must fit in it.
	RootBytes int64 `json:"rootBytes"`
	// MinimumDataBytes is the smallest data partition that a device accepts on its first boot.
	MinimumDataBytes int64 `json:"minimumDataBytes"`
}

// MinimumDiskBytes is the size of the smallest disk that the image can be installed on.
func (d Disk) MinimumDiskBytes() int64 {
	const tables = 2 << 20 // 1 MiB before the first partition, and the second table at the end
	return d.BootBytes + 2*d.RootBytes + d.MinimumDataBytes + tables
}

// A Kernel says which package the kernel is from and which of its modules go where.
type Kernel struct {
	// Package is the name of the package, an element of Plan.Packages.
	Package string `json:"package"`
	// Parts are further packages that the kernel consists of, if its files are not all in Package.
	Parts []string `json:"parts,omitempty"`
	// Release is the kernel's own version, as in /lib/modules/RELEASE.
	Release string `json:"release"`
	// Config lists every option that kernel-config asks for.
	Config []Option `json:"config"`
}

// An Option is one line of a kernel-config fragment.
type Option struct {
	// Name is the option, with CONFIG_.
	Name string `json:"name"`
	// Value is "y", "m" (built in is as good) or "n".
	Value string `json:"value"`
	// Modules are the kernel modules that the option builds; they and their dependencies go into the image.
	// Where kernels differ in a module's name, all are given, as in old|new; see [ModuleNames].
	Modules []string `json:"modules,omitempty"`
	// Architectures are those that the option is for, by Debian's names; none stands for all. Options of others are not in a plan.
	Architectures []string `json:"-"`
	// Stage is "boot" for what is needed to reach the root file system (initramfs), "disk" for drivers that may be needed
	// for that, when a device asks for them, "load" for what init loads after it, and "probe" for other drivers.
	Stage string `json:"stage,omitempty"`
	// Reason says why an image needs it.
	Reason string `json:"reason"`
	// Origin is the fragment's path and line, for messages.
	Origin string `json:"origin"`
}

// ModuleNames are the names that a module has in different kernels.
func ModuleNames(module string) []string { return strings.Split(module, "|") }

// A Package is a locked Debian package and what is taken from it.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	// Path is the package's path in the archive, below the mirror's root (pool/...).
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// Files are the patterns (path.Match, plus ** for any depth; no leading slash) of the files that go into the
	// root file system. None: the package is used by the builder itself (kernel, boot loader) or for a container image.
	Files []string `json:"files,omitempty"`
	// Reason says why an image needs it.
	Reason string `json:"reason"`
}

// A Program is one of our own programs.
type Program struct {
	// Name is a label: init, skerryd, skerry-cri, pause.
	Name string `json:"name"`
	// Package is the Go import path of the command.
	Package string `json:"package"`
	// Path is where it goes in the root file system; empty if it is only used in a container image.
	Path   string `json:"path,omitempty"`
	Reason string `json:"reason"`
}

// A Link is a symbolic link; Path is absolute, Target as it is written into the link.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
	Reason string `json:"reason"`
}

// A Directory is an empty directory; Mode is its permission bits (with the sticky bit as 01000).
type Directory struct {
	Path   string `json:"path"`
	Mode   uint32 `json:"mode"`
	Reason string `json:"reason"`
}

// An Image is a container image that the builder makes, with one layer.
type Image struct {
	// Reference is its name with tag, such as skerry.internal/pause:1.
	Reference string `json:"reference"`
	// Programs are names of Plan.Programs; each is put at /NAME in the image.
	Programs []string `json:"programs,omitempty"`
	// Packages are names of Plan.Packages, and Files the patterns of the files taken from them.
	Packages []string `json:"packages,omitempty"`
	Files    []string `json:"files,omitempty"`
	Links    []Link   `json:"links,omitempty"`
	// Entrypoint is the image's default command.
	Entrypoint []string `json:"entrypoint,omitempty"`
	Reason     string   `json:"reason"`
}

// Digest is the SHA-256 of the plan's JSON form, in hexadecimal.
func (p *Plan) Digest() (string, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("cannot encode plan %s: %w", p.Name, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// CheckKeys refuses to build an image for the field that nobody, or anybody, could upgrade.
func (p *Plan) CheckKeys() error {
	if !p.Release {
		return nil
	}
	const remedy = "make a key with `skerry keys new NAME`, and list its .pub in update.keys of the profile or give it with --key"
	if len(p.Keys) == 0 {
		return fmt.Errorf("cannot build profile %s: it is for releases, and no key is given that its devices are to trust; %s", p.Profile, remedy)
	}
	for _, k := range p.Keys {
		if k.Development {
			return fmt.Errorf("cannot build profile %s: it is for releases, and key %s is a development key; %s", p.Profile, k.ID, remedy)
		}
	}
	return nil
}

// CheckClients refuses to build an image for the field that nobody can manage, unless that was asked for.
func (p *Plan) CheckClients() error {
	if !p.Release || p.NoRemote || len(p.Clients) > 0 {
		return nil
	}
	return fmt.Errorf("cannot build profile %s: it is for releases, and nobody has named who may manage its devices; "+
		"give --context NAME (`skerry context list` shows them), list a context's ca.crt in api.clients of the profile, or keep the device API off the network with --no-remote", p.Profile)
}

// PackageNamed returns the locked package of that name, or nil.
func (p *Plan) PackageNamed(name string) *Package {
	for i := range p.Packages {
		if p.Packages[i].Name == name {
			return &p.Packages[i]
		}
	}
	return nil
}
