package artifact

import (
	"context"
	"fmt"
	"os"

	"github.com/klauspost/compress/gzip"
)

// gzipRecipe is part of the key of compressed files; raise it when gzip.go makes other bytes of the same content.
const gzipRecipe = 1

// Gzip compresses content as gzip does, without a name and a date. A slow boot medium is worth the best compression.
func (b *Builder) Gzip(ctx context.Context, c Content) (Content, error) {
	key, err := Key("gzip", gzipRecipe, libraryVersion("github.com/klauspost/compress"), c.SHA256)
	if err != nil {
		return Content{}, err
	}
	a, _, err := Make(ctx, b.Store, "gzip", key, func(ctx context.Context, f *os.File) (struct{}, error) {
		task := b.Progress.Start("compress kernel", 0)
		err := writeGzip(ctx, f, c)
		task.Done(err)
		return struct{}{}, err
	})
	return a.Content(), err
}

func writeGzip(ctx context.Context, f *os.File, c Content) error {
	r, err := c.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("cannot compress: %w", err)
	}
	if _, err := Copy(ctx, z, r); err != nil {
		return fmt.Errorf("cannot compress: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("cannot compress: %w", err)
	}
	return nil
}
