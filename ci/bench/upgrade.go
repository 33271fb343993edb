package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/initd/bundle"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// upgrade upgrades a ready node to a bundle of what it runs already, which costs the same as any other, and says what it took.
func upgrade(ctx context.Context, b *bench) (string, error) {
	file := filepath.Join(b.build, "bench.skb")
	defer os.Remove(file)
	if err := skerry(ctx, "bundle", "create", "--file", file); err != nil {
		return "", err
	}
	sizes, err := bundleSizes(file)
	if err != nil {
		return "", err
	}
	g, err := b.boot(ctx, false)
	if err != nil {
		return "", err
	}
	defer g.off()
	start, cancel := context.WithTimeout(ctx, b.accelerator.Patience(time.Minute))
	defer cancel()
	if _, err := g.Device.WaitReady(start); err != nil {
		return "", err
	}
	if err := pass(ctx, b.settle); err != nil {
		return "", err
	}
	store, err := contexts.Default()
	if err != nil {
		return "", err
	}
	own, err := store.Select("")
	if err != nil {
		return "", err
	}
	c, err := node.Dial(ctx, fmt.Sprintf("127.0.0.1:%d", g.Config.Forwards[1].Host), own, node.Options{Note: func(string) {}})
	if err != nil {
		return "", err
	}
	defer c.Close()
	write, err := b.writeUpgrade(ctx, g, c, file)
	if err != nil {
		return "", err
	}
	phases, err := tryUpgrade(ctx, c)
	if err != nil {
		return "", err
	}
	return table(append([][]string{{"bundle", ""}}, sizes...)) + "\n" +
		table(append([][]string{{"transfer and write", ""}}, write...)) + "\n" +
		table(append([][]string{{"phase, through UEFI and boot loader", "took"}}, phases...)), nil
}

// skerry runs the builder's command line.
func skerry(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", "./builder/cmd/skerry"}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("skerry %q: %w", args, err)
	}
	return nil
}

// bundleSizes are the bundle's size, and that of what it carries.
func bundleSizes(file string) ([][]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := bundle.OpenUnverified(f)
	if err != nil {
		return nil, err
	}
	rows := [][]string{{"size", mebibytes(r.Manifest().Size())}}
	for _, a := range r.Manifest().Artefacts {
		rows = append(rows, []string{"artefact " + a.Name + ", not compressed", mebibytes(a.Size)})
	}
	return rows, nil
}

// writeUpgrade sends the bundle, and reads what the device has written and what memory it took.
func (b *bench) writeUpgrade(ctx context.Context, g *guest, c *node.Client, file string) ([][]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	before, err := g.DiskUse(ctx)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if _, err := c.Upgrade(ctx, f, info.Size(), node.UpgradeOptions{Force: true, NoTry: true}); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	after, err := g.DiskUse(ctx)
	if err != nil {
		return nil, err
	}
	memory, err := c.Memory(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(memory.Processes, func(p v1.Process) bool { return p.Name == "skerry-api" })
	if i < 0 {
		return nil, errors.New("the device has no process skerry-api")
	}
	return [][]string{
		{"took", seconds(took)},
		{"written to the disk in this time, by all of the machine", mebibytes(after.WrittenBytes - before.WrittenBytes)},
		{"largest resident set of the process that writes, its program included", mebibytes(memory.Processes[i].Peak)},
	}, nil
}

// tryUpgrade follows the device from the word to try it until the new version is kept.
func tryUpgrade(ctx context.Context, c *node.Client) ([][]string, error) {
	var rows [][]string
	phase, begun := node.Phase(""), time.Now()
	_, err := c.TryWritten(ctx, node.UpgradeOptions{Report: func(e node.Event) {
		if e.Phase == phase {
			return
		}
		if phase != "" {
			rows = append(rows, []string{string(phase), seconds(time.Since(begun))})
		}
		phase, begun = e.Phase, time.Now()
	}})
	return rows, err
}
