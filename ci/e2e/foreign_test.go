package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/vm"
)

// TestForeignNode boots images for other processors, with Kubernetes, and runs pods on them.
func TestForeignNode(t *testing.T) {
	t.Run("uefi-arm64", func(t *testing.T) {
		d := newForeign(t, "uefi-arm64", func(c *vm.Config, _ string) { c.Architecture = "arm64" })
		ready(t, d.node)
		service(t, d.node)
		file := releases("uefi-arm64.skb")
		_, _, err := skerry(t.Context(), d.home, "bundle", "create", profileFile("node-second"), "--board", "uefi-arm64", "--output", foreign("uefi-arm64"), "--file", file)
		must(t, err)
		_, _, err = d.skerry(t, nodeUpgradeTime, "node", "upgrade", file)
		must(t, err)
		s := d.state(t)
		must(t, committed(s, "0.2.0"))
		if s.Slot != "b" {
			t.Errorf("slot %s runs, want b", s.Slot)
		}
		service(t, d.node)
	})
	// The machines of QEMU that are Raspberry Pis have no more memory than 1 GiB, and no network that is fast. Kernel, initramfs, root
	// and data are those of the image; what starts the kernel and the device tree are QEMU's. So no boot loader has counted the start,
	// and the device says that it cannot be upgraded: it is not wholly well.
	t.Run("rpi-armv7", func(t *testing.T) {
		d := newForeign(t, "rpi-armv7", func(c *vm.Config, dir string) {
			kernel, err := vm.ReadKernel(filepath.Join(dir, "boot", "rpi-armv7"))
			must(t, err)
			c.Architecture, c.Kernel = "arm", kernel
		})
		eventually(t, 2*time.Minute, "the node is Ready", func(ctx context.Context) error {
			state, err := d.Device.Status(ctx)
			if err != nil {
				return err
			}
			s, err := serviceNamed(state, "skerryd")
			if err == nil && s.State != "ready" {
				err = fmt.Errorf("skerryd is %s: %s", s.State, s.Status)
			}
			return err
		})
		service(t, d.node)
		state, err := d.Device.Status(patience(t, 10*time.Second))
		must(t, err)
		if len(state.Problems) != 1 || !strings.Contains(state.Problems[0], "cannot be upgraded") {
			t.Errorf("its problems are %q", state.Problems)
		}
	})
}

// foreign is the folder of a board's build.
func foreign(board string) string { return filepath.Join(*build, "foreign", board) }

// newForeign builds the image of profiles/e2e.yaml for a board, and switches on an emulated machine with it. machine says what it is
// like, with the folder of the build.
func newForeign(t *testing.T, board string, machine func(c *vm.Config, dir string)) *device {
	t.Helper()
	dir := foreign(board)
	_, _, err := skerry(t.Context(), releases("config"), "build", "e2e", "--board", board, "--output", dir)
	must(t, err)
	return newManaged(t, filepath.Join(dir, "skerry-"+board+".img"), releases("config", "skerry"), func(c *vm.Config) {
		c.Accelerator = vm.TCG
		machine(c, dir)
	})
}
