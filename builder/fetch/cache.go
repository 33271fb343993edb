package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
	"golang.org/x/sync/errgroup"

	"github.com/skerryos/skerry/builder/plan"
)

// A Cache holds files by their SHA-256 and gets those that it lacks from a mirror.
type Cache struct {
	// Dir is where the cache is; it is made when needed. All checkouts of a user share one: see [DefaultDir].
	Dir string
	// Mirrors are asked in this order; the first is the one that messages name first.
	Mirrors []Mirror
	// Progress, if set, is told how many bytes of a file are there, from several goroutines. It is not called for files
	// that the cache has already.
	Progress func(name string, done, total int64)

	// Client is what requests are made with; nil means one with limits that suit package mirrors.
	Client *http.Client
	// Patience is how long a mirror may send nothing before the connection is given up, 30 s if zero.
	Patience time.Duration
}

// A File is something to fetch: what it is called in messages, where it is below a mirror's root, and what its content
// must be.
type File struct {
	Name   string
	Path   string
	SHA256 string
	Size   int64
}

// DefaultDir is $XDG_CACHE_HOME/skerry, or skerry in the user's cache folder where the platform has another.
func DefaultDir() (string, error) {
	if base := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "skerry"), nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a folder for the cache: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(base, "skerry"), nil
}

// Package returns the path of the package's .deb in the cache, fetched if necessary and verified in any case.
func (c *Cache) Package(ctx context.Context, p plan.Package) (string, error) {
	return c.File(ctx, File{
		Name:   fmt.Sprintf("%s %s (%s)", p.Name, p.Version, p.Architecture),
		Path:   p.Path,
		SHA256: p.SHA256,
		Size:   p.Size,
	})
}

// Packages fetches all packages, a few at a time, and returns their paths in the same order.
func (c *Cache) Packages(ctx context.Context, list []plan.Package) ([]string, error) {
	paths := make([]string, len(list))
	g, ctx := errgroup.WithContext(ctx)
	// More connections than this do not make one mirror faster, and look unfriendly to it.
	g.SetLimit(4)
	for i, p := range list {
		g.Go(func() (err error) {
			paths[i], err = c.Package(ctx, p)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return paths, nil
}

// File returns the path of a file in the cache, fetched if necessary. What is returned has just been found to have the
// digest: a file that went bad on disk is fetched anew. On an error nothing is under the final name; what arrived of
// the file is kept beside it, and a later call goes on from there.
func (c *Cache) File(ctx context.Context, f File) (string, error) {
	if len(f.SHA256) != hex.EncodedLen(sha256.Size) {
		return "", fmt.Errorf("cannot fetch %s: %q is not a SHA-256 digest", f.Name, f.SHA256)
	}
	final := c.path(f)
	if ok, err := holds(final, f); err != nil || ok {
		return final, err
	}
	if err := os.MkdirAll(filepath.Dir(final), 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache: %w", err)
	}
	// Another process may be fetching the same file: wait for it, then look again.
	unlock, err := lockedfile.MutexAt(final + ".lock").Lock()
	if err != nil {
		return "", fmt.Errorf("cannot lock the cache for %s: %w", f.Name, err)
	}
	defer unlock()
	if ok, err := holds(final, f); err != nil || ok {
		return final, err
	}
	if err := c.download(ctx, f, final); err != nil {
		return "", err
	}
	return final, nil
}

// path is where a file is kept; two digits of the digest spread the files over folders.
func (c *Cache) path(f File) string {
	return filepath.Join(c.Dir, "sha256", f.SHA256[:2], f.SHA256)
}

// holds says whether the file at name is there and is f. One that is there and is not f is removed.
func holds(name string, f File) (bool, error) {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look into the cache: %w", err)
	}
	if info.Size() == f.Size {
		sum, err := digest(name)
		if err != nil {
			return false, err
		}
		if sum == f.SHA256 {
			return true, nil
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot remove the damaged copy of %s from the cache: %w", f.Name, err)
	}
	return false, nil
}

// digest is the SHA-256 of the file at name, in hexadecimal.
func digest(name string) (string, error) {
	in, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the cache: %w", err)
	}
	defer in.Close()
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		return "", fmt.Errorf("cannot read the cache: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
