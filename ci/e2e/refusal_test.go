package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/vm"
)

// The harness must be able to fail: a machine that panics is not taken for one that boots. It also shows that extra kernel
// arguments reach the kernel, and that a panic restarts the machine.
func TestPanicIsNoBoot(t *testing.T) {
	n := newNode(t, diskBytes, func(c *vm.Config) { c.Arguments = []string{"rdinit=/no-such-init", "panic=1"} })
	line := n.waitConsole(t, 0, `Kernel panic`, 30*time.Second)
	again := n.waitConsole(t, line.Number, bootLoader, 30*time.Second)
	n.waitConsole(t, again.Number, `Kernel panic`, 30*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := n.Device.WaitReady(ctx); err == nil {
		t.Error("a machine without an init is called ready")
	}
}

// One changed byte in the root file system: the machine says so, runs nothing of it, and restarts so that the boot loader
// counts the try.
func TestChangedRootIsRefused(t *testing.T) {
	tests := []struct {
		name string
		// offset is that of the byte in the root partition.
		offset int64
	}{
		// The superblock of EROFS lies at 1024 bytes; at 1088 its volume name begins, which changes nothing but the hash.
		{"superblock", 1088},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t, diskBytes, func(c *vm.Config) { flipByte(t, c.Disk, "skerry-root-a", test.offset) })
			line := n.waitConsole(t, 0, `root file system of slot a is damaged`, 30*time.Second)
			t.Logf("the device says: %s", line.Text)
			n.waitConsole(t, line.Number, bootLoader, time.Minute)
			for _, l := range n.Console.Lines(0) {
				if strings.Contains(l.Text, "| ready") {
					t.Errorf("the machine got ready: %s", l.Text)
				}
			}
		})
	}
}

// flipByte changes one byte of a partition.
func flipByte(t *testing.T, disk, name string, at int64) {
	t.Helper()
	offset, length, err := partition(disk, name)
	must(t, err)
	if at >= length {
		t.Fatalf("partition %s has only %d bytes", name, length)
	}
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset+at)
	must(t, err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b, offset+at)
	must(t, err)
}

// A disk that holds the image but leaves no room for data: the machine says how large a disk it needs.
func TestSmallDiskIsRefused(t *testing.T) {
	info, err := os.Stat(filepath.Join(*build, imageName))
	must(t, err)
	n := newNode(t, info.Size()+64<<20, nil)
	line := n.waitConsole(t, 0, `disk.*too small`, 30*time.Second)
	t.Logf("the device says: %s", line.Text)
	if !strings.Contains(line.Text, "GiB") && !strings.Contains(line.Text, "MiB") {
		t.Errorf("the message does not say how large a disk must be: %s", line.Text)
	}
	n.waitConsole(t, line.Number, bootLoader, time.Minute)
}
