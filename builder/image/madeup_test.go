package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/kernelconfig"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

const madeUpProfile = `
version: 1.0.0
packages:
  - {name: ca-certificates, reason: test}
programs:
  - {name: init, package: initd/cmd/init, path: /usr/sbin/init, reason: test}
kernelConfig: [some.config]
`

// madeUpBoards are boards that nobody has, one of each family.
var madeUpBoards = map[string]string{
	"systemd-boot": `
title: a PC of tomorrow
architecture: amd64
bootLoader: systemd-boot
disk: {table: gpt, boot: 48MiB, root: 16MiB, minimumData: 1GiB}
kernel: {package: linux-image-6.1-test, reason: test}
packages:
  - {name: systemd-boot-efi, reason: test}
`,
	"uboot": `
title: a board of tomorrow
architecture: amd64
bootLoader: uboot
disk: {table: mbr, boot: 48MiB, root: 16MiB, minimumData: 1GiB}
kernel: {package: linux-image-7.0-test, reason: test}
uboot:
  files:
    - {package: firmware, files: [usr/lib/firmware-files/*, usr/lib/u-boot/u-boot.bin], reason: test}
  config: [kernel=u-boot.bin]
  command: booti
  memory: {state: 0x3500000, kernel: 0x400000, deviceTree: 0x1000000, overlay: 0x1100000, initramfs: 0x1200000, unpacked: 0x4000000, end: 0x8000000}
  deviceTrees:
    folder: usr/lib/modules/*/dtb/vendor
    boards:
      - {board: tomorrow.dtb, file: two-io.dtb}
`,
}

// A board of a family that exists is data: these become images by what their files say, and no code knows them.
func TestBoardsAreData(t *testing.T) {
	for _, family := range plans {
		t.Run(family.loader, func(t *testing.T) {
			b := newBuildOf(t, family.of)
			dir := t.TempDir()
			files := map[string]string{"profile.yaml": madeUpProfile, "tomorrow.yaml": madeUpBoards[family.loader]}
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			in := plan.Input{Module: "github.com/skerryos/skerry", Lock: lockOf(b.plan)}
			var err error
			if in.Profile, err = profile.ReadProfile(filepath.Join(dir, "profile.yaml")); err != nil {
				t.Fatal(err)
			}
			if in.Board, err = profile.ReadBoard(filepath.Join(dir, "tomorrow.yaml")); err != nil {
				t.Fatal(err)
			}
			fragment, err := kernelconfig.Parse("some.config", []byte("## stage: boot\nCONFIG_EROFS_FS=m # erofs: root\n"))
			if err != nil {
				t.Fatal(err)
			}
			in.Fragments = map[string][]plan.Option{"some.config": fragment}
			if b.plan, err = plan.Resolve(in); err != nil {
				t.Fatal(err)
			}
			r := b.run(t)
			m := readManifest(t, r)
			if m.Board != "tomorrow" || !strings.Contains(m.CommandLine, "skerry.board=tomorrow") || filepath.Base(r.Image) != "skerry-tomorrow.img" {
				t.Errorf("%s is of board %s with command line %s", r.Image, m.Board, m.CommandLine)
			}
			if family.loader == "uboot" {
				start := string(onBoot(t, bootPartition(t, b, r), "a-0/start.scr"))
				if !strings.Contains(start, `test "${fdtfile}" = "tomorrow.dtb"`) || !strings.Contains(start, "booti 0x400000 0x1200000:${filesize} 0x1000000") {
					t.Errorf("the start script is not the board's:\n%s", start[72:])
				}
			}
		})
	}
}

// lockOf is a lock of the plan's packages.
func lockOf(p *plan.Plan) *profile.Lock {
	lock := &profile.Lock{Archive: profile.Archive{Suite: "test", Components: []string{"main"}, Date: "2025-11-24T16:00:00Z"}}
	for _, k := range p.Packages {
		l := profile.LockedPackage{Name: k.Name, Version: k.Version, Architecture: k.Architecture, Path: k.Path, SHA256: k.SHA256, Size: k.Size}
		for _, part := range p.Kernel.Parts {
			if k.Name == part {
				l.PartOf = p.Kernel.Package
			}
		}
		lock.Packages = append(lock.Packages, l)
	}
	return lock
}
