// Package profile reads what people write to describe an image: a profile (what goes into it), a board (what it
// runs on) and the lock (which exact packages it is made of).
//
// Files are decoded strictly: a key that is not known, a value of the wrong kind or a missing value is a mistake with
// file, line and column, and every mistake of a file is reported at once. A value that this package returns has passed
// its own validation; what needs several files at once (is a package locked, does a path appear twice) is checked by
// package plan.
package profile

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A Profile says what goes into an image. It may be put together from several files with include.
type Profile struct {
	// Name is the base name of the file without its extension.
	Name string `yaml:"-"`
	// Include names other profiles, relative to this file, that this one adds to. Their entries come first.
	Include []string `yaml:"include,omitempty"`
	// Version is the version of the image, in the form of https://semver.org. A file's own version wins over that of
	// the files that it includes.
	Version string `yaml:"version,omitempty"`
	// Packages are the Debian packages that files are taken from.
	Packages []Package `yaml:"packages,omitempty"`
	// Overlays are folders, relative to the repository, that are copied verbatim into the root file system.
	Overlays []string `yaml:"overlays,omitempty"`
	// Programs are commands of this repository.
	Programs []Program `yaml:"programs,omitempty"`
	// Links and Directories of the root file system.
	Links       []Link      `yaml:"links,omitempty"`
	Directories []Directory `yaml:"directories,omitempty"`
	// Images are container images that the builder makes and the root file system carries.
	Images []Image `yaml:"images,omitempty"`
	// KernelConfig lists kernel configuration fragments, relative to the repository.
	KernelConfig []string `yaml:"kernelConfig,omitempty"`
	// DeviceTreeOverlays are applied to the device tree of boards that have one, in this order and after the board's own.
	DeviceTreeOverlays []DeviceTreeOverlay `yaml:"deviceTreeOverlays,omitempty"`
	// UserData names a #cloud-config file, relative to the repository, that is baked into the image as its default.
	UserData string `yaml:"userData,omitempty"`
	// Update is about upgrades of the devices that get the image.
	Update Update `yaml:"update,omitempty"`
	// API is about the device API of the devices that get the image.
	API API `yaml:"api,omitempty"`
	// Release says that the image is for devices in the field: it is not built with a development key, nor for clients that
	// nobody has named.
	Release bool `yaml:"release,omitempty"`
}

// Update is about upgrades.
type Update struct {
	// Keys name files with public keys, relative to the repository. Devices trust bundles that one of them has signed. A
	// file's own keys replace those of the files that it includes: whom to trust is said in one place.
	Keys []string `yaml:"keys,omitempty"`
	// Floor is the security floor of the image, and of bundles with it: see bundle.Manifest. A file's own replaces those of the files
	// that it includes.
	Floor uint64 `yaml:"floor,omitempty"`
}

// maxFloor is bundle.MaxFloor: what every reader of JSON keeps exactly.
const maxFloor = 1<<53 - 1

// API is about the device API.
type API struct {
	// Clients name files with certificates of authorities (ca.crt of a context), relative to the repository: whoever has a
	// certificate of one of them may use the device API. A file's own list replaces those of the files that it includes.
	Clients []string `yaml:"clients,omitempty"`
	// NoRemote keeps the device API off the network.
	NoRemote bool `yaml:"noRemote,omitempty"`
}

// A Package is a Debian package and the files that are wanted of it.
type Package struct {
	Position `yaml:"-"`
	// Name is the name of the binary package.
	Name string `yaml:"name"`
	// Files are patterns of what goes into the root file system: path.Match, plus ** for any number of folders, without
	// a leading slash. A package without files is only for the builder itself, or for a container image.
	Files []string `yaml:"files,omitempty"`
	// Reason says why an image needs it; `skerry explain` shows it.
	Reason string `yaml:"reason"`
	// Suite is where it is from, if not from the release that most are from. Only a board's kernel has one.
	Suite string `yaml:"-"`
}

// A Program is a command of this repository.
type Program struct {
	Position `yaml:"-"`
	// Name is a label, unique among programs.
	Name string `yaml:"name"`
	// Package is the folder of the command, relative to the repository.
	Package string `yaml:"package"`
	// Path is where it goes in the root file system; empty if it is only used in a container image.
	Path   string `yaml:"path,omitempty"`
	Reason string `yaml:"reason"`
}

// A Link is a symbolic link.
type Link struct {
	Position `yaml:"-"`
	Path     string `yaml:"path"`
	Target   string `yaml:"target"`
	Reason   string `yaml:"reason"`
}

