package images

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Heal reads all blobs of all images that are not pinned and removes the images that have a damaged one, which makes
// kubelet pull them anew. It is for the start after a power cut and takes as long as reading the store does. Missing blobs are
// no damage: layers may be dropped once they are unpacked.
func (s Store) Heal(ctx context.Context) (removed []string, err error) {
	list, err := s.Images.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list images: %w", err)
	}
	for _, i := range list {
		if hasLabels(i.Labels) {
			continue // Layout looks after these
		}
		damaged, err := s.damaged(ctx, i)
		if err != nil {
			return removed, fmt.Errorf("cannot check image %s: %w", i.Name, err)
		}
		if len(damaged) == 0 {
			continue
		}
		if err := s.Images.Delete(ctx, i.Name); err != nil && !errdefs.IsNotFound(err) {
			return removed, fmt.Errorf("cannot remove damaged image %s: %w", i.Name, err)
		}
		for _, d := range damaged {
			if err := s.Content.Delete(ctx, d.Digest); err != nil && !errdefs.IsNotFound(err) {
				return removed, fmt.Errorf("cannot remove damaged blob %s: %w", d.Digest, err)
			}
		}
		removed = append(removed, i.Name)
	}
	return removed, nil
}

func (s Store) damaged(ctx context.Context, i images.Image) ([]ocispec.Descriptor, error) {
	var bad []ocispec.Descriptor
	check := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if _, err := s.Content.Info(ctx, d.Digest); err != nil {
			if errdefs.IsNotFound(err) {
				return nil, images.ErrSkipDesc
			}
			return nil, err
		}
		if !intact(ctx, s.Content, d) {
			bad = append(bad, d)
			return nil, images.ErrSkipDesc // what it lists cannot be trusted
		}
		return nil, nil
	})
	children := images.FilterPlatforms(images.ChildrenHandler(s.Content), platforms.Default())
	err := images.Walk(ctx, images.Handlers(check, children), i.Target)
	return bad, err
}
