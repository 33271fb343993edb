package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/skerryos/skerry/builder/image"
)

const name = "skerry-x86-64"

// sizes reads what the build says of its outputs, and compresses the whole image.
func sizes(ctx context.Context, b *bench) (string, error) {
	m, err := readManifest(filepath.Join(b.build, name+".manifest.json"))
	if err != nil {
		return "", err
	}
	rows := [][]string{{"what", "bytes", ""}}
	add := func(what string, n int64) { rows = append(rows, []string{what, fmt.Sprint(n), mebibytes(n)}) }
	for _, o := range m.Outputs {
		add(o.Name, o.Bytes)
	}
	for _, i := range m.Inputs {
		if i.Kind == "program" {
			add("program "+i.Name, i.Bytes)
		}
	}
	for _, tool := range [][]string{{"zstd", "-19", "-T0", "-q", "-c"}, {"xz", "-9", "-T1", "-c"}} {
		n, err := compressed(ctx, filepath.Join(b.build, name+".img"), tool)
		if err != nil {
			return "", err
		}
		add(fmt.Sprintf("whole image, %s %s", tool[0], tool[1]), n)
	}
	return table(rows), nil
}

func readManifest(file string) (m image.Manifest, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("cannot read the manifest: %w", err)
	}
	return m, nil
}

// compressed returns how many bytes a compressor makes of a file.
func compressed(ctx context.Context, file string, tool []string) (int64, error) {
	in, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	cmd := exec.CommandContext(ctx, tool[0], tool[1:]...)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w; ci/setup installs it", err)
	}
	n, err := io.Copy(io.Discard, out)
	if err != nil {
		return 0, err
	}
	return n, cmd.Wait()
}
