package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/vm"
	"github.com/skerryos/skerry/ci/need"
)

var contextWithoutTest = context.Background()

// imageName is the disk image in the build folder.
const imageName = "skerry-x86-64.img"

// bootLoader is what the firmware says when it starts the boot loader: once for each boot.
const bootLoader = `BdsDxe: starting Boot`

// A node is a machine of a test, over any number of starts.
type node struct {
	*vm.VM // the present start
	t      *testing.T
	config vm.Config
	// folder has the disk and the logs; it goes when the test has passed.
	folder string
}

// newNode makes a machine of the image in the build folder, with a disk of its own, and switches it on. change may alter the
// configuration first.
func newNode(t *testing.T, diskBytes int64, change func(*vm.Config)) *node {
	t.Helper()
	return newNodeOf(t, filepath.Join(*build, imageName), diskBytes, change)
}

// newNodeOf is newNode for any image.
func newNodeOf(t *testing.T, image string, diskBytes int64, change func(*vm.Config)) *node {
	t.Helper()
	return newNodeIn(t, strings.ReplaceAll(t.Name(), "/", "-"), image, diskBytes, change)
}

// newNodeIn is newNodeOf for a test with several machines: each has a folder of its own, which is named here.
func newNodeIn(t *testing.T, folder, image string, diskBytes int64, change func(*vm.Config)) *node {
	t.Helper()
	n := &node{t: t, folder: filepath.Join(*build, "machines", folder)}
	if err := os.RemoveAll(n.folder); err != nil { // of an earlier failure
		t.Fatal(err)
	}
	if err := os.MkdirAll(n.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	n.config = vm.Config{
		Architecture: "amd64", Accelerator: accelerator, MemoryMiB: *memory, CPUs: 2,
		Disk: filepath.Join(n.folder, "disk.img"), Volatile: true,
	}
	must(t, vm.CopyDisk(image, n.config.Disk, diskBytes))
	port, err := vm.FreePort(0)
	must(t, err)
	n.config.Forwards = []vm.Forward{{Host: port, Guest: 6443}}
	if change != nil {
		change(&n.config)
	}
	if _, err := vm.FindProgram(n.config.Architecture); err != nil {
		need.Missing(t, err.Error())
	}
	if n.config.Kernel == nil {
		if n.config.Firmware, err = vm.PrepareFirmware(n.config.Architecture, n.folder); err != nil {
			need.Missing(t, err.Error())
		}
	}
	sockets, remove, err := vm.PrepareSockets()
	must(t, err)
	n.config.Sockets = sockets
	t.Cleanup(func() {
		if t.Failed() {
			n.keepSight()
		}
		n.Kill()
		remove()
		n.keepOrRemove()
	})
	n.start()
	return n
}

// start switches the machine on, which must be off. The console is appended to serial.log.
func (n *node) start() {
	n.t.Helper()
	log, err := os.OpenFile(filepath.Join(n.folder, "serial.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(n.t, err)
	n.VM, err = vm.Start(n.t.Context(), n.config, stamped{log, time.Now()})
	must(n.t, err)
}

// A stamped writer puts the time since power-on before each chunk that begins a line, roughly: it is for people.
type stamped struct {
	out  io.Writer
	from time.Time
}

func (s stamped) Write(b []byte) (int, error) {
	stamp := fmt.Sprintf("\n{%.1f} ", time.Since(s.from).Seconds())
	_, err := io.WriteString(s.out, strings.ReplaceAll(string(b), "\n", stamp))
	return len(b), err
}

// keepOrRemove runs after the test. A failed machine stays, with how to boot it.
func (n *node) keepOrRemove() {
	if !n.t.Failed() {
		must(n.t, os.RemoveAll(n.folder))
		return
	}
	again := n.config
	again.Sockets = ""
	if line, err := again.Command(); err == nil {
		script := "#!/bin/sh\n# Boots the machine of the failed test again; its console is this terminal.\nexec " + vm.Shell(line) + "\n"
		must(n.t, os.WriteFile(filepath.Join(n.folder, "boot-again"), []byte(script), 0o755))
	}
	lines := n.Console.Lines(max(0, n.Console.Next()-30))
	for _, l := range lines {
		n.t.Logf("console %6.1fs %s", l.At.Seconds(), l.Text)
	}
	n.t.Logf("the machine is kept in %s: disk.img, serial.log, boot-again, and of one that was on also registers, screen.png", n.folder)
}

// seenWorthTelling are lines of what is seen of a machine that are worth to stand in the test's output, too: events that are not everyday ones, and
// whether it runs.
var seenWorthTelling = regexp.MustCompile(`^[0-9.]+ (RESET|STOP|WATCHDOG|GUEST_PANICKED|BLOCK_IO_ERROR) |^VM status|^CPU#|HLT=`)

// keepSight saves what is seen of a machine from outside, when a test has failed while it is on: it may have stopped to speak.
func (n *node) keepSight() {
	ctx, cancel := context.WithTimeout(contextWithoutTest, 20*time.Second)
	defer cancel()
	seen, err := n.Look(ctx)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.folder, "registers"), []byte(seen), 0o644)
	}
	if err = errors.Join(err, n.Screenshot(ctx, filepath.Join(n.folder, "screen.png"))); err != nil {
		n.t.Logf("the machine cannot be looked at: %v", err)
		return
	}
	for _, line := range strings.Split(seen, "\n") {
		if seenWorthTelling.MatchString(line) {
			n.t.Log(strings.TrimSpace(line))
		}
	}
}

