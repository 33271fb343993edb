// Package uboot makes what a board with U-Boot boots from: the boot script, which chooses a slot, the boot image of a slot with
// its start script, and the boot state of a new disk.
//
// What is done with them on the device, and why, is written in docs/boot-state.md.
package uboot

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"strings"
	"text/template"
)

// Where the two copies of the state lie, in sectors of 512 bytes, and what is in them. initd/slot owns this format.
const (
	firstCopy  = 16
	secondCopy = 17
	keys       = "ab_seq ab_cur ab_count ab_dir_a ab_dir_b ab_tries_a ab_tries_b ab_done_a ab_done_b"
	// lastResort are the folders that slots have on the boot partition.
	lastResort = "a-0 a-1 b-0 b-1"
	// factoryFolder is the one of slot a on a new disk.
	factoryFolder = "a-0"
	startScript   = StartScriptName
)

// StartScriptName is the name of the start script among a slot's files.
const StartScriptName = "start.scr"

// A Chooser is what the boot script must know of a board: addresses in memory, in bytes. U-Boot clears 16 KiB at State0 when it
// writes the state.
type Chooser struct {
	State0, State1, Script uint64
}

// A Starter is what a start script must know of a board and of a version.
type Starter struct {
	// Command starts the kernel: booti on 64-bit boards, bootz on 32-bit ones.
	Command string
	// Addresses in memory, in bytes. U-Boot unpacks a compressed kernel of at most UnpackedSize bytes to Unpacked; 0 stands for
	// one that it takes as it is.
	Kernel, DeviceTree, Overlay, Initramfs, Unpacked, UnpackedSize uint64
	DeviceTrees                                                    []DeviceTree
	// Overlays are files of the boot image that are applied to the device tree, in this order.
	Overlays []string
	// Arguments are the kernel's, without those that name the slot and the boot partition.
	Arguments string
}

// A DeviceTree is a file of the boot image, and the name by which U-Boot knows the board that it is for: its variable fdtfile.
type DeviceTree struct{ Board, File string }

var (
	//go:embed boot.cmd
	bootCommands string
	//go:embed start.cmd
	startCommands string

	functions  = template.FuncMap{"hex": func(n uint64) string { return fmt.Sprintf("%#x", n) }}
	bootText   = template.Must(template.New("boot.cmd").Funcs(functions).Parse(bootCommands))
	startText  = template.Must(template.New("start.cmd").Funcs(functions).Parse(startCommands))
	plainText  = regexp.MustCompile(`^[A-Za-z0-9 ._,:=/@+-]*$`)
	plainFile  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	plainBoard = regexp.MustCompile(`^[A-Za-z0-9._/-]+$`)
)

// BootScript makes boot.scr.
func BootScript(c Chooser) ([]byte, error) {
	if c.State0 == 0 || c.State1 < c.State0+envSize || c.Script < c.State1+sectorSize {
		return nil, fmt.Errorf("cannot make the boot script: the state's copies at %#x and %#x and the start script at %#x overlap, or are not in this order", c.State0, c.State1, c.Script)
	}
	var b bytes.Buffer
	err := bootText.Execute(&b, struct {
		Chooser
		FirstCopy, SecondCopy uint64
		Keys, LastResort      string
	}{c, firstCopy, secondCopy, keys, lastResort})
	if err != nil {
		return nil, fmt.Errorf("cannot make the boot script: %w", err)
	}
	return Image("Skerry: choose a slot", b.Bytes())
}

const (
	// envSize is what U-Boot clears before it writes a state to memory (CONFIG_ENV_SIZE).
	envSize    = 16 << 10
	sectorSize = 512
)

// StartScript makes start.scr.
func StartScript(s Starter) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("cannot make the start script: %w", err)
	}
	var b bytes.Buffer
	if err := startText.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("cannot make the start script: %w", err)
	}
	return Image("Skerry: start a slot", b.Bytes())
}

// check refuses what U-Boot's shell would take for its own.
func (s Starter) check() error {
	if s.Command != "booti" && s.Command != "bootz" {
		return fmt.Errorf("the kernel is started by booti or bootz, not by %q", s.Command)
	}
	if len(s.DeviceTrees) == 0 {
		return errors.New("there is no device tree")
	}
	if !plainText.MatchString(s.Arguments) {
		return fmt.Errorf("kernel arguments %q have a character that U-Boot's shell does not leave alone", s.Arguments)
	}
	for _, d := range s.DeviceTrees {
		if !plainBoard.MatchString(d.Board) || !plainFile.MatchString(d.File) {
			return fmt.Errorf("device tree %q for board %q is not a plain name for a plain name", d.File, d.Board)
		}
	}
	for _, o := range s.Overlays {
		if !plainFile.MatchString(o) {
			return fmt.Errorf("overlay %q is not a plain name", o)
		}
	}
	if len(s.Overlays) > 0 && s.Overlay == 0 {
		return errors.New("there is no address for overlays")
	}
	return nil
}

// Header of a legacy image (include/image.h of U-Boot), as `mkimage -A arm -O linux -T script -C none` makes it.
const (
	headerSize    = 64
	imageMagic    = 0x27051956
	nameSize      = 32
	systemLinux   = 5
	processorARM  = 2 // U-Boot does not look at a script's
	typeScript    = 6
	noCompression = 0
)

// Image makes a script image of commands. Its time is 0, so that it is the same at every build.
func Image(name string, commands []byte) ([]byte, error) {
	if len(name) > nameSize || strings.ContainsRune(name, 0) {
		return nil, fmt.Errorf("cannot name a script image %q: a name has at most %d bytes", name, nameSize)
	}
	be := binary.BigEndian
	// A script image is one of several parts, of which there is one: a list of sizes that ends with 0 comes first.
	data := be.AppendUint32(nil, uint32(len(commands)))
	data = be.AppendUint32(data, 0)
	data = append(data, commands...)
	h := make([]byte, headerSize, headerSize+len(data))
	be.PutUint32(h[0:], imageMagic)
	be.PutUint32(h[12:], uint32(len(data)))
	be.PutUint32(h[24:], crc32.ChecksumIEEE(data))
	h[28], h[29], h[30], h[31] = systemLinux, processorARM, typeScript, noCompression
	copy(h[32:], name)
	be.PutUint32(h[4:], crc32.ChecksumIEEE(h)) // of the header, with 0 in this place
	return append(h, data...), nil
}
