package main

import (
	"context"
	"fmt"
	"os"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// idleUse leaves a ready node alone, reads its memory, and counts what it writes.
func idleUse(ctx context.Context, b *bench) (string, error) {
	g, err := b.boot(ctx, true)
	if err != nil {
		return "", err
	}
	defer g.off()
	memory, err := b.settledMemory(ctx, g)
	if err != nil {
		return "", err
	}
	rows := [][]string{
		{fmt.Sprintf("memory %v after ready, machine of %d MiB", b.settle, b.memoryMiB), ""},
		{"whole machine without page cache (MemTotal − MemAvailable)", mebibytes(memory.Total - memory.Available)},
		{"anonymous pages", mebibytes(memory.Anonymous)},
	}
	text := table(rows)
	rows = [][]string{{"process", "PSS", "private"}}
	for _, p := range memory.Processes {
		rows = append(rows, []string{p.Name, mebibytes(p.PSS), mebibytes(p.Private)})
	}
	text += "\n" + table(rows)

	before, err := g.DiskUse(ctx)
	if err != nil {
		return "", err
	}
	cpu, err := processorTime(g.PID())
	if err != nil {
		return "", err
	}
	if err := pass(ctx, b.idle); err != nil {
		return "", err
	}
	after, err := g.DiskUse(ctx)
	if err != nil {
		return "", err
	}
	cpuAfter, err := processorTime(g.PID())
	if err != nil {
		return "", err
	}
	written := after.WrittenBytes - before.WrittenBytes
	day := float64(written) * float64(24*time.Hour) / float64(b.idle)
	rows = [][]string{
		{fmt.Sprintf("in %v after that", b.idle), ""},
		{"written to the disk", fmt.Sprintf("%s in %d writes and %d flushes", mebibytes(written), after.Writes-before.Writes, after.Flushes-before.Flushes)},
		{"at that rate in a day", fmt.Sprintf("%.2f GB", day/1e9)},
		{"processor time of the emulator", seconds(cpuAfter - cpu)},
	}
	return text + "\n" + table(rows), nil
}

// settledMemory waits for a node, leaves it alone for a while, and reads its memory.
func (b *bench) settledMemory(ctx context.Context, g *guest) (v1.Memory, error) {
	start, cancel := context.WithTimeout(ctx, g.Config.Accelerator.Patience(time.Minute))
	defer cancel()
	if err := waitNode(start, g); err != nil {
		return v1.Memory{}, err
	}
	if err := pass(ctx, b.settle); err != nil {
		return v1.Memory{}, err
	}
	return g.Device.Memory(ctx)
}

// waitNode waits until the node is Ready. The device itself is not wholly well where no boot loader has started it.
func waitNode(ctx context.Context, g *guest) error {
	ask := time.NewTicker(time.Second)
	defer ask.Stop()
	for !serviceReady(ctx, g, "skerryd") {
		select {
		case <-ask.C:
		case <-ctx.Done():
			return fmt.Errorf("the node did not get ready: %w; console: %q", ctx.Err(), g.Console.Last())
		}
	}
	return nil
}

// pass lets time go by, unless ctx is done first.
func pass(ctx context.Context, d time.Duration) error {
	fmt.Fprintf(os.Stderr, "bench: %v of quiet\n", d)
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
