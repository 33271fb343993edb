package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sort"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
)

// A Manifest says what a build was made of and what it made. It is what NAME.manifest.json holds.
type Manifest struct {
	Name        string `json:"name"`
	Version     string `json:"version"`
	Board       string `json:"board"`
	Profile     string `json:"profile"`
	Plan        string `json:"plan"`
	SourceDate  int64  `json:"sourceDate"`
	Kernel      string `json:"kernel"`
	CommandLine string `json:"commandLine"`
	// GoVersion is the version of the compiler, on which the programs' bytes depend.
	GoVersion string `json:"goVersion"`
	// Inputs are the packages, and the programs that were built from the repository.
	Inputs []ManifestInput `json:"inputs"`
	// Outputs are the files that the build made, by their base names, and the parts of the image.
	Outputs []ManifestOutput `json:"outputs"`
	Root    artifact.Verity  `json:"root"`
	// Files are all paths of the root file system.
	Files []ManifestFile `json:"files"`
}

// A ManifestInput is one input.
type ManifestInput struct {
	// Kind is "package" or "program".
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	// Path is a package's in the archive, a program's Go import path.
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// A ManifestOutput is one output.
type ManifestOutput struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// A ManifestFile is a path of the root file system.
type ManifestFile struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Target string `json:"target,omitempty"`
	Origin string `json:"origin"`
	Reason string `json:"reason,omitempty"`
}

func writeManifest(b *artifact.Builder, r *Result, p *plan.Plan, programs map[string]artifact.Content, root *artifact.Root, parts *bootFiles) error {
	m := Manifest{
		Name: p.Name, Version: p.Version, Board: p.Board, Profile: p.Profile, Plan: r.Plan,
		SourceDate: p.SourceDate, Kernel: p.Kernel.Release, CommandLine: parts.commandLine, GoVersion: b.GoVersion(), Root: root.Verity,
	}
	for _, k := range p.Packages {
		m.Inputs = append(m.Inputs, ManifestInput{"package", k.Name, k.Version, k.Path, k.SHA256, k.Size})
	}
	for _, g := range p.Programs {
		c := programs[g.Name]
		m.Inputs = append(m.Inputs, ManifestInput{"program", g.Name, p.Version, g.Package, c.SHA256, c.Bytes})
	}
	m.Outputs = []ManifestOutput{
		{filepath.Base(r.Image), r.SHA256, r.Bytes},
		{"root", root.SHA256, root.Bytes},
		{parts.imageName, parts.image.SHA256, parts.image.Bytes},
		{"initrd", parts.initrd.SHA256, parts.initrd.Bytes},
		{"vmlinuz", parts.kernel.SHA256, parts.kernel.Bytes},
	}
	sort.Slice(m.Outputs, func(i, j int) bool { return m.Outputs[i].Name < m.Outputs[j].Name })
	for _, e := range root.Entries {
		m.Files = append(m.Files, ManifestFile{Path: e.Path, Bytes: e.Content.Bytes, SHA256: e.Content.SHA256, Target: e.Target, Origin: e.Origin, Reason: e.Reason})
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return fmt.Errorf("cannot encode the manifest: %w", err)
	}
	return writeOutput(r.Manifest, text.Bytes())
}
