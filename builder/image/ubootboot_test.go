package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/artifact/artifacttest"
	"github.com/skerryos/skerry/builder/image/uboot"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/ci/need"
)

// bootPartition copies the boot partition of an image into a file, and returns its name.
func bootPartition(t *testing.T, b *build, r *Result) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "boot")
	if err := os.WriteFile(name, read(t, r.Image)[mib:][:b.plan.Disk.BootBytes], 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// onBoot reads a file of a boot partition with mtools.
func onBoot(t *testing.T, partition, name string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), need.Tool(t, "mtype"), "-i", partition, "::/"+name).Output()
	if err != nil {
		t.Fatalf("cannot read %s: %v", name, err)
	}
	return out
}

func TestUBootDiskHasThePartitionsAndTheState(t *testing.T) {
	b := newBuildOf(t, artifacttest.UBootPlan)
	r := b.run(t)
	image := read(t, r.Image)
	if image[510] != 0x55 || image[511] != 0xaa || binary.LittleEndian.Uint32(image[440:]) == 0 {
		t.Errorf("no partition table, or without a signature: %x", image[440:512])
	}
	type part struct {
		active, kind byte
		first, count uint32
	}
	want := []part{
		{0x80, 0x0c, 2048, 40 * 2048},
		{0, 0x83, 2048 + 40*2048, 16 * 2048},
		{0, 0x83, 2048 + 56*2048, 16 * 2048},
		{0, 0x83, 2048 + 72*2048, 2048},
	}
	for i, w := range want {
		e := image[446+16*i:][:16]
		if got := (part{e[0], e[4], binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])}); got != w {
			t.Errorf("partition %d is %+v, want %+v", i+1, got, w)
		}
	}
	if r.Bytes != int64(want[3].first+want[3].count)*sector {
		t.Errorf("the image has %d bytes and does not end with the last partition", r.Bytes)
	}
	if got := image[uboot.StateOffset:][:1024]; !bytes.Equal(got, uboot.State(3)) {
		t.Errorf("the boot state is %q", got)
	}
	for what, at := range map[string]int64{"root-b": int64(want[2].first) * sector, "data": int64(want[3].first) * sector} {
		if len(bytes.Trim(image[at:][:mib], "\x00")) != 0 {
			t.Errorf("%s is not empty", what)
		}
	}
}

func TestToolsAcceptTheUBootDisk(t *testing.T) {
	sfdisk, fsck, dumpimage := need.Tool(t, "sfdisk"), need.Tool(t, "fsck.vfat"), need.Tool(t, "dumpimage")
	b := newBuildOf(t, artifacttest.UBootPlan)
	r := b.run(t)
	if out, err := exec.CommandContext(t.Context(), sfdisk, "--verify", r.Image).CombinedOutput(); err != nil || !strings.Contains(string(out), "No errors detected") {
		t.Errorf("sfdisk: %v\n%s", err, out)
	}
	boot := bootPartition(t, b, r)
	if out, err := exec.CommandContext(t.Context(), fsck, "-n", boot).CombinedOutput(); err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
	for name, want := range map[string]string{
		"bootcode.bin":        "boot ROM loads this",
		"start.elf":           "firmware",
		"loader/u-boot-1.bin": "U-Boot\x00bootcmd=scan\x00bootdelay=-2" + strings.Repeat("\x00", len("spare=1")+2),
		"one.dtb":             "device tree of one",
		"config.txt":          "kernel=loader/u-boot-1.bin\n[all]\n",
		"a-0/one.dtb":         "device tree of one",
		"a-0/two-io.dtb":      "device tree of two",
		"a-0/light.dtbo":      "overlay of the package",
		"a-0/fan.dtbo":        "overlay of the repository",
		"a-0/initramfs":       string(read(t, filepath.Join(r.Boot, "initrd"))),
	} {
		if got := string(onBoot(t, boot, name)); got != want {
			t.Errorf("%s has %d bytes: %.80q", name, len(got), got)
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(onBoot(t, boot, "a-0/kernel")))
	if err != nil {
		t.Fatal(err)
	}
	if kernel, err := io.ReadAll(z); err != nil || !bytes.Equal(kernel, read(t, filepath.Join(r.Boot, "vmlinuz"))) || !z.ModTime.IsZero() || z.Name != "" {
		t.Errorf("the kernel of the slot is another one (%v), or has a date or a name: %+v", err, z.Header)
	}
	for _, name := range []string{"boot.scr", "a-0/start.scr"} {
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, onBoot(t, boot, name), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), dumpimage, "-l", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "Linux Script") {
			t.Errorf("dumpimage of %s: %v\n%s", name, err, out)
		}
	}
	start := string(onBoot(t, boot, "a-0/start.scr"))
	m := readManifest(t, r)
	bound, slot, _ := strings.Cut(m.CommandLine, " skerry.slot=")
	for _, want := range []string{
		`setenv bootargs "` + bound + ` skerry.slot=${slot} skerry.bootpart=${bootpart}"`, `setenv dtb two-io.dtb`, "fdt apply 0x1100000 && load ${devtype} ${devnum}:1 0x1100000 /${folder}/fan.dtbo",
	} {
		if !strings.Contains(start, want) {
			t.Errorf("the start script has no %q:\n%s", want, start[72:])
		}
	}
	if slot != "a" || !strings.Contains(bound, "skerry.loader=uboot") || !strings.Contains(bound, "skerry.roothash="+r.RootHash) {
		t.Errorf("the command line is %q", m.CommandLine)
	}
}

