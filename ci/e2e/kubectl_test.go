package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/erofs/go-erofs"
	"go.yaml.in/yaml/v4"
)

// partition finds a partition of a disk image by name, as offset and length in bytes.
func partition(image, name string) (offset, length int64, err error) {
	disk, err := diskfs.Open(image, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		return 0, 0, err
	}
	defer disk.Close()
	table, err := disk.GetPartitionTable()
	if err != nil {
		return 0, 0, err
	}
	for _, p := range table.GetPartitions() {
		if g, ok := p.(*gpt.Partition); ok && g.Name == name {
			return p.GetStart(), p.GetSize(), nil
		}
	}
	return 0, 0, fmt.Errorf("%s has no partition %s", image, name)
}

// program takes skerryd out of the image's root file system, so that what the tests execute is what the device has.
// Under the name kubectl it is kubectl.
var program = sync.OnceValues(func() (string, error) {
	image := filepath.Join(*build, imageName)
	offset, length, err := partition(image, "skerry-root-a")
	if err != nil {
		return "", err
	}
	f, err := os.Open(image)
	if err != nil {
		return "", err
	}
	defer f.Close()
	root, err := erofs.Open(section{f, offset, length})
	if err != nil {
		return "", fmt.Errorf("cannot read the root file system: %w", err)
	}
	program, err := root.Open("usr/bin/skerryd")
	if err != nil {
		return "", err
	}
	defer program.Close()
	path := filepath.Join(*build, "bin", "kubectl")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, program)
	return path, errors.Join(err, out.Close())
})

// A section is a part of a file from its start on. io.SectionReader is the same but for the error at its end, which
// readers of file systems do not expect within a block.
type section struct {
	f              *os.File
	offset, length int64
}

func (s section) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > s.length {
		return 0, fmt.Errorf("read of %d bytes at %d behind the end of the partition", len(b), at)
	}
	return s.f.ReadAt(b, s.offset+at)
}

// kubectl is the client of one cluster.
type kubectl struct{ program, config string }

// client fetches the administrator's kubeconfig and makes it point at the forwarded port.
func (n *node) client(t *testing.T) kubectl {
	t.Helper()
	path, err := program()
	must(t, err)
	b, err := n.Device.Kubeconfig(patience(t, 10*time.Second))
	must(t, err)
	var config map[string]any
	must(t, yaml.Unmarshal(b, &config))
	for _, c := range config["clusters"].([]any) {
		c.(map[string]any)["cluster"].(map[string]any)["server"] = fmt.Sprintf("https://127.0.0.1:%d", n.config.Forwards[0].Host)
	}
	b, err = yaml.Marshal(config)
	must(t, err)
	k := kubectl{path, filepath.Join(n.folder, "kubeconfig")}
	must(t, os.WriteFile(k.config, b, 0o600))
	return k
}

func (k kubectl) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, k.program, append([]string{"--kubeconfig", k.config}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// try executes kubectl and returns what it printed.
func (k kubectl) try(ctx context.Context, args ...string) (string, error) {
	cmd := k.command(ctx, args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// do is try for what has to succeed, within a minute on hardware.
func (k kubectl) do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := k.try(patience(t, time.Minute), args...)
	must(t, err)
	return out
}

// apply applies a manifest of testdata.
func (k kubectl) apply(t *testing.T, file string) {
	t.Helper()
	k.do(t, "apply", "-f", filepath.Join("testdata", file))
}

// rollout waits until all replicas of a workload are ready.
func (k kubectl) rollout(t *testing.T, workload string) {
	t.Helper()
	if out, err := k.try(patience(t, 70*time.Second), "rollout", "status", workload, "--timeout="+limit(t, time.Minute).String()); err != nil {
		events, _ := k.try(patience(t, 10*time.Second), "get", "events,pods", "-o", "wide")
		t.Fatalf("%v\n%s\n%s", err, out, events)
	}
}
