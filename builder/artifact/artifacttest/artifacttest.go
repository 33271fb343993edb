// Package artifacttest makes small inputs of builds for tests: packages, kernel modules, programs, an EFI stub, and a
// repository with programs of a few lines.
package artifacttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/fetch/fetchtest"
	"github.com/skerryos/skerry/builder/plan"
)

// A File is a file or, with a Link, a symbolic link of a package.
type File = fetchtest.Member

// Packages makes Debian packages in a folder, and gives their paths as a cache would.
type Packages struct {
	Dir   string
	paths map[string]string
}

// Add makes a package.
func (p *Packages) Add(t testing.TB, name, version string, files ...File) plan.Package {
	t.Helper()
	for i := range files {
		files[i].Name = "./" + files[i].Name
	}
	deb, err := fetchtest.Deb(name, version, "amd64", "xz", files...)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(deb)
	digest := hex.EncodeToString(sum[:])
	file := filepath.Join(p.Dir, digest+".deb")
	if err := os.WriteFile(file, deb, 0o644); err != nil {
		t.Fatal(err)
	}
	if p.paths == nil {
		p.paths = map[string]string{}
	}
	p.paths[digest] = file
	return plan.Package{
		Name: name, Version: version, Architecture: "amd64", Path: "pool/" + name + ".deb",
		SHA256: digest, Size: int64(len(deb)), Reason: "the test wants " + name,
	}
}

// Package implements the builder's interface.
func (p *Packages) Package(_ context.Context, k plan.Package) (string, error) {
	file, ok := p.paths[k.SHA256]
	if !ok {
		return "", fmt.Errorf("the test has no package %s", k.Name)
	}
	return file, nil
}

// Module returns a kernel module, compressed with xz, whose .modinfo has these fields ("depends=a,b").
func Module(t testing.TB, modinfo ...string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := fetchtest.Compress(&b, "xz")
	if err != nil {
		t.Fatal(err)
	}
	raw := ELF(nil, Section{Name: ".modinfo", Data: []byte(strings.Join(append(modinfo, ""), "\x00"))})
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Program returns a dynamic program (or library, without interpreter) that needs these libraries.
func Program(interpreter string, needed ...string) string {
	strs := []byte{0}
	var dynamic []byte
	for _, n := range needed {
		dynamic = binary.LittleEndian.AppendUint64(dynamic, 1) // DT_NEEDED
		dynamic = binary.LittleEndian.AppendUint64(dynamic, uint64(len(strs)))
		strs = append(append(strs, n...), 0)
	}
	dynamic = append(dynamic, make([]byte, 16)...) // DT_NULL
	var interp []byte
	if interpreter != "" {
		interp = append([]byte(interpreter), 0)
	}
	return string(ELF(interp,
		Section{Name: ".dynstr", Type: 3, Data: strs},
		Section{Name: ".dynamic", Type: 6, Link: 1, Data: dynamic}))
}

// A Section is a section of an ELF file; Link is the number of another one, counted from 1.
type Section struct {
	Name string
	Type uint32 // SHT_PROGBITS if zero
	Link uint32
	Data []byte
}

// ELF returns a 64-bit little-endian ELF file with these sections, and a PT_INTERP program header unless interp is
// empty.
func ELF(interp []byte, sections ...Section) []byte {
	const headerSize, progSize, sectionSize = 64, 56, 64
	le := binary.LittleEndian
	names := []byte{0}
	sections = append(append([]Section{{}}, sections...), Section{Name: ".shstrtab", Type: 3})
	offsets := make([]uint32, len(sections))
	for i, s := range sections {
		if s.Name != "" {
			offsets[i] = uint32(len(names))
			names = append(append(names, s.Name...), 0)
		}
	}
	sections[len(sections)-1].Data = names

	out := make([]byte, headerSize)
	copy(out, "\x7fELF\x02\x01\x01")
	le.PutUint16(out[16:], 3)  // ET_DYN
	le.PutUint16(out[18:], 62) // EM_X86_64
	le.PutUint32(out[20:], 1)
	le.PutUint16(out[52:], headerSize)
	le.PutUint16(out[54:], progSize)
	le.PutUint16(out[58:], sectionSize)
	le.PutUint16(out[60:], uint16(len(sections)))
	le.PutUint16(out[62:], uint16(len(sections)-1))
	if len(interp) > 0 {
		le.PutUint64(out[32:], headerSize)
		le.PutUint16(out[56:], 1)
		ph := make([]byte, progSize)
		le.PutUint32(ph, 3) // PT_INTERP
		le.PutUint64(ph[8:], headerSize+progSize)
		le.PutUint64(ph[32:], uint64(len(interp)))
		le.PutUint64(ph[40:], uint64(len(interp)))
		out = append(append(out, ph...), interp...)
	}
	var table []byte
	for i, s := range sections {
		h := make([]byte, sectionSize)
		if i > 0 {
			if s.Type == 0 {
				s.Type = 1
			}
			le.PutUint32(h, offsets[i])
			le.PutUint32(h[4:], s.Type)
			le.PutUint64(h[24:], uint64(len(out)))
			le.PutUint64(h[32:], uint64(len(s.Data)))
			le.PutUint32(h[40:], s.Link)
			le.PutUint64(h[48:], 1)
			out = append(out, s.Data...)
		}
		table = append(table, h...)
	}
	le.PutUint64(out[40:], uint64(len(out)))
	return append(out, table...)
}

// Stub returns an EFI program (PE32+) with one section and headers of that many bytes.
func Stub(headers uint32) []byte {
	const peAt, optional = 0x80, 240
	le := binary.LittleEndian
	b := make([]byte, headers)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], peAt)
	copy(b[peAt:], "PE\x00\x00")
	le.PutUint16(b[peAt+4:], 0x8664)
	le.PutUint16(b[peAt+6:], 1)
	le.PutUint16(b[peAt+20:], optional)
	opt := b[peAt+24:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[32:], 4096)
	le.PutUint32(opt[36:], 512)
	le.PutUint32(opt[56:], 8192)
	le.PutUint32(opt[60:], headers)
	le.PutUint32(opt[108:], 16)
	s := b[peAt+24+optional:]
	copy(s, ".text")
	le.PutUint32(s[8:], 100)
	le.PutUint32(s[12:], 4096)
	le.PutUint32(s[16:], 512)
	le.PutUint32(s[20:], headers)
	le.PutUint32(s[36:], 0x60000020)
	return append(b, bytes.Repeat([]byte{0xcc}, 512)...)
}

