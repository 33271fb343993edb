package vm

import (
	"debug/pe"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/diskfs/go-diskfs"
)

// ExtractKernel takes the kernel, initramfs and command line of the first slot out of a disk image and writes the files below
// folder: what the boot loader would start.
func ExtractKernel(image, folder string) (Kernel, error) {
	k, err := extractKernel(image, folder)
	if err != nil {
		return Kernel{}, fmt.Errorf("cannot take the kernel out of %s: %w", image, err)
	}
	return k, nil
}

func extractKernel(image, folder string) (Kernel, error) {
	disk, err := diskfs.Open(image, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		return Kernel{}, err
	}
	defer disk.Close()
	esp, err := disk.GetFilesystem(1)
	if err != nil {
		return Kernel{}, fmt.Errorf("cannot read its first partition: %w", err)
	}
	defer esp.Close()
	// The Boot Loader Specification's folder for unified kernel images.
	const ukis = "EFI/Linux"
	entries, err := fs.ReadDir(esp, ukis)
	if err != nil {
		return Kernel{}, fmt.Errorf("cannot list %s on the ESP: %w", ukis, err)
	}
	for _, e := range entries {
		if !strings.EqualFold(path.Ext(e.Name()), ".efi") {
			continue
		}
		b, err := fs.ReadFile(esp, path.Join(ukis, e.Name()))
		if err != nil {
			return Kernel{}, fmt.Errorf("cannot read %s: %w", e.Name(), err)
		}
		uki := filepath.Join(folder, "uki.efi")
		if err := os.WriteFile(uki, b, 0o600); err != nil {
			return Kernel{}, err
		}
		return splitUKI(uki, folder)
	}
	return Kernel{}, fmt.Errorf("there is no unified kernel image in %s on the ESP", ukis)
}

// splitUKI writes the sections of a unified kernel image to files (UAPI group, Unified Kernel Image).
func splitUKI(uki, folder string) (Kernel, error) {
	f, err := pe.Open(uki)
	if err != nil {
		return Kernel{}, fmt.Errorf("cannot read the unified kernel image: %w", err)
	}
	defer f.Close()
	section := func(name string) ([]byte, error) {
		s := f.Section(name)
		if s == nil {
			return nil, fmt.Errorf("the unified kernel image has no section %s", name)
		}
		b, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("cannot read section %s of the unified kernel image: %w", name, err)
		}
		// On disk a section is padded to the file's alignment; its virtual size is the true one.
		return b[:min(len(b), int(s.VirtualSize))], nil
	}
	k := Kernel{Image: filepath.Join(folder, "linux"), Initrd: filepath.Join(folder, "initrd")}
	for name, file := range map[string]string{".linux": k.Image, ".initrd": k.Initrd} {
		b, err := section(name)
		if err != nil {
			return Kernel{}, err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return Kernel{}, err
		}
	}
	line, err := section(".cmdline")
	if err != nil {
		return Kernel{}, err
	}
	k.CommandLine = strings.TrimRight(string(line), "\x00\n ")
	return k, nil
}
