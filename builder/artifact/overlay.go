package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/skerryos/skerry/initd/cluster/upstream"
)

// sourceOverlay prepares the programs of other projects that are compiled into ours, and returns the file for `go build
// -overlay`; empty if the repository takes in none. The sources come from the module cache, where go.sum vouches for
// them.
func (b *Builder) sourceOverlay(ctx context.Context, env []string) (string, error) {
	_, err := os.Stat(filepath.Join(b.Source, filepath.FromSlash(upstream.Path)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot look for sources to take in: %w", err)
	}
	root, err := filepath.Abs(b.Source)
	if err != nil {
		return "", fmt.Errorf("cannot find the source folder: %w", err)
	}
	// The Go command takes no folder with this beginning for packages of the module around it.
	dir, err := b.Store.Dir("_upstream")
	if err != nil {
		return "", err
	}
	modules, err := b.downloadModules(ctx, env)
	if err != nil {
		return "", err
	}
	return upstream.Write(root, dir, func(module string) (string, error) {
		folder, ok := modules[module]
		if !ok {
			return "", errors.New("the Go command does not know it")
		}
		return folder, nil
	})
}

// downloadModules returns the folders of the modules that programs are taken in from, and fetches them if need be:
// only a build downloads what it compiles, and these are wanted before.
func (b *Builder) downloadModules(ctx context.Context, env []string) (map[string]string, error) {
	args := []string{"mod", "download", "-json"}
	seen := map[string]bool{}
	for _, s := range upstream.Sources {
		if !seen[s.Module] {
			seen[s.Module] = true
			args = append(args, s.Module)
		}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = b.Source, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	folders := map[string]string{}
	// Failures of single modules are in the output, and say more than the exit status.
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Dir, Error string }
		if derr := d.Decode(&m); errors.Is(derr, io.EOF) {
			break
		} else if derr != nil {
			return nil, fmt.Errorf("cannot download modules: go mod download: %w\n%s", errors.Join(err, derr), bytes.TrimSpace(stderr.Bytes()))
		}
		if m.Error != "" {
			return nil, fmt.Errorf("cannot download module %s: %s", m.Path, m.Error)
		}
		folders[m.Path] = m.Dir
	}
	if err != nil {
		return nil, fmt.Errorf("cannot download modules: go mod download: %w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return folders, nil
}
