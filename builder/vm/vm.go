// Package vm runs disk images in QEMU, for `skerry run` and for the end-to-end tests.
//
// A [Config] says what the machine is like, and its Command method turns that into QEMU's command line, which depends on nothing
// else. [Start] runs it and returns a [VM]: its console delivers lines to wait for, its device is the device API of the
// guest (over a virtio-serial port, so no network of the guest is needed), and its buttons press what a person would press.
// QEMU and, for a boot from disk, a UEFI firmware must be installed: see [FindProgram] and [FindFirmware].
package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A VM is a running virtual machine. Its guest may reboot; the VM ends when the guest powers off or it is killed.
type VM struct {
	Config  Config
	Console *Console
	Device  *Device

	process *os.Process
	monitor *monitor // nil if the configuration has no sockets
	started time.Time
	ended   chan struct{}
	err     error // set before ended is closed
	killed  atomic.Bool

	mu     sync.Mutex
	events []string
}

// Start powers a machine on. raw, if not nil, receives every byte of the serial console. The machine outlives ctx, which
// only bounds the start; it does not outlive the calling process (on Linux, not even if that is killed).
func Start(ctx context.Context, config Config, raw io.Writer) (*VM, error) {
	line, err := config.Command()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.SysProcAttr = tiedToParent()
	complaints := &tail{}
	cmd.Stderr = complaints
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("cannot start a virtual machine: %w", err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("cannot start a virtual machine: %w", err)
	}
	v := &VM{Config: config, ended: make(chan struct{})}
	running := make(chan error, 1)
	go func() {
		// The kernel ties the child's life to the thread that made it, so this thread has to live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		v.started = time.Now()
		if err := cmd.Start(); err != nil {
			running <- err
			return
		}
		v.process = cmd.Process
		v.Console = newConsole(v.started, input, raw)
		running <- nil
		v.Console.pump(output)
		if err := cmd.Wait(); err != nil && !v.killed.Load() {
			v.err = fmt.Errorf("QEMU ended: %w%s", err, complaints.suffix())
		}
		close(v.ended)
	}()
	if err := <-running; err != nil {
		return nil, fmt.Errorf("cannot start a virtual machine: %w", err)
	}
	if config.Sockets == "" {
		return v, nil
	}
	v.Device = newDevice(config.deviceSocket())
	if err := v.connect(ctx); err != nil {
		_ = v.process.Kill() // fails only if it has ended
		<-v.ended
		return nil, fmt.Errorf("cannot start a virtual machine: %w; %w", err, v.err)
	}
	return v, nil
}

// connect waits for QEMU to open its control socket, which it does before the guest's first instruction.
func (v *VM) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", v.Config.monitorSocket())
		if err == nil {
			v.monitor, err = openMonitor(ctx, conn, v.event)
			return err
		}
		select {
		case <-retry.C:
		case <-v.ended:
			return errors.New("QEMU ended at once")
		case <-ctx.Done():
			return fmt.Errorf("cannot reach QEMU's monitor: %w", err)
		}
	}
}

func (v *VM) event(name string, data json.RawMessage) {
	v.mu.Lock()
	v.events = append(v.events, fmt.Sprintf("%.1f %s %s", v.Uptime().Seconds(), name, data))
	v.mu.Unlock()
	if name != "VSERPORT_CHANGE" {
		return
	}
	var port struct {
		ID   string
		Open bool
	}
	if json.Unmarshal(data, &port) == nil && port.ID == "device" {
		v.Device.setOpen(port.Open)
	}
}

// Uptime is the time since power-on.
func (v *VM) Uptime() time.Duration { return time.Since(v.started) }

// PID is QEMU's process number.
func (v *VM) PID() int { return v.process.Pid }

// Ended is closed when the machine is off.
func (v *VM) Ended() <-chan struct{} { return v.ended }

// Wait waits until the machine is off. Its error says why QEMU failed, or that the machine is still on when ctx is done;
// to be killed is not to fail.
func (v *VM) Wait(ctx context.Context) error {
	select {
	case <-v.ended:
		return v.err
	case <-ctx.Done():
		return fmt.Errorf("the machine is still on: %w", ctx.Err())
	}
}

// Kill pulls the plug: no cache of the guest is written. It returns when the machine is off.
func (v *VM) Kill() {
	v.killed.Store(true)
	_ = v.process.Kill() // fails only if it has ended
	<-v.ended
}