// A Directory is an empty directory.
type Directory struct {
	Position `yaml:"-"`
	Path     string `yaml:"path"`
	// Mode is the permission bits in octal, as in chmod: "0755".
	Mode   string `yaml:"mode"`
	Reason string `yaml:"reason"`
}

// An Image is a container image of one layer, made of programs, of files of Debian packages, or of both.
type Image struct {
	Position `yaml:"-"`
	// Reference is the image's name with a tag.
	Reference string   `yaml:"reference"`
	Programs  []string `yaml:"programs,omitempty"`
	// Packages are names of Debian packages, and Files the patterns of the files that are taken from all of them.
	Packages   []string `yaml:"packages,omitempty"`
	Files      []string `yaml:"files,omitempty"`
	Links      []Link   `yaml:"links,omitempty"`
	Entrypoint []string `yaml:"entrypoint,omitempty"`
	Reason     string   `yaml:"reason"`
}

// ReadProfile reads the profile at file, and those that it includes.
func ReadProfile(file string) (*Profile, error) {
	p, err := readProfile(file, nil)
	if err != nil {
		return nil, err
	}
	if p.Version == "" {
		return nil, fmt.Errorf("%s:1:1: version is missing: neither the profile nor one that it includes says which version the image is", file)
	}
	return p, nil
}

// readProfile reads one file and what it includes; from is the chain of files that led here.
func readProfile(file string, from []string) (*Profile, error) {
	clean := filepath.Clean(file)
	if slices.Contains(from, clean) {
		return nil, fmt.Errorf("cannot read profile %s: it includes itself: %s", file, strings.Join(append(from, clean), " includes "))
	}
	data, err := os.ReadFile(clean)
	if err != nil {
		return nil, fmt.Errorf("cannot read profile: %w", err)
	}
	own := &Profile{}
	m, err := decode(file, data, own)
	if err != nil {
		return nil, err
	}
	if err := own.validate(m); err != nil {
		return nil, err
	}
	all := &Profile{}
	for _, name := range own.Include {
		path := filepath.FromSlash(name)
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(clean), path)
		}
		included, err := readProfile(path, append(from, clean))
		if err != nil {
			return nil, fmt.Errorf("%w\n\tincluded by %s", err, file)
		}
		all.add(included)
	}
	all.add(own)
	all.Name = strings.TrimSuffix(filepath.Base(clean), filepath.Ext(clean))
	return all, nil
}

// add appends q's entries to p's; q's single values win.
func (p *Profile) add(q *Profile) {
	p.Packages = append(p.Packages, q.Packages...)
	p.Programs = append(p.Programs, q.Programs...)
	p.Links = append(p.Links, q.Links...)
	p.Directories = append(p.Directories, q.Directories...)
	p.Images = append(p.Images, q.Images...)
	p.DeviceTreeOverlays = append(p.DeviceTreeOverlays, q.DeviceTreeOverlays...)
	// Two profiles that include the same third one name its folders twice; an overlay or a fragment is used once.
	p.Overlays = appendNew(p.Overlays, q.Overlays)
	p.KernelConfig = appendNew(p.KernelConfig, q.KernelConfig)
	if q.Version != "" {
		p.Version = q.Version
	}
	if q.UserData != "" {
		p.UserData = q.UserData
	}
	if len(q.Update.Keys) > 0 {
		p.Update.Keys = q.Update.Keys
	}
	if q.Update.Floor > 0 {
		p.Update.Floor = q.Update.Floor
	}
	// Both say the same thing, who is let in, and a file says it anew.
	if len(q.API.Clients) > 0 || q.API.NoRemote {
		p.API = q.API
	}
	// An image that includes one for the field is one for the field.
	p.Release = p.Release || q.Release
}

func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

