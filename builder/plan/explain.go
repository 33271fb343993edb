package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/skerryos/skerry/builder/profile"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// An Origin says where something in an image is from, and why it is there.
type Origin struct {
	// What is a phrase such as "program init, built from …".
	What   string
	Reason string
	// Package is set if the answer is only that a pattern of this package matches: whether the package has such a file is
	// not known to the plan.
	Package *Package
}

// Explain finds what of the plan puts name, an absolute path of the root file system or the reference of a container
// image, into the image. A path through a link to a folder (/bin/mount) is looked up where it really is. What is certain
// comes first.
func (p *Plan) Explain(name string) []Origin {
	name = p.Real(name)
	var certain, possible []Origin
	for _, x := range p.Programs {
		if x.Path == name {
			certain = append(certain, Origin{What: fmt.Sprintf("program %s, built from %s", x.Name, x.Package), Reason: x.Reason})
		}
	}
	for _, x := range p.Links {
		if x.Path == name {
			certain = append(certain, Origin{What: "link to " + x.Target, Reason: x.Reason})
		}
	}
	for _, x := range p.Directories {
		if x.Path == name {
			certain = append(certain, Origin{What: fmt.Sprintf("directory with mode %04o", x.Mode), Reason: x.Reason})
		}
	}
	for _, x := range p.Images {
		if x.Reference == name {
			certain = append(certain, Origin{What: fmt.Sprintf("container image of %s", strings.Join(append(append([]string(nil), x.Programs...), x.Packages...), ", ")), Reason: x.Reason})
		}
	}
	if name == v1.ClientsPath && len(p.Clients) > 0 {
		certain = append(certain, Origin{What: "made by the builder: " + strings.Join(p.clientNames(), ", "), Reason: ClientsReason})
	}
	if o, ok := p.explainModule(name); ok {
		certain = append(certain, o)
	}
	for i := range p.Packages {
		x := &p.Packages[i]
		for _, pattern := range x.Files {
			if profile.MatchPattern(pattern, strings.TrimPrefix(name, "/")) {
				possible = append(possible, Origin{What: fmt.Sprintf("file of package %s %s, wanted by the pattern %s", x.Name, x.Version, pattern), Reason: x.Reason, Package: x})
				break
			}
		}
	}
	return append(certain, possible...)
}

// ClientsReason is why the file of authorities is in an image.
const ClientsReason = "the device API lets in whoever has a certificate of one of these authorities"

func (p *Plan) clientNames() []string {
	var names []string
	for _, a := range p.Clients {
		names = append(names, fmt.Sprintf("authority %q (%s)", a.Name, a.Fingerprint))
	}
	return names
}

// Real is the path that an absolute path leads to when the plan's links to folders are followed; the last element itself
// is not.
func (p *Plan) Real(name string) string {
	for _, l := range p.Links {
		if rest, ok := strings.CutPrefix(name, l.Path+"/"); ok {
			target := l.Target
			if !path.IsAbs(target) {
				target = path.Join(path.Dir(l.Path), target)
			}
			return path.Join(target, rest)
		}
	}
	return name
}

// explainModule answers for the kernel modules that kernel-config names. Those that they depend on are found out only
// when the kernel's package is read.
func (p *Plan) explainModule(name string) (Origin, bool) {
	if !strings.HasPrefix(name, "/usr/lib/modules/"+p.Kernel.Release+"/") {
		return Origin{}, false
	}
	module, _, _ := strings.Cut(path.Base(name), ".ko")
	module = strings.ReplaceAll(module, "-", "_")
	for _, o := range p.Kernel.Config {
		for _, m := range o.Modules {
			if slices.Contains(ModuleNames(m), module) {
				return Origin{What: fmt.Sprintf("kernel module of package %s, stage %s, wanted by %s in %s", p.Kernel.Package, o.Stage, o.Name, o.Origin), Reason: o.Reason}, true
			}
		}
	}
	return Origin{}, false
}
