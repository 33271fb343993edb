package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"

	"github.com/skerryos/skerry/initd/cluster/containerd"
	"github.com/skerryos/skerry/initd/cluster/images"
	"github.com/skerryos/skerry/initd/cluster/settings"
)

// importImages brings the preloaded images into containerd; after a power cut it reads all images and mends damaged
// ones. It ends when done: a failed import is logged and does not end the node, which may have what it needs all the same.
func (n *node) importImages(ctx context.Context, unclean bool) error {
	if err := containerd.Wait(ctx, n.Endpoint); err != nil {
		return err
	}
	c, err := client.New(strings.TrimPrefix(n.Endpoint, "unix://"), client.WithDefaultNamespace(images.Namespace), client.WithTimeout(time.Minute))
	if err != nil {
		return fmt.Errorf("cannot connect to containerd: %w", err)
	}
	defer c.Close()
	store, leased, end, err := images.Connected(ctx, c)
	if err != nil {
		return err
	}
	defer func() {
		if err := end(context.WithoutCancel(ctx)); err != nil {
			slog.Warn("cannot end the lease of imported images; it ends by itself tomorrow", "reason", err)
		}
	}()
	started := time.Now()
	done, err := store.Layout(leased, LayoutDir, unclean)
	if err != nil {
		slog.Error("cannot import all images of the system", "reason", err)
	}
	more, err := store.Archives(leased, c, filepath.Join(n.AgentDir, "images"), unclean)
	if err != nil {
		slog.Error("cannot import all image archives", "reason", err)
	}
	n.ensurePause(leased, store)
	copied := 0
	for _, r := range append(done, more...) {
		copied += r.Copied
	}
	slog.Info("preloaded images are there", "images", len(done)+len(more), "copied blobs", copied, "checked", unclean, "took", time.Since(started).Round(time.Millisecond))
	if !unclean {
		return nil
	}
	removed, err := store.Heal(leased)
	if err != nil {
		slog.Error("cannot check all images after the power cut", "reason", err)
	}
	for _, name := range removed {
		slog.Warn("an image was damaged; it was removed and will be pulled again", "image", name)
	}
	return nil
}

// ensurePause gives an ordinary host the image that every pod needs, from skerry-cri.
func (n *node) ensurePause(ctx context.Context, store images.Store) {
	self, err := os.Executable()
	if err != nil {
		slog.Error("cannot find this program's own file", "reason", err)
		return
	}
	program := filepath.Join(filepath.Dir(self), "skerry-cri")
	if _, err := os.Stat(program); err != nil || n.PauseImage != settings.DefaultPauseImage {
		return // another image is for a registry to have
	}
	if _, err := store.Pause(ctx, n.PauseImage, program); err != nil {
		slog.Error("cannot make the image that holds pods' namespaces", "reason", err)
	}
}
