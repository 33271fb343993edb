package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/plan"
)

// bootPackage ships systemd-boot and the stub of unified kernel images.
const bootPackage = "systemd-boot-efi"

// efiNames are the names of an architecture in EFI programs, by GOARCH: systemd's and that of the fallback path
// (UEFI specification, 3.5.1.1).
var efiNames = map[string]struct{ systemd, fallback string }{
	"amd64": {"x64", "X64"},
	"arm64": {"aa64", "AA64"},
	"arm":   {"arm", "ARM"},
}

// slotTries is how often the boot loader tries a new slot before it falls back: systemd-boot counts down in the file's
// name (https://uapi-group.org/specifications/specs/boot_loader_specification/#boot-counting).
const slotTries = 3

// loaderConf makes the boot loader start at once. No editor: whoever has a keyboard could start a shell with it.
const loaderConf = "timeout 0\neditor no\n"

// bootFiles is what starts a slot.
type bootFiles struct {
	kernel, initrd artifact.Content
	commandLine    string
	uki            []byte
	ukiPath        string
	loader         artifact.Content
	loaderPath     string
}

// bootParts makes the boot files of a slot.
func bootParts(ctx context.Context, b *artifact.Builder, p *plan.Plan, a *artefacts, slot string) (*bootFiles, error) {
	efi, ok := efiNames[p.Target.GOARCH]
	if !ok {
		return nil, fmt.Errorf("cannot make boot files for %s: EFI has no name for it", p.Target.GOARCH)
	}
	f := &bootFiles{
		commandLine: commandLine(p, slot, a.root.Verity),
		ukiPath:     fmt.Sprintf("EFI/Linux/skerry-%s+%d-0.efi", slot, slotTries),
		loaderPath:  "EFI/BOOT/BOOT" + efi.fallback + ".EFI",
	}
	kernel, err := unpack(ctx, b, p, p.Kernel.Package)
	if err != nil {
		return nil, err
	}
	if f.kernel, err = kernel.Content("boot/vmlinuz-" + p.Kernel.Release); err != nil {
		return nil, err
	}
	f.initrd = a.initramfs.Content()
	boot, err := unpack(ctx, b, p, bootPackage)
	if err != nil {
		return nil, err
	}
	if f.loader, err = boot.Content("usr/lib/systemd/boot/efi/systemd-boot" + efi.systemd + ".efi"); err != nil {
		return nil, err
	}
	stub, err := boot.Content("usr/lib/systemd/boot/efi/linux" + efi.systemd + ".efi.stub")
	if err != nil {
		return nil, err
	}
	if f.uki, err = unifiedKernel(p, stub, f); err != nil {
		return nil, fmt.Errorf("cannot make the unified kernel image of %s: %w", p.Name, err)
	}
	return f, nil
}

func unpack(ctx context.Context, b *artifact.Builder, p *plan.Plan, name string) (*artifact.Unpacked, error) {
	pkg := p.PackageNamed(name)
	if pkg == nil {
		return nil, fmt.Errorf("cannot make boot files of %s: package %s is not in the plan; add it to board %s", p.Name, name, p.Board)
	}
	return b.Unpack(ctx, *pkg)
}

// commandLine is the kernel's, with what binds the kernel to its root file system.
func commandLine(p *plan.Plan, slot string, v artifact.Verity) string {
	return strings.Join(append(append([]string(nil), p.CommandLine...),
		"skerry.slot="+slot,
		"skerry.roothash="+v.RootHash,
		"skerry.rootblocks="+strconv.FormatInt(v.DataBlocks, 10),
	), " ")
}

func unifiedKernel(p *plan.Plan, stub artifact.Content, f *bootFiles) ([]byte, error) {
	release, err := artifact.OSRelease(p)
	if err != nil {
		return nil, err
	}
	var data [3][]byte
	for i, c := range []artifact.Content{stub, f.kernel, f.initrd} {
		if data[i], err = c.ReadAll(); err != nil {
			return nil, err
		}
	}
	return UKI(data[0], []Section{
		{".osrel", loaderRelease(release)},
		{".cmdline", []byte(f.commandLine)},
		{".uname", []byte(p.Kernel.Release)},
		{".linux", data[1]},
		{".initrd", data[2]},
	})
}

// keys are the inputs of the disk image that boot files contribute.
func (f *bootFiles) keys() []string {
	sum := sha256.Sum256(f.uki)
	return []string{f.ukiPath, hex.EncodeToString(sum[:]), f.loaderPath, f.loader.SHA256, loaderConf}
}

// esp are the files of the boot partition.
func (f *bootFiles) esp() []File {
	memory := func(b []byte) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	}
	return []File{
		{Path: f.loaderPath, Bytes: f.loader.Bytes, Open: func() (io.ReadCloser, error) { return f.loader.Open() }},
		{Path: "loader/loader.conf", Bytes: int64(len(loaderConf)), Open: memory([]byte(loaderConf))},
		{Path: f.ukiPath, Bytes: int64(len(f.uki)), Open: memory(f.uki)},
	}
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
