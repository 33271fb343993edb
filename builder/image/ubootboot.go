package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/image/uboot"
	"github.com/skerryos/skerry/builder/plan"
)

// Names of the files of a slot that its start script loads.
const (
	slotKernel    = "kernel"
	slotInitramfs = "initramfs"
)

// configFile is where the firmware of a Raspberry Pi reads its configuration.
const configFile = "config.txt"

// stateStep is between the two copies of the state in memory, and between them and the start script.
const stateStep = 64 << 10

// ubootBoot makes the boot image of a slot, and a boot partition with the firmware, the boot script and that slot. The boot image
// is the same for both slots: the script says which one it is.
func ubootBoot(ctx context.Context, b *artifact.Builder, p *plan.Plan, a *artefacts, slot string) (*bootFiles, error) {
	f := &bootFiles{
		initrd:      a.initramfs.Content(),
		commandLine: joined(p.CommandLine, rootArguments(a.root.Verity), []string{"skerry.slot=" + slot}),
		imageName:   "boot image",
		state:       uboot.State(slotTries),
		stateOffset: uboot.StateOffset,
	}
	var err error
	if f.kernel, err = kernelImage(ctx, b, p); err != nil {
		return nil, err
	}
	files, start, err := slotFiles(ctx, b, p, a, f)
	if err != nil {
		return nil, err
	}
	if f.image, err = bootImage(files, start); err != nil {
		return nil, err
	}
	if f.files, err = firmwareFiles(ctx, b, p); err != nil {
		return nil, err
	}
	m := p.UBoot.Memory
	script, err := uboot.BootScript(uboot.Chooser{State0: m.State, State1: m.State + stateStep, Script: m.State + 2*stateStep})
	if err != nil {
		return nil, err
	}
	f.files = append(f.files, memoryFile("boot.scr", script))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f.files = append(f.files, contentFile(path.Join(uboot.FactoryFolder(), name), files[name]))
	}
	f.files = append(f.files, memoryFile(path.Join(uboot.FactoryFolder(), uboot.StartScriptName), start))
	// What firmwareFiles takes is known by the plan.
	f.keys = []string{f.image.SHA256, artifact.BytesContent(script).SHA256, artifact.BytesContent(f.state).SHA256}
	return f, nil
}

// slotFiles are the files of a slot by name, and its start script.
func slotFiles(ctx context.Context, b *artifact.Builder, p *plan.Plan, a *artefacts, f *bootFiles) (map[string]artifact.Content, []byte, error) {
	u := p.UBoot
	kernel := f.kernel
	if u.Memory.Unpacked != 0 {
		var err error
		if kernel, err = b.Gzip(ctx, f.kernel); err != nil {
			return nil, nil, err
		}
	}
	files := map[string]artifact.Content{slotKernel: kernel, slotInitramfs: f.initrd}
	s := uboot.Starter{
		Command: u.Command, Kernel: u.Memory.Kernel, DeviceTree: u.Memory.DeviceTree, Overlay: u.Memory.Overlay, Initramfs: u.Memory.Initramfs,
		Arguments: joined(p.CommandLine, rootArguments(a.root.Verity)),
	}
	if u.Memory.Unpacked != 0 {
		s.Unpacked, s.UnpackedSize = u.Memory.Unpacked, uint64(kernel.Bytes)
	}
	packages, err := b.Kernel(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	var trees, overlays []artifact.Content
	for _, d := range u.DeviceTrees {
		c, err := single(packages, path.Join(u.DeviceTreeFolder, d.File))
		if err != nil {
			return nil, nil, err
		}
		files[d.File] = c
		trees = append(trees, c)
		s.DeviceTrees = append(s.DeviceTrees, uboot.DeviceTree{Board: d.Board, File: d.File})
	}
	for _, o := range u.Overlays {
		name := path.Base(o.File)
		if _, taken := files[name]; taken {
			return nil, nil, fmt.Errorf("device tree overlay %s: another file of the slot has the name %s", o.File, name)
		}
		if files[name], err = overlay(ctx, b, p, o); err != nil {
			return nil, nil, err
		}
		overlays = append(overlays, files[name])
		s.Overlays = append(s.Overlays, name)
	}
	if err := checkMemory(u.Memory, f.kernel, kernel, f.initrd, trees, overlays); err != nil {
		return nil, nil, fmt.Errorf("%w; change the addresses in uboot.memory of board %s", err, p.Board)
	}
	start, err := uboot.StartScript(s)
	return files, start, err
}

// single is the one file that a pattern names.
func single(u *artifact.Unpacked, pattern string) (artifact.Content, error) {
	names, err := u.Match(pattern)
	if err != nil {
		return artifact.Content{}, err
	}
	if len(names) > 1 {
		return artifact.Content{}, fmt.Errorf("pattern %q names several files of %s: %s", pattern, u.Origin(), strings.Join(names, ", "))
	}
	return u.Content(names[0])
}

func overlay(ctx context.Context, b *artifact.Builder, p *plan.Plan, o plan.DeviceTreeOverlay) (artifact.Content, error) {
	if o.Package == "" {
		c, err := artifact.FileContent(ctx, filepath.Join(b.Source, filepath.FromSlash(o.File)))
		if err != nil {
			return c, fmt.Errorf("device tree overlay: %w", err)
		}
		return c, nil
	}
	u, err := b.PackageOf(ctx, p, o.Package)
	if err != nil {
		return artifact.Content{}, err
	}
	return single(u, o.File)
}

// bootImage is the boot image of these files.
func bootImage(files map[string]artifact.Content, start []byte) (artifact.Content, error) {
	members := map[string]uboot.File{}
	for name, c := range files {
		r, err := c.Open()
		if err != nil {
			return artifact.Content{}, err
		}
		defer r.Close()
		members[name] = uboot.File{Size: c.Bytes, Content: r}
	}
	var archive bytes.Buffer
	if err := uboot.BootImage(&archive, members, start); err != nil {
		return artifact.Content{}, err
	}
	return artifact.BytesContent(archive.Bytes()), nil
}

// firmwareFiles are what the boot partition has for the firmware.
func firmwareFiles(ctx context.Context, b *artifact.Builder, p *plan.Plan) ([]File, error) {
	var files []File
	for _, w := range p.UBoot.Files {
		u, err := b.PackageOf(ctx, p, w.Package)
		if err != nil {
			return nil, err
		}
		for _, pattern := range w.Files {
			names, err := u.Match(pattern)
			if err != nil {
				return nil, err
			}
			if w.As != "" && len(names) > 1 {
				return nil, fmt.Errorf("pattern %q is to be %s on the boot partition, but names several files of %s", pattern, w.As, u.Origin())
			}
			for _, name := range names {
				c, err := u.Content(name)
				if err != nil {
					return nil, err
				}
				files = append(files, contentFile(cmp.Or(w.As, path.Base(name)), c))
			}
		}
	}
	if err := setEnvironment(files, p.UBoot.Environment); err != nil {
		return nil, err
	}
	if len(p.UBoot.Config) > 0 {
		files = append(files, memoryFile(configFile, []byte(strings.Join(p.UBoot.Config, "\n")+"\n")))
	}
	return files, nil
}

// setEnvironment puts other variables into U-Boot's programs among the files.
func setEnvironment(files []File, e *plan.Environment) error {
	if e == nil {
		return nil
	}
	for _, name := range e.In {
		i := slices.IndexFunc(files, func(f File) bool { return f.Path == name })
		if i < 0 {
			return fmt.Errorf("variables are to be set in %s, which is not a file of the boot partition; see uboot.environment of the board", name)
		}
		r, err := files[i].Open()
		if err != nil {
			return err
		}
		program, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("cannot read %s: %w", name, err)
		}
		if program, err = uboot.SetEnvironment(program, e.Set, e.Unset); err != nil {
			return fmt.Errorf("%s: %w; see uboot.environment of the board", name, err)
		}
		files[i] = memoryFile(name, program)
	}
	return nil
}

