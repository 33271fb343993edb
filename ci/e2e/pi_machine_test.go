package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/skerryos/skerry/builder/vm"
	"github.com/skerryos/skerry/ci/need"
)

// piCard is the size of a card: QEMU wants a power of two.
const piCard = 4 << 30

// A pi is a Raspberry Pi 3 with a card, over any number of starts. QEMU knows no other Raspberry Pi that Debian's U-Boot and
// kernel both run on. There is no firmware in it: QEMU loads what the card's own boot partition has as U-Boot and device tree, unchanged.
type pi struct {
	t    *testing.T
	card string
	// program and tree are U-Boot and the device tree of the card.
	program, tree string
	folder        string

	process *exec.Cmd
	mu      sync.Mutex
	lines   []string
	changed chan struct{}
	ended   chan struct{}
}

// piImage is the image of the smallest profile for the board, built once.
var piImage = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(*build, "rpi-arm64")
	_, _, err := skerry(contextWithoutTest, releases("config"), "build", "base", "--board", "rpi-arm64", "--no-remote", "--output", dir)
	return filepath.Join(dir, "skerry-rpi-arm64.img"), err
})

// newPi makes a Raspberry Pi with a card of the image, switched off.
func newPi(t *testing.T) *pi {
	t.Helper()
	need.Tool(t, "qemu-system-aarch64")
	image, err := piImage()
	must(t, err)
	p := &pi{t: t, folder: filepath.Join(*build, "machines", strings.ReplaceAll(t.Name(), "/", "-"))}
	must(t, os.RemoveAll(p.folder))
	must(t, os.MkdirAll(p.folder, 0o755))
	p.card, p.program, p.tree = filepath.Join(p.folder, "card.img"), filepath.Join(p.folder, "u-boot.bin"), filepath.Join(p.folder, "board.dtb")
	must(t, vm.CopyDisk(image, p.card, piCard))
	p.boot(t, func(fs filesystem.FileSystem) {
		must(t, os.WriteFile(p.program, readFile(t, fs, "u-boot.bin"), 0o644))
		must(t, os.WriteFile(p.tree, readFile(t, fs, "bcm2837-rpi-3-b.dtb"), 0o644))
	})
	t.Cleanup(func() {
		p.off()
		if !t.Failed() {
			must(t, os.RemoveAll(p.folder))
			return
		}
		lines := p.said(0)
		for _, l := range lines[max(0, len(lines)-40):] {
			t.Logf("console %s", l)
		}
		t.Logf("the machine is kept in %s: card.img, serial.log; its last start was: %s", p.folder, vm.Shell(p.command()))
	})
	return p
}

// boot does something to the boot partition of the card, while the machine is off.
func (p *pi) boot(t *testing.T, do func(filesystem.FileSystem)) {
	t.Helper()
	d, err := diskfs.Open(p.card)
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

// command is QEMU's. The first serial line is the one of the processor's better port, where nobody speaks.
func (p *pi) command() []string {
	return []string{"qemu-system-aarch64", "-name", "skerry-pi", "-nodefaults", "-M", "raspi3b", "-accel", "tcg,thread=multi",
		"-kernel", p.program, "-dtb", p.tree, "-drive", "if=sd,format=raw,cache=unsafe,file=" + p.card,
		"-display", "none", "-monitor", "none", "-serial", "null", "-serial", "stdio"}
}

// on switches the machine on. Its console is appended to serial.log.
func (p *pi) on() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.folder, "serial.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(p.t, err)
	line := p.command()
	cmd := exec.Command(line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	must(p.t, err)
	cmd.Stderr = log
	p.mu.Lock()
	p.process, p.lines, p.changed, p.ended = cmd, nil, make(chan struct{}), make(chan struct{})
	p.mu.Unlock()
	must(p.t, cmd.Start())
	go p.read(io.TeeReader(out, log), log)
}

func (p *pi) read(out io.Reader, log io.Closer) {
	defer close(p.ended)
	defer log.Close()
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, strings.TrimRight(scanner.Text(), "\r"))
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// off takes the power away.
func (p *pi) off() {
	if p.process == nil {
		return
	}
	_ = p.process.Process.Kill() // fails only if it has ended
	<-p.ended
	_ = p.process.Wait()
	p.process = nil
}

// said are the lines of the console since the machine was switched on, from one on.
func (p *pi) said(from int) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines[min(from, len(p.lines)):]...)
}

// wait waits for a line, and returns its submatches and the number of the line behind it. Time is what it takes in software
// emulation, which is all that there is for this machine.
func (p *pi) wait(t *testing.T, from int, pattern string, limit time.Duration) (groups []string, next int) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	over := time.After(limit)
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		for i, l := range p.said(from) {
			if m := re.FindStringSubmatch(l); m != nil {
				return m, from + i + 1
			}
		}
		select {
		case <-changed:
		case <-p.ended:
			t.Fatalf("QEMU ended while waiting for %q", pattern)
		case <-over:
			t.Fatal(fmt.Errorf("the console has not said %q in %v", pattern, limit))
		}
	}
}

// sectors reads the sectors of the card in which the boot state is.
func (p *pi) sectors(t *testing.T, at int64, n int) []byte {
	t.Helper()
	f, err := os.Open(p.card)
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
	f, err := os.OpenFile(p.card, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(b, at)
	must(t, errors.Join(err, f.Close()))
}
