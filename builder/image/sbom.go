package image

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"path"
	"sort"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
)

// writeSBOM writes the image's software bill of materials in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/): the
// Debian packages with their licences, our programs, and the Go modules that the linker recorded in each of them.
func writeSBOM(ctx context.Context, b *artifact.Builder, r *Result, p *plan.Plan, programs map[string]artifact.Content) error {
	const root = "image"
	var components []cdx.Component
	direct := []string{}
	for _, k := range p.Packages {
		u, err := b.Unpack(ctx, k)
		if err != nil {
			return err
		}
		c, err := packageComponent(u)
		if err != nil {
			return err
		}
		components = append(components, c)
		direct = append(direct, c.BOMRef)
	}
	modules := map[string]cdx.Component{}
	var dependencies []cdx.Dependency
	for _, g := range p.Programs {
		c, d, err := programComponent(g, p.Version, programs[g.Name], modules)
		if err != nil {
			return err
		}
		components = append(components, c)
		direct = append(direct, c.BOMRef)
		dependencies = append(dependencies, d)
	}
	for _, m := range modules {
		components = append(components, m)
	}
	sort.Slice(components, func(i, j int) bool { return components[i].BOMRef < components[j].BOMRef })
	dependencies = append([]cdx.Dependency{{Ref: root, Dependencies: &direct}}, dependencies...)

	bom := cdx.NewBOM()
	bom.SerialNumber = "urn:uuid:" + guid(r.Plan+r.SHA256, "bill of materials").String()
	bom.Metadata = &cdx.Metadata{
		Timestamp: time.Unix(p.SourceDate, 0).UTC().Format(time.RFC3339),
		Component: &cdx.Component{
			BOMRef: root, Type: cdx.ComponentTypeOS, Name: p.Name, Version: p.Version,
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: r.SHA256}},
		},
	}
	bom.Components = &components
	bom.Dependencies = &dependencies
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return fmt.Errorf("cannot encode the bill of materials: %w", err)
	}
	return writeOutput(r.SBOM, out.Bytes())
}

// packageComponent describes a Debian package (https://github.com/package-url/purl-spec, type deb).
func packageComponent(u *artifact.Unpacked) (cdx.Component, error) {
	k := u.Package
	purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", url.PathEscape(k.Name), url.QueryEscape(k.Version), k.Architecture)
	c := cdx.Component{
		BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: k.Name, Version: k.Version, PackageURL: purl,
		Description: k.Reason,
		Hashes:      &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: k.SHA256}},
	}
	licences, err := packageLicences(u)
	if err != nil {
		return c, err
	}
	if len(licences) > 0 {
		var l cdx.Licenses
		for _, name := range licences {
			l = append(l, cdx.LicenseChoice{License: &cdx.License{Name: name}})
		}
		c.Licenses = &l
	}
	return c, nil
}

// packageLicences returns the short names of licences in the package's copyright file, if a machine can read it
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/). A package may refer to another one's file.
func packageLicences(u *artifact.Unpacked) ([]string, error) {
	c, err := u.Content("usr/share/doc/" + u.Package.Name + "/copyright")
	if err != nil {
		return nil, nil //nolint:nilerr // not known is an answer
	}
	text, err := c.ReadAll()
	if err != nil {
		return nil, err
	}
	head, _, _ := strings.Cut(string(text), "\n\n")
	if !strings.Contains(head, "copyright-format") {
		return nil, nil
	}
	seen := map[string]bool{}
	var out []string
	for line := range strings.Lines(string(text)) {
		name, ok := strings.CutPrefix(line, "License:")
		name = strings.TrimSpace(name)
		if ok && name != "" && !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out, nil
}

// programComponent describes one of our programs, and adds the modules that it is made of.
func programComponent(g plan.Program, version string, c artifact.Content, modules map[string]cdx.Component) (cdx.Component, cdx.Dependency, error) {
	ref := "program:" + g.Name
	out := cdx.Component{
		BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: g.Name, Version: version, Description: g.Reason,
		Hashes:   &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: c.SHA256}},
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
	}
	r, err := c.Open()
	if err != nil {
		return out, cdx.Dependency{}, err
	}
	defer r.Close()
	info, err := buildinfo.Read(r)
	if err != nil {
		return out, cdx.Dependency{}, fmt.Errorf("cannot read the modules of program %s: %w", g.Name, err)
	}
	add := func(name, version string) string {
		purl := "pkg:golang/" + path.Join(strings.ToLower(path.Dir(name)), url.PathEscape(path.Base(name))) + "@" + url.QueryEscape(version)
		modules[purl] = cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: purl}
		return purl
	}
	needs := []string{add("std", strings.TrimPrefix(info.GoVersion, "go"))}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		needs = append(needs, add(d.Path, d.Version))
	}
	sort.Strings(needs)
	return out, cdx.Dependency{Ref: ref, Dependencies: &needs}, nil
}
