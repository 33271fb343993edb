package image

import (
	"context"
	"fmt"

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

// loaderConf makes the boot loader start at once, whatever a keyboard or noise on a serial line may say: its menu waits for ever. No editor:
// whoever has a keyboard could start a shell with it.
const loaderConf = "timeout menu-disabled\neditor no\n"

// systemdBoot makes a unified kernel image. systemd-boot counts tries down in the file's name
// (https://uapi-group.org/specifications/specs/boot_loader_specification/#boot-counting).
func systemdBoot(ctx context.Context, b *artifact.Builder, p *plan.Plan, a *artefacts, slot string) (*bootFiles, error) {
	efi, ok := efiNames[p.Target.GOARCH]
	if !ok {
		return nil, fmt.Errorf("EFI has no name for %s", p.Target.GOARCH)
	}
	f := &bootFiles{
		initrd:      a.initramfs.Content(),
		commandLine: joined(p.CommandLine, []string{"skerry.slot=" + slot}, rootArguments(a.root.Verity)),
		imageName:   fmt.Sprintf("EFI/Linux/skerry-%s+%d-0.efi", slot, slotTries),
	}
	var err error
	if f.kernel, err = kernelImage(ctx, b, p); err != nil {
		return nil, err
	}
	boot, err := b.PackageOf(ctx, p, bootPackage)
	if err != nil {
		return nil, err
	}
	loader, err := boot.Content("usr/lib/systemd/boot/efi/systemd-boot" + efi.systemd + ".efi")
	if err != nil {
		return nil, err
	}
	stub, err := boot.Content("usr/lib/systemd/boot/efi/linux" + efi.systemd + ".efi.stub")
	if err != nil {
		return nil, err
	}
	uki, err := unifiedKernel(p, stub, f)
	if err != nil {
		return nil, fmt.Errorf("unified kernel image: %w", err)
	}
	f.image = artifact.BytesContent(uki)
	loaderPath := "EFI/BOOT/BOOT" + efi.fallback + ".EFI"
	f.files = []File{
		contentFile(loaderPath, loader),
		memoryFile("loader/loader.conf", []byte(loaderConf)),
		contentFile(f.imageName, f.image),
	}
	f.keys = []string{f.imageName, f.image.SHA256, loaderPath, loader.SHA256, loaderConf}
	return f, nil
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