// Repository makes a folder with a module that has programs of a few lines: init and pause, the version package, and
// an overlay.
func Repository(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                  "module github.com/skerryos/skerry\n\ngo 1.26\n",
		"initd/version/v.go":      "package version\n\nvar Version = \"development\"\n",
		"initd/cmd/init/main.go":  "package main\n\nimport \"github.com/skerryos/skerry/initd/version\"\n\nfunc main() { println(\"init\", version.Version) }\n",
		"initd/cmd/pause/main.go": "package main\n\nfunc main() { println(\"pause\") }\n",
		"overlay/etc/motd":        "hello\n",
		"overlay-files/fan.dtbo":  "overlay of the repository",
	} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Plan returns a plan that uses all of it, with its packages.
func Plan(t testing.TB, packages *Packages) *plan.Plan {
	t.Helper()
	const release = "6.1-test"
	modules := "usr/lib/modules/" + release + "/"
	kernel := packages.Add(t, "linux-image-"+release, "6.1-1",
		File{Name: "boot/vmlinuz-" + release, Content: "kernel"},
		File{Name: modules + "modules.builtin", Content: "kernel/fs/fuse/fuse.ko\n"},
		File{Name: modules + "modules.builtin.modinfo", Content: "fuse.license=GPL\x00fuse.alias=fs-fuse\x00"},
		File{Name: modules + "kernel/crypto/crc32c_generic.ko.xz", Content: Module(t, "alias=crc32c", "alias=crypto-crc32c", "depends=")},
		File{Name: modules + "kernel/lib/libcrc32c.ko.xz", Content: Module(t, "softdep=pre: crc32c", "depends=")},
		File{Name: modules + "kernel/fs/erofs/erofs.ko.xz", Content: Module(t, "depends=libcrc32c", "alias=fs-erofs")},
		File{Name: modules + "kernel/drivers/net/net-a.ko.xz", Content: Module(t, "depends=", "alias=pci:v00001AF4d*", "firmware=a.bin")},
		File{Name: modules + "kernel/drivers/net/unused.ko.xz", Content: Module(t, "depends=missing")},
	)
	boot := packages.Add(t, "systemd-boot-efi", "257-1",
		File{Name: "usr/lib/systemd/boot/efi/systemd-bootx64.efi", Content: "boot loader"},
		File{Name: "usr/lib/systemd/boot/efi/linuxx64.efi.stub", Content: string(Stub(1024))},
		File{Name: "usr/share/doc/systemd-boot-efi/copyright", Content: "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: LGPL-2.1-or-later\n text\n"},
	)
	libc := packages.Add(t, "libc6", "2.41-1",
		File{Name: "usr/lib64/ld-linux-x86-64.so.2", Link: "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"},
		File{Name: "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", Content: Program("")},
		File{Name: "usr/lib/x86_64-linux-gnu/libc.so.6", Content: Program("")},
		File{Name: "usr/lib/x86_64-linux-gnu/libm.so.6", Content: Program("")},
	)
	libc.Files = []string{"usr/lib64/*", "usr/lib/*/*.so.*"}
	tool := packages.Add(t, "tool", "1-1", File{Name: "bin/tool", Content: Program("/lib64/ld-linux-x86-64.so.2", "libc.so.6")})
	tool.Files = []string{"bin/tool"}
	certificates := packages.Add(t, "ca-certificates", "2025",
		File{Name: "usr/share/ca-certificates/mozilla/B.crt", Content: "B\n"},
		File{Name: "usr/share/ca-certificates/mozilla/A.crt", Content: "A"},
	)
	return &plan.Plan{
		Name: "skerry-test", Version: "1.2.3", Board: "test", Profile: "small",
		Target:      plan.Target{GOARCH: "amd64", Debian: "amd64", Triplet: "x86_64-linux-gnu"},
		SourceDate:  1764000000,
		Disk:        plan.Disk{Table: "gpt", BootBytes: 40 << 20, RootBytes: 16 << 20, MinimumDataBytes: 1 << 30},
		BootLoader:  "systemd-boot",
		CommandLine: []string{"console=ttyS0"},
		Kernel: plan.Kernel{Package: kernel.Name, Release: release, Config: []plan.Option{
			{Name: "CONFIG_EROFS_FS", Value: "m", Modules: []string{"erofs"}, Stage: "boot", Reason: "root", Origin: "kernel-config/a.config:1"},
			{Name: "CONFIG_FUSE_FS", Value: "m", Modules: []string{"fuse"}, Stage: "load", Reason: "built in", Origin: "kernel-config/a.config:2"},
			{Name: "CONFIG_NET_A", Value: "m", Modules: []string{"net_a"}, Stage: "load", Reason: "network", Origin: "kernel-config/a.config:3"},
		}},
		Packages: []plan.Package{certificates, libc, kernel, boot, tool},
		Programs: []plan.Program{
			{Name: "init", Package: "github.com/skerryos/skerry/initd/cmd/init", Path: "/usr/sbin/init", Reason: "process 1"},
			{Name: "pause", Package: "github.com/skerryos/skerry/initd/cmd/pause", Reason: "pods"},
		},
		Overlays: []string{"overlay"},
		Links: []plan.Link{
			{Path: "/bin", Target: "usr/bin", Reason: "merged"},
			{Path: "/lib64", Target: "usr/lib64", Reason: "merged"},
			{Path: "/usr/sbin/reboot", Target: "init", Reason: "people"},
		},
		Directories: []plan.Directory{{Path: "/tmp", Mode: 0o1777, Reason: "scratch"}, {Path: "/proc", Mode: 0o555, Reason: "kernel"}},
		Images: []plan.Image{
			{Reference: "skerry.internal/pause:1", Programs: []string{"pause"}, Entrypoint: []string{"/pause"}, Reason: "pods"},
			{Reference: "skerry.internal/tool:2", Packages: []string{"tool", "libc6"}, Files: []string{"bin/tool", "**/libc.so.6"}, Links: []plan.Link{{Path: "/tool", Target: "usr/bin/tool"}}, Reason: "tests"},
		},
		UserData: "#cloud-config\nhostname: a\n",
	}
}
