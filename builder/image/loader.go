package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

// slotTries is how often a boot loader tries a new slot before it falls back.
const slotTries = 3

// bootFiles is what starts a slot.
type bootFiles struct {
	// kernel is not compressed by us; with initrd and commandLine it starts the slot without a boot loader.
	kernel, initrd artifact.Content
	// commandLine is the kernel's, as it is when the slot is started.
	commandLine string
	// image is what a bundle carries to start the slot, and imageName what the manifest calls it.
	image     artifact.Content
	imageName string
	// files are the whole boot partition of a new disk with this slot, and keys what they depend on beside the plan.
	files []File
	keys  []string
	// state is the boot state of a new disk, if it is not in files, and stateOffset where on the disk it is.
	state       []byte
	stateOffset int64
}

// A loader makes the boot files of a slot for one kind of boot loader.
type loader func(ctx context.Context, b *artifact.Builder, p *plan.Plan, a *artefacts, slot string) (*bootFiles, error)

var loaders = map[string]loader{
	profile.SystemdBoot: systemdBoot,
	profile.UBootLoader: ubootBoot,
}

// bootParts makes the boot files of a slot.
func bootParts(ctx context.Context, b *artifact.Builder, p *plan.Plan, a *artefacts, slot string) (*bootFiles, error) {
	f, err := loaders[p.BootLoader](ctx, b, p, a, slot)
	if err != nil {
		return nil, fmt.Errorf("cannot make boot files of %s: %w", p.Name, err)
	}
	return f, nil
}

// rootArguments bind the kernel to its root file system.
func rootArguments(v artifact.Verity) []string {
	return []string{
		"skerry.roothash=" + v.RootHash,
		"skerry.rootblocks=" + strconv.FormatInt(v.DataBlocks, 10),
	}
}

// kernelPaths are where Debian's kernel packages have the image, until and since Linux 6.19.
var kernelPaths = []string{"boot/vmlinuz-%s", "usr/lib/modules/%s/vmlinuz"}

// kernelImage finds the kernel in its packages.
func kernelImage(ctx context.Context, b *artifact.Builder, p *plan.Plan) (artifact.Content, error) {
	kernel, err := b.Kernel(ctx, p)
	if err != nil {
		return artifact.Content{}, err
	}
	var errs []error
	for _, format := range kernelPaths {
		c, err := kernel.Content(fmt.Sprintf(format, p.Kernel.Release))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return artifact.Content{}, errors.Join(errs...)
}

// contentFile is a file of the boot partition.
func contentFile(path string, c artifact.Content) File {
	return File{Path: path, Bytes: c.Bytes, Open: func() (io.ReadCloser, error) { return c.Open() }}
}

// memoryFile is a file of the boot partition that was made here.
func memoryFile(path string, data []byte) File {
	return File{Path: path, Bytes: int64(len(data)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// writeDirect writes kernel, initramfs and command line for virtual machines that boot without a boot loader.
func (f *bootFiles) writeDirect(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of boot files: %w", err)
	}
	kernel, err := f.kernel.ReadAll()
	if err != nil {
		return err
	}
	initrd, err := f.initrd.ReadAll()
	if err != nil {
		return err
	}
	for _, o := range []struct {
		name string
		data []byte
	}{{"vmlinuz", kernel}, {"initrd", initrd}, {"cmdline", []byte(f.commandLine + "\n")}} {
		if err := writeOutput(filepath.Join(dir, o.name), o.data); err != nil {
			return err
		}
	}
	return nil
}

// joined is a command line of these arguments.
func joined(lists ...[]string) string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	return strings.Join(all, " ")
}
