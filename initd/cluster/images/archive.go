package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"

	"github.com/skerryos/skerry/initd/cluster/durable"
)

// Connected gives the store behind a client, and a context that keeps what is imported from being collected until end is
// called.
func Connected(ctx context.Context, c *client.Client) (store Store, leased context.Context, end func(context.Context) error, err error) {
	leased, end, err = c.WithLease(ctx)
	if err != nil {
		return Store{}, nil, nil, fmt.Errorf("cannot hold a lease in containerd: %w", err)
	}
	return Store{
		Content: c.ContentStore(),
		Images:  c.ImageService(),
		Unpack: func(ctx context.Context, i images.Image) error {
			// Synced: a power cut must not leave a layer of which half the files are empty.
			err := client.NewImage(c, i).Unpack(ctx, "", client.WithUnpackApplyOpts(diff.WithSyncFs(true)))
			if err != nil {
				return fmt.Errorf("cannot unpack image %s: %w", i.Name, err)
			}
			return nil
		},
	}, leased, end, nil
}

// archiveEndings are what an operator may put into the folder of archives, as with K3s.
var archiveEndings = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd"}

// stampFile notes in the folder of archives which of them are imported.
const stampFile = ".imported.json"

// Archives imports the image archives in dir (docker save or OCI, perhaps compressed) that are new or changed since
// the last time, all of them with again. A damaged archive does not keep the others from being imported.
func (s Store) Archives(ctx context.Context, c *client.Client, dir string, again bool) ([]Result, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list image archives: %w", err)
	}
	stamps := map[string]string{}
	stampPath := filepath.Join(dir, stampFile)
	if b, err := os.ReadFile(stampPath); err == nil && !again {
		if json.Unmarshal(b, &stamps) != nil {
			stamps = map[string]string{} // damaged: import all
		}
	}
	var done []Result
	var errs []error
	now := map[string]string{}
	for _, e := range entries {
		if !slices.ContainsFunc(archiveEndings, func(end string) bool { return strings.HasSuffix(e.Name(), end) }) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		stamp := fmt.Sprint(info.Size(), " ", info.ModTime().UnixNano())
		if stamps[e.Name()] != stamp {
			r, err := s.archive(ctx, c, filepath.Join(dir, e.Name()))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			done = append(done, r...)
		}
		now[e.Name()] = stamp
	}
	if !maps.Equal(now, stamps) {
		b, err := json.Marshal(now)
		if err == nil {
			err = durable.WriteFile(stampPath, b, 0o644)
		}
		errs = append(errs, err)
	}
	return done, errors.Join(errs...)
}

func (s Store) archive(ctx context.Context, c *client.Client, path string) ([]Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot import images: %w", err)
	}
	defer f.Close()
	r, err := compression.DecompressStream(f)
	if err != nil {
		return nil, fmt.Errorf("cannot import images from %s: %w", path, err)
	}
	defer r.Close()
	list, err := c.Import(ctx, io.Reader(r), client.WithImageLabels(labels))
	if err != nil {
		return nil, fmt.Errorf("cannot import images from %s: %w", path, err)
	}
	var done []Result
	for _, i := range list {
		if err := s.Unpack(ctx, i); err != nil {
			return done, err
		}
		done = append(done, Result{Name: i.Name, Copied: 1})
	}
	return done, nil
}
