package artifact

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

// imagesDir is where devices find the container images they are delivered with.
const imagesDir = "/usr/share/skerry/images"

// addImages puts the plan's container images into the tree as one OCI image layout
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
//
// Layers are not compressed: a device then imports them without unpacking, and the whole image compresses better in
// an update bundle than gzip inside of it would.
func (b *Builder) addImages(ctx context.Context, t *Tree, p *plan.Plan) error {
	if len(p.Images) == 0 {
		return nil
	}
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	blobs := map[string][]byte{}
	for _, i := range p.Images {
		img, err := b.image(ctx, p, i)
		if err != nil {
			return fmt.Errorf("cannot make container image %s: %w", i.Reference, err)
		}
		if err := collectBlobs(img, blobs); err != nil {
			return fmt.Errorf("cannot make container image %s: %w", i.Reference, err)
		}
		tag := i.Reference[strings.LastIndex(i.Reference, ":")+1:]
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Annotations: map[string]string{
				"org.opencontainers.image.ref.name": tag,
				"io.containerd.image.name":          i.Reference, // what containerd calls it after an import
			},
			Platform: platform(p.Target),
		}})
	}
	raw, err := index.RawManifest()
	if err != nil {
		return fmt.Errorf("cannot make the image index: %w", err)
	}
	files := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": raw}
	for digest, blob := range blobs {
		files["blobs/sha256/"+digest] = blob
	}
	for name, data := range files {
		e := Entry{Path: path.Join(imagesDir, name), Mode: 0o644, Content: BytesContent(data), Origin: "builder, from images", Reason: "container images that devices are delivered with"}
		if err := t.Add(e); err != nil {
			return err
		}
	}
	return nil
}

func platform(t plan.Target) *v1.Platform {
	pl := &v1.Platform{OS: "linux", Architecture: t.GOARCH}
	if t.GOARM != "" {
		pl.Variant = "v" + t.GOARM
	}
	return pl
}

// image makes one image with one layer.
func (b *Builder) image(ctx context.Context, p *plan.Plan, i plan.Image) (v1.Image, error) {
	t, err := b.imageTree(ctx, p, i)
	if err != nil {
		return nil, err
	}
	layer, err := tarTree(ctx, t, p.SourceDate)
	if err != nil {
		return nil, err
	}
	date := v1.Time{Time: time.Unix(p.SourceDate, 0).UTC()}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:   static.NewLayer(layer, types.OCIUncompressedLayer),
		History: v1.History{Created: date, CreatedBy: "skerry build", Comment: i.Reason},
	})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	pl := platform(p.Target)
	config.OS, config.Architecture, config.Variant, config.Created = pl.OS, pl.Architecture, pl.Variant, date
	config.Config.Entrypoint = i.Entrypoint
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return mutate.ConfigFile(img, config)
}

func (b *Builder) imageTree(ctx context.Context, p *plan.Plan, i plan.Image) (*Tree, error) {
	t := &Tree{}
	programs, err := b.Programs(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, name := range i.Programs {
		c, ok := programs[name]
		if !ok {
			return nil, fmt.Errorf("the plan has no program named %q", name)
		}
		if err := t.Add(Entry{Path: "/" + name, Mode: 0o755, Content: c, Origin: "program " + name}); err != nil {
			return nil, err
		}
	}
	for _, pattern := range i.Files {
		matched := false
		for _, name := range i.Packages {
			pkg, err := lockedPackage(p, name, "container image "+i.Reference)
			if err != nil {
				return nil, err
			}
			u, err := b.Unpack(ctx, pkg)
			if err != nil {
				return nil, err
			}
			for _, m := range u.members {
				if m.Mode.IsDir() || !profile.MatchPattern(pattern, m.Name) {
					continue
				}
				matched = true
				e := Entry{Path: mergeUsr(m.Name), Mode: m.Mode, Target: m.Target, Origin: u.Origin()}
				if m.Mode.IsRegular() {
					e.Content = u.content(m)
				}
				if have, again := t.Lookup(e.Path); again && have.Origin == e.Origin {
					continue // another pattern has taken it
				}
				if err := t.Add(e); err != nil {
					return nil, err
				}
			}
		}
		if !matched {
			return nil, fmt.Errorf("pattern %q matches nothing in %s", pattern, strings.Join(i.Packages, ", "))
		}
	}
	for _, l := range i.Links {
		if err := t.Add(Entry{Path: l.Path, Mode: fs.ModeSymlink | 0o777, Target: l.Target, Origin: "profile"}); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// tarTree writes the tree as a layer.
func tarTree(ctx context.Context, t *Tree, sourceDate int64) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range t.Entries() {
		if e.Path == "/" {
			continue
		}
		h := &tar.Header{
			Name:    strings.TrimPrefix(e.Path, "/"),
			Mode:    int64(e.Mode.Perm()),
			ModTime: time.Unix(sourceDate, 0),
			Format:  tar.FormatPAX,
		}
		switch {
		case e.isDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case e.isLink():
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		default:
			h.Typeflag, h.Size = tar.TypeReg, e.Content.Bytes
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("cannot write layer: %s: %w", e.Path, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		r, err := e.Content.Open()
		if err != nil {
			return nil, err
		}
		_, err = Copy(ctx, w, r)
		r.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot write layer: %s: %w", e.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("cannot write layer: %w", err)
	}
	return buf.Bytes(), nil
}

// collectBlobs adds manifest, configuration and layers of an image to blobs, by their digests.
func collectBlobs(img v1.Image, blobs map[string][]byte) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	blobs[digest.Hex] = manifest
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := img.ConfigName()
	if err != nil {
		return err
	}
	blobs[name.Hex] = config
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		var buf bytes.Buffer
		_, err = buf.ReadFrom(r)
		r.Close()
		if err != nil {
			return err
		}
		blobs[digest.Hex] = buf.Bytes()
	}
	// A layer that the configuration does not know would only be noticed on the device.
	desc, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	var m v1.Manifest
	if err := json.Unmarshal(blobs[desc.Digest.Hex], &m); err != nil {
		return err
	}
	for _, l := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if _, ok := blobs[l.Digest.Hex]; !ok {
			return fmt.Errorf("manifest names blob %s, which was not made", l.Digest)
		}
	}
	return nil
}
