package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// buildTimes times `make image` in a clone of the present commit, so that the work tree stays as it is: with nothing changed, and
// after a change in init. The clone shares the caches of Go and of downloaded packages.
func buildTimes(ctx context.Context, b *bench) (string, error) {
	folder, err := os.MkdirTemp("", "skerry-bench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(folder)
	clone := filepath.Join(folder, "skerry")
	if err := command(ctx, ".", "git", "clone", "-q", ".", clone); err != nil {
		return "", err
	}
	rows := [][]string{{"`make image`", "time (fastest–slowest)"}}
	first, err := timed(ctx, clone)
	if err != nil {
		return "", err
	}
	rows = append(rows, []string{"in a new clone, programs compiled and packages downloaded before", seconds(first)})
	var warm, changed []time.Duration
	for i := range b.runs {
		took, err := timed(ctx, clone)
		if err != nil {
			return "", err
		}
		warm = append(warm, took)
		// The change has to reach the program's bytes, or nothing but one package is compiled.
		source := fmt.Sprintf("package main\n\nimport \"os\"\n\nfunc init() {\n\tif len(os.Args) > 99 {\n\t\tos.Exit(%d)\n\t}\n}\n", 50+i)
		if err := os.WriteFile(filepath.Join(clone, "initd/cmd/init/changed.go"), []byte(source), 0o644); err != nil {
			return "", err
		}
		if took, err = timed(ctx, clone); err != nil {
			return "", err
		}
		changed = append(changed, took)
	}
	return table(append(rows, []string{"nothing changed", spread(warm)}, []string{"one Go file of init changed", spread(changed)})), nil
}

func timed(ctx context.Context, folder string) (time.Duration, error) {
	begun := time.Now()
	err := command(ctx, folder, "make", "--no-print-directory", "image")
	return time.Since(begun), err
}

func command(ctx context.Context, folder, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return nil
}