// PowerButton presses the power button: the guest is asked to power off (ACPI).
func (v *VM) PowerButton(ctx context.Context) error {
	_, err := v.monitor.execute(ctx, "system_powerdown", nil)
	return err
}

// CtrlAltDelete presses these keys on the keyboard: the guest is asked to reboot.
func (v *VM) CtrlAltDelete(ctx context.Context) error {
	type key struct {
		Type string `json:"type"`
		Data string `json:"data"`
	}
	_, err := v.monitor.execute(ctx, "send-key", map[string]any{"keys": []key{{"qcode", "ctrl"}, {"qcode", "alt"}, {"qcode", "delete"}}})
	return err
}

// Reset presses the reset button.
func (v *VM) Reset(ctx context.Context) error {
	_, err := v.monitor.execute(ctx, "system_reset", nil)
	return err
}

// Plug plugs a disk image into the USB controller ([Config.USB]), read-only; id names it for [VM.Unplug].
func (v *VM) Plug(ctx context.Context, id, path string) error {
	_, err := v.monitor.execute(ctx, "blockdev-add", map[string]any{
		"driver": "raw", "node-name": id, "read-only": true, "file": map[string]any{"driver": "file", "filename": path, "read-only": true},
	})
	if err != nil {
		return err
	}
	_, err = v.monitor.execute(ctx, "device_add", map[string]any{"driver": "usb-storage", "id": id, "drive": id, "bus": "usb.0", "removable": true})
	return err
}

// Unplug pulls a disk out. It is gone for the guest at once; its id can be used again when QEMU has let it go, which is after the
// guest has noticed.
func (v *VM) Unplug(ctx context.Context, id string) error {
	_, err := v.monitor.execute(ctx, "device_del", map[string]any{"id": id})
	return err
}

// Screenshot writes what the screen shows to a PNG file.
func (v *VM) Screenshot(ctx context.Context, path string) error {
	_, err := v.monitor.execute(ctx, "screendump", map[string]any{"filename": path, "format": "png"})
	return err
}

// Look says in QEMU's words what has happened to the machine, in seconds after power-on, whether it runs, and what is in its processors'
// registers: for people, when a machine no longer says so itself.
func (v *VM) Look(ctx context.Context) (string, error) {
	var all strings.Builder
	v.mu.Lock()
	for _, e := range v.events {
		fmt.Fprintln(&all, e)
	}
	v.mu.Unlock()
	for _, command := range []string{"info status", "info registers -a"} {
		answer, err := v.monitor.execute(ctx, "human-monitor-command", map[string]any{"command-line": command})
		if err != nil {
			return "", err
		}
		var text string
		if err := json.Unmarshal(answer, &text); err != nil {
			return "", fmt.Errorf("cannot read QEMU's answer to %s: %w", command, err)
		}
		all.WriteString(text)
	}
	return all.String(), nil
}

// DiskUse is what the guest has done to its disk since power-on.
type DiskUse struct {
	ReadBytes    int64 `json:"rd_bytes"`
	WrittenBytes int64 `json:"wr_bytes"`
	Writes       int64 `json:"wr_operations"`
	Flushes      int64 `json:"flush_operations"`
}

// DiskUse asks QEMU for the disk's counters.
func (v *VM) DiskUse(ctx context.Context) (DiskUse, error) {
	answer, err := v.monitor.execute(ctx, "query-blockstats", nil)
	if err != nil {
		return DiskUse{}, err
	}
	var disks []struct {
		Device string  `json:"device"`
		Stats  DiskUse `json:"stats"`
	}
	if err := json.Unmarshal(answer, &disks); err != nil {
		return DiskUse{}, fmt.Errorf("cannot read QEMU's disk counters: %w", err)
	}
	for _, d := range disks {
		if d.Device == "disk" {
			return d.Stats, nil
		}
	}
	return DiskUse{}, errors.New("cannot read QEMU's disk counters: the machine has no disk")
}

// A tail keeps the end of what is written to it, for an error message.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if excess := len(t.b) - 4096; excess > 0 {
		t.b = t.b[excess:]
	}
	return len(b), nil
}

func (t *tail) suffix() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := strings.TrimSpace(string(bytes.ToValidUTF8(t.b, nil))); s != "" {
		return ": " + s
	}
	return ""
}
