package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/skerryos/skerry/builder/profile"
	"github.com/skerryos/skerry/builder/vm"
	"github.com/skerryos/skerry/ci/need"
)

// piBoards are the boards with U-Boot that QEMU emulates.
var piBoards = []string{"rpi-arm64", "rpi-armv7"}

// A pi is such a board with a card, over any number of starts. There is no firmware in it: QEMU loads what the firmware would load from
// the card.
type pi struct {
	t      *testing.T
	board  string
	config vm.Config
	folder string
	*vm.VM // the present start; nil while it is off
}

// newPi makes a board with a card of the smallest image for it, switched off.
func newPi(t *testing.T, board string) *pi {
	t.Helper()
	description, err := profile.ReadBoard(filepath.Join(repository, "boards", board+".yaml"))
	must(t, err)
	architecture := map[string]string{"arm64": "arm64", "armhf": "arm"}[description.Architecture]
	program, err := vm.FindProgram(architecture)
	if err != nil {
		need.Missing(t, err.Error())
	}
	dir := filepath.Join(*build, board)
	_, _, err = skerry(t.Context(), releases("config"), "build", "base", "--board", board, "--no-remote", "--output", dir)
	must(t, err)
	image := filepath.Join(dir, "skerry-"+board+".img")
	p := &pi{t: t, board: board, folder: filepath.Join(*build, "machines", strings.ReplaceAll(t.Name(), "/", "-"))}
	must(t, os.RemoveAll(p.folder))
	must(t, os.MkdirAll(p.folder, 0o755))
	p.config = vm.Config{Architecture: architecture, Program: program, Accelerator: vm.TCG, Disk: filepath.Join(p.folder, "card.img"), Volatile: true}
	e := description.Emulator
	p.config.Board, err = vm.PrepareBoard(architecture,
		vm.Board{Machine: e.Machine, Serial: e.Serial, Loader: e.Loader, DeviceTree: e.DeviceTree, Enable: e.Enable, Disable: e.Disable}, image, p.folder)
	must(t, err)
	info, err := os.Stat(image)
	must(t, err)
	must(t, vm.CopyDisk(image, p.config.Disk, vm.CardBytes(info.Size()+1<<30)))
	t.Cleanup(func() {
		if t.Failed() && p.VM != nil {
			for _, l := range p.Console.Lines(max(0, p.Console.Next()-40)) {
				t.Logf("console %6.1fs %s", l.At.Seconds(), l.Text)
			}
		}
		p.off()
		if !t.Failed() {
			must(t, os.RemoveAll(p.folder))
			return
		}
		if line, err := p.config.Command(); err == nil {
			t.Logf("the machine is kept in %s: card.img, serial.log; to boot it again: %s", p.folder, vm.Shell(line))
		}
	})
	return p
}

// partition does something to the boot partition of the card, while the machine is off.
func (p *pi) partition(t *testing.T, do func(filesystem.FileSystem)) {
	t.Helper()
	d, err := diskfs.Open(p.config.Disk)
	must(t, err)
	defer d.Close()
	fs, err := d.GetFilesystem(1)
	must(t, err)
	do(fs)
}

func readFile(t *testing.T, fs filesystem.FileSystem, name string) []byte {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDONLY)
	must(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(t, err)
	return b
}

// on switches the machine on. Its console is appended to serial.log.
func (p *pi) on() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.folder, "serial.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(p.t, err)
	p.VM, err = vm.Start(p.t.Context(), p.config, stamped{log, time.Now()})
	must(p.t, err)
}

// off takes the power away.
func (p *pi) off() {
	if p.VM != nil {
		p.Kill()
		p.VM = nil
	}
}

// wait waits for a line from number on. Time is what it takes in software emulation, which is all that there is for these machines.
func (p *pi) wait(t *testing.T, from int, pattern string, limit time.Duration) vm.Line {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	line, err := p.Console.Wait(ctx, from, pattern)
	must(t, err)
	return line
}

// sectors reads from the card.
func (p *pi) sectors(t *testing.T, at int64, n int) []byte {
	t.Helper()
	f, err := os.Open(p.config.Disk)
	must(t, err)
	defer f.Close()
	b := make([]byte, n)
	_, err = f.ReadAt(b, at)
	must(t, err)
	return b
}

// write writes to the card.
func (p *pi) write(t *testing.T, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(p.config.Disk, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(b, at)
	must(t, errors.Join(err, f.Close()))
}
