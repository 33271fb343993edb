package uboot

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; when that is meant: go test ./builder/image/uboot -update\ngot:\n%s", file, got)
	}
}

func TestScripts(t *testing.T) {
	boot, start := scripts(t)
	overlays := pi3Starter
	overlays.Command, overlays.Unpacked, overlays.Overlay = "bootz", 0, 0x6180000
	overlays.Overlays = []string{"disable-bt.dtbo", "uart0.dtbo"}
	other, err := StartScript(overlays)
	if err != nil {
		t.Fatal(err)
	}
	for name, image := range map[string][]byte{"boot": boot, "start": start, "start-overlays": other} {
		golden(t, name+".cmd", string(image[headerSize+8:]))
		if _, err := parse(string(image[headerSize+8:])); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestImage holds the header against the bytes that mkimage makes, apart from the time.
func TestImage(t *testing.T) {
	image, err := Image("test", []byte("echo hello\n"))
	if err != nil {
		t.Fatal(err)
	}
	var dump strings.Builder
	for i := 0; i < len(image); i += 16 {
		fmt.Fprintf(&dump, "%04x  % x\n", i, image[i:min(i+16, len(image))])
	}
	golden(t, "image.txt", dump.String())
	if _, err := Image(strings.Repeat("x", 33), nil); err == nil {
		t.Error("a name of 33 bytes is taken")
	}
}

// TestDumpimage asks U-Boot's own tool about our images.
func TestDumpimage(t *testing.T) {
	tool, err := exec.LookPath("dumpimage")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("dumpimage is not installed: run ci/setup")
		}
		t.Skip("dumpimage is not installed: run ci/setup")
	}
	boot, start := scripts(t)
	for name, image := range map[string][]byte{"boot": boot, "start": start} {
		file := filepath.Join(t.TempDir(), name+".scr")
		if err := os.WriteFile(file, image, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, "-l", file)
		cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		golden(t, name+".dumpimage", string(out))
		// It shows images with wrong checksums as no images at all.
		image = bytes.Clone(image)
		image[40] ^= 1
		if err := os.WriteFile(file, image, 0o644); err != nil {
			t.Fatal(err)
		}
		if out, _ := exec.Command(tool, "-l", file).CombinedOutput(); strings.Contains(string(out), "Script") {
			t.Errorf("a damaged header is taken: %s", out)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Starter)
		want   string
	}{
		{"command", func(s *Starter) { s.Command = "go" }, `not by "go"`},
		{"no device tree", func(s *Starter) { s.DeviceTrees = nil }, "there is no device tree"},
		{"board", func(s *Starter) { s.DeviceTrees = []DeviceTree{{"x; reset", "x.dtb"}} }, "is not a plain name for a plain name"},
		{"file", func(s *Starter) { s.DeviceTrees = []DeviceTree{{"x", "../x.dtb"}} }, "is not a plain name for a plain name"},
		{"arguments", func(s *Starter) { s.Arguments = `quiet" ; reset` }, "have a character that U-Boot's shell does not leave alone"},
		{"a variable in arguments", func(s *Starter) { s.Arguments = "x=${y}" }, "have a character"},
		{"overlay", func(s *Starter) { s.Overlays, s.Overlay = []string{"X.DTBO"}, 1 }, `overlay "X.DTBO" is not a plain name`},
		{"address of overlays", func(s *Starter) { s.Overlays = []string{"x.dtbo"} }, "there is no address for overlays"},
	} {
		s := pi3Starter
		c.change(&s)
		if _, err := StartScript(s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, c := range []Chooser{{}, {0x1000, 0x2000, 0x9000}, {0x10000, 0x20000, 0x20100}} {
		if _, err := BootScript(c); err == nil || !strings.Contains(err.Error(), "overlap") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// install lets the device install a boot image that the builder has made, in slot b.
func install(m *slottest.UBoot, t *testing.T) error {
	t.Helper()
	files := func() map[string]File {
		return map[string]File{"kernel": {6, strings.NewReader("kernel")}, "initramfs": {9, strings.NewReader("initramfs")}, "board.dtb": {4, strings.NewReader("tree")}}
	}
	var image, again bytes.Buffer
	if err := BootImage(&image, files(), []byte("start")); err != nil {
		return err
	}
	if err := BootImage(&again, files(), []byte("start")); err != nil || !bytes.Equal(image.Bytes(), again.Bytes()) {
		t.Errorf("the same files make another boot image: %v", err)
	}
	if err := m.MarkGood(slot.A); err != nil {
		return err
	}
	if err := m.UBoot.Install(slot.B, &image, int64(image.Len()), 3); err != nil {
		return err
	}
	if got, err := m.Boot(); err != nil || string(got) != "kerneltreeinitramfs" {
		t.Errorf("it starts %q, %v", got, err)
	}
	return nil
}

func TestBootImageRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		file File
		want string
	}{
		{"kernel", File{7, strings.NewReader("kernel")}, "file kernel has 6 bytes instead of 7"},
		{"Kernel", File{6, strings.NewReader("kernel")}, `file "Kernel" of 6 bytes has no plain name, or no content`},
		{"kernel", File{}, `file "kernel" of 0 bytes`},
		{"start.scr", File{1, strings.NewReader("x")}, "the name start.scr is that of the start script"},
	} {
		if err := BootImage(&bytes.Buffer{}, map[string]File{c.name: c.file}, []byte("start")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
