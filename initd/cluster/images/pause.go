package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Pause makes the image that holds a pod's namespaces out of a static program, if there is no image of that name. It is for
// ordinary hosts: a Skerry image brings a smaller one. The program is called as "pause". It reports whether it made
// the image.
func (s Store) Pause(ctx context.Context, name, program string) (bool, error) {
	_, err := s.Images.Get(ctx, name)
	if err == nil {
		return false, nil
	}
	if !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("cannot look for image %s: %w", name, err)
	}
	dir, err := os.MkdirTemp("", "skerry-pause-")
	if err != nil {
		return false, fmt.Errorf("cannot make image %s: %w", name, err)
	}
	defer os.RemoveAll(dir)
	if err := pauseLayout(dir, name, program); err != nil {
		return false, fmt.Errorf("cannot make image %s from %s: %w", name, program, err)
	}
	_, err = s.Layout(ctx, dir, false)
	return err == nil, err
}

func pauseLayout(dir, name, program string) error {
	b, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = errors.Join(w.WriteHeader(&tar.Header{Name: "pause", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(b))}), write(w, b), w.Close())
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config.OS, config.Architecture = "linux", goruntime.GOARCH
	config.Config = v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendImage(img, layout.WithAnnotations(map[string]string{nameAnnotation: name}))
}

func write(w *tar.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}
