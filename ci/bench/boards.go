package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/skerryos/skerry/builder/image"
)

// foreignServers are the boards whose server nodes are emulated for their memory, by their architecture (GOARCH). QEMU's own ARMv7 board has
// less memory than the others here and stands in for none of them: the machine is its general one, with the board's kernel.
var foreignServers = []struct {
	board, architecture string
	direct              bool
}{
	{"uefi-arm64", "arm64", false},
	{"rpi-armv7", "arm", true},
}

// boards builds the default profile for every board and gives the sizes, then the memory of servers with other processors.
func boards(ctx context.Context, b *bench) (string, error) {
	files, err := filepath.Glob("boards/*.yaml")
	if err != nil {
		return "", err
	}
	rows := [][]string{{"board", "kernel", "initramfs", "root", "image without holes", "bundle"}}
	for _, file := range files {
		board := strings.TrimSuffix(filepath.Base(file), ".yaml")
		row, err := b.boardSizes(ctx, board)
		if err != nil {
			return "", err
		}
		rows = append(rows, row)
	}
	memory := [][]string{{"board", "architecture", "whole machine without page cache", "anonymous pages", "skerryd, PSS"}}
	for _, s := range foreignServers {
		g, err := b.bootImage(ctx, filepath.Join(b.boardBuild(s.board), "skerry-"+s.board+".img"), s.architecture, s.direct)
		if err != nil {
			return "", err
		}
		m, err := b.settledMemory(ctx, g)
		g.off()
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.board, err)
		}
		var server uint64
		for _, p := range m.Processes {
			if p.Name == "skerryd" {
				server += p.PSS
			}
		}
		memory = append(memory, []string{s.board, s.architecture, mebibytes(m.Total - m.Available), mebibytes(m.Anonymous), mebibytes(server)})
	}
	return table(rows) + "\n" + fmt.Sprintf("A server %v after it is ready, emulated machine of %d MiB:\n\n", b.settle, b.memoryMiB) + table(memory), nil
}

func (b *bench) boardBuild(board string) string { return filepath.Join(b.build, "boards", board) }

// boardSizes builds image and bundle for a board.
func (b *bench) boardSizes(ctx context.Context, board string) ([]string, error) {
	dir := b.boardBuild(board)
	if err := skerry(ctx, "build", "--board", board, "--output", dir); err != nil {
		return nil, err
	}
	bundle := filepath.Join(dir, "bench.skb")
	if err := skerry(ctx, "bundle", "create", "--board", board, "--output", dir, "--file", bundle); err != nil {
		return nil, err
	}
	defer os.Remove(bundle)
	info, err := os.Stat(bundle)
	if err != nil {
		return nil, err
	}
	m, err := readManifest(filepath.Join(dir, "skerry-"+board+".manifest.json"))
	if err != nil {
		return nil, err
	}
	row := []string{board}
	for _, output := range []string{"vmlinuz", "initrd", "root"} {
		i := slices.IndexFunc(m.Outputs, func(o image.ManifestOutput) bool { return o.Name == output })
		if i < 0 {
			return nil, fmt.Errorf("the manifest of %s has no output %s", board, output)
		}
		row = append(row, mebibytes(m.Outputs[i].Bytes))
	}
	card, err := os.Stat(filepath.Join(dir, "skerry-"+board+".img"))
	if err != nil {
		return nil, err
	}
	return append(row, mebibytes(card.Sys().(*syscall.Stat_t).Blocks*512), mebibytes(info.Size())), nil
}
