package artifacttest

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/skerryos/skerry/builder/plan"
)

// UBootPlan returns the plan of [Plan] for a board with U-Boot, whose kernel is in two packages, as since Linux 6.19. The processor is
// the same, so that tests need not compile for another one; nothing that U-Boot boots depends on it.
func UBootPlan(t testing.TB, packages *Packages) *plan.Plan {
	t.Helper()
	const release = "7.0-test"
	p := Plan(t, packages)
	old := p.Kernel.Package
	modules := "usr/lib/modules/" + release + "/"
	image := packages.Add(t, "linux-image-"+release, "7.0-1", File{Name: "usr/share/doc/linux-image/NEWS", Content: "split"})
	binaries := packages.Add(t, "linux-binary-"+release, "7.0-1",
		File{Name: modules + "vmlinuz", Content: Image(3 << 20)},
		File{Name: modules + "dtb/vendor/one.dtb", Content: "device tree of one"},
		File{Name: modules + "dtb/vendor/two-io.dtb", Content: "device tree of two"},
	)
	rest := packages.Add(t, "linux-modules-"+release, "7.0-1",
		File{Name: modules + "modules.builtin", Content: "kernel/fs/fuse/fuse.ko\n"},
		File{Name: modules + "modules.builtin.modinfo", Content: "fuse.license=GPL\x00fuse.alias=fs-fuse\x00"},
		File{Name: modules + "kernel/fs/erofs/erofs.ko.xz", Content: Module(t, "depends=", "alias=fs-erofs")},
		File{Name: modules + "kernel/drivers/net/net-a.ko.xz", Content: Module(t, "depends=")},
	)
	firmware := packages.Add(t, "firmware", "1-1",
		File{Name: "usr/lib/firmware-files/bootcode.bin", Content: "boot ROM loads this"},
		File{Name: "usr/lib/firmware-files/start.elf", Content: "firmware"},
		File{Name: "usr/lib/u-boot/u-boot.bin", Content: UBoot},
		File{Name: "usr/lib/overlays/light.dtbo", Content: "overlay of the package"},
	)
	var kept []plan.Package
	for _, k := range p.Packages {
		if k.Name != old && k.Name != "systemd-boot-efi" {
			kept = append(kept, k)
		}
	}
	p.Packages = append(kept, image, binaries, rest, firmware)
	p.Kernel.Package, p.Kernel.Release, p.Kernel.Parts = image.Name, release, []string{binaries.Name, rest.Name}
	p.BootLoader, p.Disk.Table = "uboot", "mbr"
	p.CommandLine = append(p.CommandLine, plan.LoaderArgument)
	p.UBoot = &plan.UBoot{
		Files: []plan.BootFile{
			{Package: firmware.Name, Files: []string{"usr/lib/firmware-files/*"}},
			{Package: firmware.Name, Files: []string{"usr/lib/u-boot/u-boot.bin"}, As: "loader/u-boot-1.bin"},
			{Package: image.Name, Files: []string{"usr/lib/modules/*/dtb/vendor/one.dtb"}},
		},
		Config:      []string{"kernel=loader/u-boot-1.bin", "[all]"},
		Environment: &plan.Environment{In: []string{"loader/u-boot-1.bin"}, Set: []string{"bootdelay=-2"}, Unset: []string{"spare"}},
		Command:     "booti",
		Memory: plan.Memory{
			State: 0x2500000, Kernel: 0x200000, DeviceTree: 0x1000000, Overlay: 0x1100000, Initramfs: 0x1200000, Unpacked: 0x4000000, End: 0x8000000,
		},
		DeviceTreeFolder: "usr/lib/modules/*/dtb/vendor",
		DeviceTrees:      []plan.DeviceTree{{Board: "vendor/one.dtb", File: "one.dtb"}, {Board: "vendor/two.dtb", File: "two-io.dtb"}},
		Overlays: []plan.DeviceTreeOverlay{
			{Package: firmware.Name, File: "usr/lib/overlays/light.dtbo", Reason: "the test wants it"},
			{File: "overlay-files/fan.dtbo", Reason: "the test wants it"},
		},
	}
	return p
}

// UBoot is U-Boot's program in the package of [UBootPlan].
const UBoot = "U-Boot\x00bootcmd=scan\x00bootdelay=2\x00spare=1\x00\x00"

// Image returns a 64-bit kernel that takes so many bytes of memory (https://docs.kernel.org/arch/arm64/booting.html); its file is
// smaller.
func Image(memory uint64) string {
	b := bytes.Repeat([]byte("kernel. "), 4096)
	binary.LittleEndian.PutUint64(b[16:], memory)
	copy(b[56:], "ARM\x64")
	return string(b)
}
