// Package images brings images into containerd without a registry: those that came with the system as an OCI layout, and
// archives that an operator has put on the disk. They are pinned, so that kubelet never collects them.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Namespace is where Kubernetes keeps its images in containerd.
const Namespace = "k8s.io"

// nameAnnotation is how containerd's own exports name an image; ocispec.AnnotationRefName is the standard's.
const nameAnnotation = "io.containerd.image.name"

// labels make an image one of Kubernetes' and keep kubelet from collecting it.
var labels = map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"}

// Store is the part of containerd that an import needs.
type Store struct {
	Content content.Store
	Images  images.Store
	// Unpack makes the image's layers ready to start a container from; done already, it costs little.
	Unpack func(ctx context.Context, i images.Image) error
}

// Result says what an import did.
type Result struct {
	Name   string
	Copied int // blobs that were missing or damaged
}

// Layout imports all images of the OCI layout at dir. Blobs that are there already are not copied; with verify they are
// read and compared with their digest first, and damaged ones replaced. A missing layout holds no images.
func (s Store) Layout(ctx context.Context, dir string, verify bool) ([]Result, error) {
	path, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the images in %s: %w", dir, err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("cannot read the images in %s: %w", dir, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("cannot read the images in %s: %w", dir, err)
	}
	var done []Result
	for _, m := range manifest.Manifests {
		name := m.Annotations[nameAnnotation]
		if name == "" {
			name = m.Annotations[ocispec.AnnotationRefName]
		}
		if name == "" {
			return done, fmt.Errorf("cannot import image %s of %s: it has no name in annotation %s", m.Digest, dir, ocispec.AnnotationRefName)
		}
		target := ocispec.Descriptor{MediaType: string(m.MediaType), Digest: digest.Digest(m.Digest.String()), Size: m.Size}
		copied, err := s.image(ctx, dir, name, target, verify)
		if err != nil {
			return done, fmt.Errorf("cannot import image %s from %s: %w", name, dir, err)
		}
		done = append(done, Result{name, copied})
	}
	return done, nil
}

func (s Store) image(ctx context.Context, dir, name string, target ocispec.Descriptor, verify bool) (copied int, err error) {
	from := layoutBlobs(dir)
	copyBlob := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		did, err := s.blob(ctx, from, d, verify)
		if did {
			copied++
		}
		return nil, err
	})
	// Children are found in the layout, and noted on their parents so that containerd's garbage collector sees them.
	children := images.SetChildrenMappedLabels(s.Content, images.FilterPlatforms(images.ChildrenHandler(from), platforms.Default()), nil)
	if err := images.Walk(ctx, images.Handlers(copyBlob, children), target); err != nil {
		return copied, err
	}
	i, err := s.record(ctx, name, target)
	if err != nil {
		return copied, err
	}
	return copied, s.Unpack(ctx, i)
}

// blob makes sure that the store has a blob and reports whether it had to be copied.
func (s Store) blob(ctx context.Context, from content.Provider, d ocispec.Descriptor, verify bool) (bool, error) {
	_, err := s.Content.Info(ctx, d.Digest)
	if err == nil && verify && !intact(ctx, s.Content, d) {
		if err := s.Content.Delete(ctx, d.Digest); err != nil {
			return false, fmt.Errorf("cannot remove damaged blob %s: %w", d.Digest, err)
		}
		err = errdefs.ErrNotFound
	}
	if err == nil {
		return false, nil
	}
	if !errdefs.IsNotFound(err) {
		return false, err
	}
	r, err := from.ReaderAt(ctx, d)
	if err != nil {
		return false, err
	}
	defer r.Close()
	// WriteBlob compares the digest before it commits.
	return true, content.WriteBlob(ctx, s.Content, "skerry-import-"+d.Digest.String(), content.NewReader(r), d)
}

// record makes or corrects the image's entry.
func (s Store) record(ctx context.Context, name string, target ocispec.Descriptor) (images.Image, error) {
	want := images.Image{Name: name, Target: target, Labels: maps.Clone(labels)}
	have, err := s.Images.Get(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		return s.Images.Create(ctx, want)
	case err != nil:
		return images.Image{}, err
	case have.Target.Digest == target.Digest && hasLabels(have.Labels):
		return have, nil
	}
	for k, v := range have.Labels {
		if _, ours := want.Labels[k]; !ours {
			want.Labels[k] = v
		}
	}
	return s.Images.Update(ctx, want)
}

func hasLabels(have map[string]string) bool {
	for k, v := range labels {
		if have[k] != v {
			return false
		}
	}
	return true
}

// intact reads a blob and compares it with its digest.
func intact(ctx context.Context, p content.Provider, d ocispec.Descriptor) bool {
	r, err := p.ReaderAt(ctx, d)
	if err != nil {
		return false
	}
	defer r.Close()
	v := d.Digest.Verifier()
	n, err := io.Copy(v, content.NewReader(r))
	return err == nil && v.Verified() && (d.Size == 0 || n == d.Size)
}

// layoutBlobs reads the blobs of an OCI layout, image-layout.md section "Blobs".
type layoutBlobs string

func (l layoutBlobs) ReaderAt(_ context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(string(l), "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded()))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return blobFile{f, info.Size()}, nil
}

type blobFile struct {
	*os.File
	size int64
}

func (b blobFile) Size() int64 { return b.size }