// A region is a piece of memory.
type region struct {
	what       string
	start, end uint64
}

// fdtRoom is by how much the start script makes a device tree larger for overlays; U-Boot itself adds the rest.
const fdtRoom = 64 << 10

// checkMemory makes sure that nothing that U-Boot loads or unpacks overwrites something else, with a kernel as it is in its package
// and as it is loaded.
func checkMemory(m plan.Memory, plain, loaded, initrd artifact.Content, trees, overlays []artifact.Content) error {
	largest := func(list []artifact.Content) (n uint64) {
		for _, c := range list {
			n = max(n, uint64(c.Bytes))
		}
		return n
	}
	kernel := uint64(loaded.Bytes)
	regions := []region{
		{"device tree", m.DeviceTree, m.DeviceTree + largest(trees) + fdtRoom},
		{"initramfs", m.Initramfs, m.Initramfs + uint64(initrd.Bytes)},
	}
	if len(overlays) > 0 {
		regions = append(regions, region{"overlay", m.Overlay, m.Overlay + largest(overlays)})
	}
	if m.Unpacked != 0 {
		regions = append(regions, region{"unpacked kernel", m.Unpacked, m.Unpacked + uint64(plain.Bytes)})
		size, err := imageSize(plain)
		if err != nil {
			return err
		}
		kernel = max(kernel, size)
	}
	regions = append(regions, region{"kernel", m.Kernel, m.Kernel + kernel})
	slices.SortFunc(regions, func(a, b region) int { return cmp.Compare(a.start, b.start) })
	for i, r := range regions {
		limit, what := m.End, "the end of memory"
		if i+1 < len(regions) {
			limit, what = regions[i+1].start, regions[i+1].what
		}
		if r.end > limit {
			return fmt.Errorf("in memory, the %s would be at %#x to %#x, and %s is at %#x", r.what, r.start, r.end, what, limit)
		}
	}
	return nil
}

// imageSize is how much memory a 64-bit kernel takes where it runs, its zeros included
// (https://docs.kernel.org/arch/arm64/booting.html).
func imageSize(kernel artifact.Content) (uint64, error) {
	r, err := kernel.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var header [64]byte
	if _, err := r.ReadAt(header[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("cannot read the kernel: %w", err)
	}
	if string(header[56:60]) != "ARM\x64" {
		return 0, errors.New("the kernel is not an uncompressed 64-bit one, which booti needs")
	}
	return binary.LittleEndian.Uint64(header[16:]), nil
}