var (
	// semanticVersion is the grammar of https://semver.org/spec/v2.0.0.html without build metadata, which does not
	// take part in precedence and so could not tell two releases apart.
	semanticVersion = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)
	// debianName is Debian Policy 5.6.1.
	debianName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	// fileMode is what the builder can store: permission bits and the sticky bit, in octal.
	fileMode = regexp.MustCompile(`^0[01]?[0-7]{3}$`)
	// reference is a container image's name with registry and tag; the builder's own images have no digest yet.
	reference = regexp.MustCompile(`^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// validate checks what one file says by itself.
func (p *Profile) validate(m *mistakes) error {
	if p.Version != "" && !semanticVersion.MatchString(p.Version) {
		m.add(m.at("version"), "version %q is not of the form 1.2.3 or 1.2.3-rc.1 (https://semver.org)", p.Version)
	}
	validatePackages(m, p.Packages)
	for i, name := range p.Overlays {
		m.relative(m.at("overlays", i), name)
	}
	for i, name := range p.KernelConfig {
		m.relative(m.at("kernelConfig", i), name)
	}
	if p.UserData != "" {
		m.relative(m.at("userData"), p.UserData)
	}
	for i, name := range p.Update.Keys {
		m.relative(m.at("update", "keys", i), name)
	}
	if p.Update.Floor > maxFloor {
		m.add(m.at("update", "floor"), "floor %d is more than %d, which is the largest", p.Update.Floor, uint64(maxFloor))
	}
	for i, name := range p.API.Clients {
		m.relative(m.at("api", "clients", i), name)
	}
	if p.API.NoRemote && len(p.API.Clients) > 0 {
		m.add(m.at("api"), "clients and noRemote exclude each other: whoever is let in needs the network")
	}
	for _, g := range p.Programs {
		m.needs(g.Position, "program", g.Name, g.Reason)
		m.relative(g.Position, g.Package)
		if g.Path != "" {
			m.absolute(g.Position, g.Path)
		}
	}
	for _, l := range p.Links {
		m.needs(l.Position, "link", l.Path, l.Reason)
		m.absolute(l.Position, l.Path)
		if l.Target == "" {
			m.add(l.Position, "link %s has no target", l.Path)
		}
	}
	for _, d := range p.Directories {
		m.needs(d.Position, "directory", d.Path, d.Reason)
		m.absolute(d.Position, d.Path)
		if !fileMode.MatchString(d.Mode) {
			m.add(d.Position, "mode %q of directory %s is not octal permission bits in quotes, such as \"0755\" or \"01777\"", d.Mode, d.Path)
		}
	}
	for _, i := range p.Images {
		i.validate(m)
	}
	validateOverlays(m, p.DeviceTreeOverlays)
	return m.err()
}

func (i Image) validate(m *mistakes) {
	m.needs(i.Position, "image", i.Reference, i.Reason)
	if !reference.MatchString(i.Reference) {
		m.add(i.Position, "image reference %q is not of the form registry/name:tag", i.Reference)
	}
	if len(i.Programs) == 0 && len(i.Packages) == 0 {
		m.add(i.Position, "image %s has neither programs nor packages", i.Reference)
	}
	if (len(i.Packages) == 0) != (len(i.Files) == 0) {
		m.add(i.Position, "image %s needs packages and files together: files are patterns of what is taken from the packages", i.Reference)
	}
	for _, f := range i.Files {
		m.pattern(i.Position, f)
	}
	for _, l := range i.Links {
		m.absolute(l.Position, l.Path)
		if l.Target == "" {
			m.add(l.Position, "link %s has no target", l.Path)
		}
	}
}

func validatePackages(m *mistakes, list []Package) {
	seen := map[string]Position{}
	for _, p := range list {
		m.needs(p.Position, "package", p.Name, p.Reason)
		if !debianName.MatchString(p.Name) {
			m.add(p.Position, "%q is not the name of a Debian package", p.Name)
		}
		if first, ok := seen[p.Name]; ok {
			m.add(p.Position, "package %s is already listed in line %d of this file; put its files together", p.Name, first.Line)
		}
		seen[p.Name] = p.Position
		for _, f := range p.Files {
			m.pattern(p.Position, f)
		}
	}
}

// needs checks the two values that every entry has.
func (m *mistakes) needs(at Position, kind, name, reason string) {
	if name == "" {
		m.add(at, "%s has no name", kind)
		return
	}
	if strings.TrimSpace(reason) == "" {
		m.add(at, "%s %s has no reason: say in a few words why an image needs it", kind, name)
	}
}

func (m *mistakes) relative(at Position, name string) {
	if name == "" || path.IsAbs(name) || path.Clean(name) != name || name == ".." || strings.HasPrefix(name, "../") {
		m.add(at, "%q is not a clean path relative to the repository, such as overlay or initd/cmd/init", name)
	}
}

func (m *mistakes) absolute(at Position, name string) {
	if !path.IsAbs(name) || path.Clean(name) != name || name == "/" {
		m.add(at, "%q is not a clean absolute path, such as /usr/sbin/init", name)
	}
}

func (m *mistakes) pattern(at Position, pattern string) {
	if err := CheckPattern(pattern); err != nil {
		m.add(at, "%v", err)
	}
}