// The boot artefacts of the bundle are the folder of the slot on the disk, and the same for both slots.
func TestUBootBundleHasTheFilesOfTheDisk(t *testing.T) {
	b, s, key := withKey(t, newBuildOf(t, artifacttest.UBootPlan))
	disk := b.run(t)
	r, err := Bundle(t.Context(), b.fresh(), b.plan, b.out, BundleOptions{Sign: s.Sign})
	if err != nil {
		t.Fatal(err)
	}
	_, artefacts := artefactsOf(t, r.Bundle, key)
	if !bytes.Equal(artefacts["boot-a"], artefacts["boot-b"]) {
		t.Error("the slots have other boot images")
	}
	if root := artefacts["root"]; !bytes.Equal(read(t, disk.Image)[mib+b.plan.Disk.BootBytes:][:len(root)], root) {
		t.Error("root differs from slot a of the disk")
	}
	boot := bootPartition(t, b, disk)
	archive := tar.NewReader(bytes.NewReader(artefacts["boot-a"]))
	var names []string
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil || !bytes.Equal(content, onBoot(t, boot, "a-0/"+h.Name)) {
			t.Errorf("%s differs from the disk's (%v)", h.Name, err)
		}
		names = append(names, h.Name)
	}
	if want := []string{"fan.dtbo", "initramfs", "kernel", "light.dtbo", "one.dtb", "two-io.dtb", "start.scr"}; !slices.Equal(names, want) {
		t.Errorf("the boot image has %q, want %q", names, want)
	}
}

func TestUBootMistakes(t *testing.T) {
	b := newBuildOf(t, artifacttest.UBootPlan)
	for _, tt := range []struct {
		name   string
		change func(*plan.UBoot)
		want   string
	}{
		{"device tree", func(u *plan.UBoot) {
			u.DeviceTrees = append(u.DeviceTrees, plan.DeviceTree{Board: "b", File: "none.dtb"})
		}, "none.dtb"},
		{"firmware file", func(u *plan.UBoot) {
			u.Files = []plan.BootFile{{Package: "firmware", Files: []string{"usr/lib/none*"}}}
		}, `"usr/lib/none*" matches nothing`},
		{"package", func(u *plan.UBoot) { u.Files = []plan.BootFile{{Package: "none", Files: []string{"a"}}} }, `package "none"`},
		{"one name for many", func(u *plan.UBoot) { u.Files[0].As = "all" }, "names several files"},
		{"two of a name", func(u *plan.UBoot) { u.Files = append(u.Files, u.Files[0]) }, "its name is taken"},
		{"overlay", func(u *plan.UBoot) { u.Overlays[1].File = "none.dtbo" }, "none.dtbo"},
		{"overlays of one name", func(u *plan.UBoot) { u.Overlays = append(u.Overlays, u.Overlays[1]) }, "another file of the slot has the name fan.dtbo"},
		{"kernel over the device tree", func(u *plan.UBoot) { u.Memory.DeviceTree = 0x400000 }, "the kernel would be at 0x200000 to 0x500000, and device tree is at 0x400000"},
		{"initramfs over the end", func(u *plan.UBoot) { u.Memory.Initramfs = 0x7fff000 }, "and the end of memory is at 0x8000000"},
		{"unpacked over the initramfs", func(u *plan.UBoot) { u.Memory.Unpacked = 0x1201000 }, "and unpacked kernel is at 0x1201000"},
		{"state at no address", func(u *plan.UBoot) { u.Memory.State = 0 }, "cannot make the boot script"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			former := *b.plan.UBoot
			defer func() { b.plan.UBoot = &former }()
			changed := former
			changed.Files, changed.Overlays, changed.DeviceTrees = slices.Clone(former.Files), slices.Clone(former.Overlays), slices.Clone(former.DeviceTrees)
			tt.change(&changed)
			b.plan.UBoot = &changed
			if _, err := Build(t.Context(), b.fresh(), b.plan, b.out); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error does not say %q: %v", tt.want, err)
			}
		})
	}
	if left := slices.Sorted(maps.Keys(loaders)); !slices.Equal(left, []string{"systemd-boot", "uboot"}) {
		t.Errorf("there are other boot loaders, without a test: %q", left)
	}
}