// keepState saves what the device says of itself, when a test has failed while the machine is on.
func (n *node) keepState() {
	ctx, cancel := context.WithTimeout(contextWithoutTest, 20*time.Second)
	defer cancel()
	state, err := n.Device.Status(ctx)
	if err != nil {
		n.t.Logf("no state: %v", err)
		return
	}
	b, _ := json.MarshalIndent(state, "", "  ")
	n.t.Logf("state: %s", b)
	for _, s := range state.Services {
		if text, err := n.Device.Log(ctx, s.Name); err == nil {
			must(n.t, os.WriteFile(filepath.Join(n.folder, s.Name+".log"), []byte(text), 0o644))
		}
	}
}

// limit is what d on hardware is for the machines of a test: those of other architectures are emulated everywhere.
func limit(t *testing.T, d time.Duration) time.Duration {
	if strings.HasPrefix(t.Name(), "TestForeignNode/") {
		return vm.TCG.Patience(d)
	}
	return accelerator.Patience(d)
}

// patience returns a context that ends after what d on hardware is for the machines of the test.
func patience(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit(t, d))
	t.Cleanup(cancel)
	return ctx
}

// waitReady waits until the device calls itself ready.
func (n *node) waitReady(t *testing.T) {
	t.Helper()
	if _, err := n.Device.WaitReady(patience(t, time.Minute)); err != nil {
		n.keepState()
		t.Fatal(err)
	}
}

// waitConsole waits for a line from number on, for d on hardware.
func (n *node) waitConsole(t *testing.T, from int, pattern string, d time.Duration) vm.Line {
	t.Helper()
	line, err := n.Console.Wait(patience(t, d), from, pattern)
	must(t, err)
	return line
}

// boots is how often the boot loader was started since power-on.
func (n *node) boots() int {
	count := 0
	for _, l := range n.Console.Lines(0) {
		if strings.Contains(l.Text, "BdsDxe: starting Boot") {
			count++
		}
	}
	return count
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks again and again until check returns nil or d on hardware has passed.
func eventually(t *testing.T, d time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx := patience(t, d)
	again := time.NewTicker(time.Second)
	defer again.Stop()
	var last error // that was not cut off by the deadline
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, last)
		}
	}
}
