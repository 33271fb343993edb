package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
	"github.com/skerryos/skerry/builder/vm"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// runOptions are the flags of the command run.
type runOptions struct {
	board, output    string
	diskSize, memory string
	cpus, port       int
	accelerator      string
	append           []string
	keep, direct     bool
	headless, dryRun bool
}

// runCommand boots an image in a virtual machine.
func runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run",
		Short: "Boot the image of a board in a virtual machine",
		Long: `Run boots the image that "skerry build" made in QEMU, from its disk and through UEFI as a real machine does, and connects
the terminal to its serial console. A board with U-Boot is emulated itself, if QEMU can do that: with its own processors, memory and
card reader, from U-Boot on. The Kubernetes API server and the device API are forwarded to ports of this host's loopback
address; once there is a cluster, its administrator's kubeconfig is written to run/kubeconfig in the output folder.

The machine gets a disk of its own, which is thrown away with it; with --keep it is run/BOARD/disk.img, which the next run with
--keep boots again. The fastest accelerator that really starts the image's kernel is used, software emulation otherwise.

Keys in the terminal, each after Ctrl-A:
  p  press the power button: the machine shuts down
  x  pull the plug
  r  press the reset button
  a  send Ctrl-A itself
  h  show these keys`,
		Example: `  skerry run
  skerry run --keep --disk-size 16GiB --memory 4GiB
  skerry run --dry-run
  skerry run --board rpi-arm64
  kubectl --kubeconfig out/run/kubeconfig get nodes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := repository()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("output") {
				o.output = short(filepath.Join(root, "out"))
			}
			return run(cmd, root, o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.board, "board", "b", "x86-64", "board: a name in boards/, or a file")
	f.StringVarP(&o.output, "output", "o", "", "folder of the build's outputs (default: out in the repository)")
	f.StringVar(&o.diskSize, "disk-size", "4GiB", "size of a new disk; it takes only the space that is written to")
	f.StringVar(&o.memory, "memory", "2GiB", "memory of the machine")
	f.IntVar(&o.cpus, "cpus", 2, "processors of the machine")
	f.IntVar(&o.port, "port", 6443, "port of this host for the API server; another free one if it is taken")
	f.StringVar(&o.accelerator, "accel", "auto", "accelerator: auto, kvm, hvf or tcg (software emulation)")
	f.StringArrayVar(&o.append, "append", nil, "argument to add to the kernel's command line (repeatable)")
	f.BoolVar(&o.keep, "keep", false, "keep the disk in run/BOARD/disk.img, and boot it if it is there already")
	f.BoolVar(&o.direct, "direct", false, "start the kernel directly, without firmware and boot loader")
	f.BoolVar(&o.headless, "headless", false, "do not connect the terminal; the console goes to run/serial.log, an interrupt presses the power button")
	f.BoolVar(&o.dryRun, "dry-run", false, "print QEMU's command line instead of executing it")
	return c
}

// apiServerPort is the guest's.
const apiServerPort = 6443

func run(cmd *cobra.Command, root string, o runOptions) error {
	ctx := cmd.Context()
	file, err := find(root, "boards", "board", o.board)
	if err != nil {
		return err
	}
	board, err := profile.ReadBoard(file)
	if err != nil {
		return err
	}
	folder := filepath.Join(o.output, "run")
	own := filepath.Join(folder, board.Name)
	config, err := o.machine(board, own)
	if err != nil {
		return err
	}
	if config.Accelerator == "" && config.Board == nil {
		accelerator, why := vm.FindAccelerator(ctx, config.Architecture, filepath.Join(o.boot(board), "vmlinuz"))
		config.Accelerator = accelerator
		if why != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "skerry: software emulation, which is slow: a node takes minutes to be ready (%s)\n", why)
		}
	}
	if o.dryRun {
		return printCommand(cmd, config)
	}
	if err := os.MkdirAll(own, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of the machine: %w", err)
	}
	remove, err := o.materialize(&config, board, own)
	if err != nil {
		return err
	}
	defer remove()
	return session(ctx, cmd, config, folder, o.headless)
}

// printCommand prints QEMU's command line, and apart from it, because it is for a shell, what it takes for granted.
func printCommand(cmd *cobra.Command, config vm.Config) error {
	config.Sockets = filepath.Join("/tmp", "skerry-vm")
	line, err := config.Command()
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), vm.Shell(line))
	made := []string{config.Disk}
	switch {
	case config.Board != nil:
		made = append(made, config.Board.Loader, config.Board.DeviceTree)
	case config.Kernel == nil:
		made = append(made, config.Firmware.Variables)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "skerry: what a run makes of image and firmware before, and a dry run does not: %s, and the folder %s\n",
		strings.Join(made, ", "), config.Sockets)
	fmt.Fprintf(cmd.ErrOrStderr(), "skerry: once it runs: skerry node status -n %s\n", deviceAddress(config))
	return nil
}

// machine is the configuration of the virtual machine, without an accelerator if one is to be found. It changes nothing.
func (o *runOptions) machine(board *profile.Board, folder string) (vm.Config, error) {
	c := vm.Config{CPUs: o.cpus, Arguments: o.append, Volatile: !o.keep}
	var ok bool
	if c.Architecture, ok = map[string]string{"amd64": "amd64", "arm64": "arm64", "armhf": "arm"}[board.Architecture]; !ok {
		return c, fmt.Errorf("cannot run board %s: no virtual machine is known for %s", board.Name, board.Architecture)
	}
	accelerators := map[string]vm.Accelerator{"auto": "", "kvm": vm.KVM, "hvf": vm.HVF, "tcg": vm.TCG}
	if c.Accelerator, ok = accelerators[o.accelerator]; !ok {
		return c, fmt.Errorf("unknown accelerator %q; there are: auto, kvm, hvf, tcg", o.accelerator)
	}
	if o.cpus < 1 {
		return c, fmt.Errorf("a machine cannot have %d processors: give --cpus 1 or more", o.cpus)
	}
	var memory profile.Size
	if err := memory.UnmarshalText([]byte(o.memory)); err != nil {
		return c, fmt.Errorf("cannot read --memory: %w", err)
	}
	if c.MemoryMiB = int(memory >> 20); c.MemoryMiB < 1 {
		return c, fmt.Errorf("cannot run with %s of memory", o.memory)
	}
	port, err := vm.FreePort(o.port)
	if err != nil {
		return c, err
	}
	devicePort := port
	for preferred := v1.Port; devicePort == port; preferred = 0 { // nobody listens on the other one yet
		if devicePort, err = vm.FreePort(preferred); err != nil {
			return c, err
		}
	}
	c.Forwards = []vm.Forward{{Host: port, Guest: apiServerPort}, {Host: devicePort, Guest: v1.Port}}
	if !o.keep {
		folder = filepath.Join(folder, "temporary") // a kept disk is not named, not even by a dry run
	}
	c.Disk = filepath.Join(folder, "disk.img")
	if c.Program, err = vm.FindProgram(c.Architecture); err != nil {
		return c, err
	}
	if o.direct {
		if c.Kernel, err = vm.ReadKernel(o.boot(board)); err != nil {
			return c, err
		}
		if console := "console=" + vm.SerialLine(c.Architecture); !strings.Contains(c.Kernel.CommandLine, console) {
			c.Arguments = append([]string{console}, c.Arguments...) // the board itself has another
		}
		return c, nil
	}
	if board.BootLoader == profile.UBootLoader {
		return c, o.emulate(&c, board, folder)
	}
	c.Firmware, err = vm.FindFirmware(c.Architecture)
	c.Firmware.Variables = filepath.Join(folder, "firmware-variables.fd")
	return c, err
}

// emulate makes the machine the board itself, as QEMU emulates it. The files that it is to load are named, not made.
func (o *runOptions) emulate(c *vm.Config, board *profile.Board, folder string) error {
	e := board.Emulator
	if e == nil {
		return fmt.Errorf("cannot run board %s: QEMU does not emulate it; its kernel and root file system run in a virtual machine with --direct", board.Name)
	}
	if len(o.append) > 0 {
		return fmt.Errorf("cannot run board %s with --append: its boot loader takes the kernel's command line from the image; use --direct", board.Name)
	}
	c.Accelerator = vm.TCG // the board's own processor is emulated
	c.Board = &vm.Board{
		Machine: e.Machine, Serial: e.Serial,
		Loader: filepath.Join(folder, filepath.Base(e.Loader)), DeviceTree: filepath.Join(folder, filepath.Base(e.DeviceTree)),
	}
	return nil
}

// deviceAddress is where the machine's device API is forwarded to.
func deviceAddress(c vm.Config) string { return fmt.Sprintf("127.0.0.1:%d", c.Forwards[1].Host) }

// materialize makes the files that the configuration names: the disk, the firmware's variables, the folder of the
// sockets. remove deletes those that do not outlive the machine.
func (o *runOptions) materialize(c *vm.Config, board *profile.Board, folder string) (remove func(), err error) {
	size, err := o.checkDisk(board)
	if err != nil {
		return nil, err
	}
	sockets, removeSockets, err := vm.PrepareSockets()
	if err != nil {
		return nil, err
	}
	remove = removeSockets
	c.Sockets = sockets
	if !o.keep {
		// Beside the kept disk, not in its place: a run without --keep never touches that. The folder of temporary files may be
		// in memory, so the disk does not go there.
		temporary, err := os.MkdirTemp(folder, "temporary-")
		if err != nil {
			removeSockets()
			return nil, fmt.Errorf("cannot make a folder for the disk: %w", err)
		}
		remove = func() { removeSockets(); os.RemoveAll(temporary) }
		c.Disk = filepath.Join(temporary, "disk.img")
		folder = temporary
	}
	made := remove // a return with an error says that there is nothing to remove
	defer func() {
		if err != nil {
			made()
		}
	}()
	switch {
	case c.Board != nil:
		e := board.Emulator
		from := vm.Board{Machine: e.Machine, Serial: e.Serial, Loader: e.Loader, DeviceTree: e.DeviceTree, Enable: e.Enable, Disable: e.Disable}
		if c.Board, err = vm.PrepareBoard(c.Architecture, from, o.image(board), folder); err != nil {
			return nil, err
		}
		size = vm.CardBytes(size)
	case c.Kernel == nil:
		if c.Firmware, err = vm.PrepareFirmware(c.Architecture, folder); err != nil {
			return nil, err
		}
	}
	if former := filepath.Join(o.output, "run", "disk.img"); o.keep && !exists(c.Disk) && exists(former) {
		return nil, fmt.Errorf("a disk that an earlier version kept is in %s; nothing was changed: move it, with the firmware-variables.fd beside it, to %s, or delete it",
			former, filepath.Dir(c.Disk))
	}
	if _, err := os.Stat(c.Disk); err == nil {
		return remove, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot look at the kept disk: %w", err)
	}
	return remove, vm.CopyDisk(o.image(board), c.Disk, size)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func (o *runOptions) image(board *profile.Board) string {
	return filepath.Join(o.output, "skerry-"+board.Name+".img")
}

// boot is the folder with the board's kernel.
func (o *runOptions) boot(board *profile.Board) string {
	return filepath.Join(o.output, "boot", board.Name)
}

// checkDisk returns the size of a new disk in bytes, after making sure that there is an image and that it fits.
func (o *runOptions) checkDisk(board *profile.Board) (int64, error) {
	if _, err := os.Stat(o.image(board)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("cannot run board %s: there is no %s; build it first: make image", board.Name, o.image(board))
		}
		return 0, fmt.Errorf("cannot run board %s: %w", board.Name, err)
	}
	var size profile.Size
	if err := size.UnmarshalText([]byte(o.diskSize)); err != nil {
		return 0, fmt.Errorf("cannot read --disk-size: %w", err)
	}
	layout := plan.Disk{
		BootBytes: int64(board.Disk.Boot), RootBytes: int64(board.Disk.Root), MinimumDataBytes: int64(board.Disk.MinimumData),
	}
	if least := layout.MinimumDiskBytes(); int64(size) < least {
		return 0, fmt.Errorf("a disk of %s is too small for board %s, which needs %s (%s for two systems, at least %s for data); "+
			"nothing was written; give a larger --disk-size", vm.Bytes(int64(size)), board.Name, vm.Bytes(least),
			vm.Bytes(layout.BootBytes+2*layout.RootBytes), vm.Bytes(layout.MinimumDataBytes))
	}
	return int64(size), nil
}

// session runs the machine until it is off.
func session(ctx context.Context, cmd *cobra.Command, config vm.Config, folder string, headless bool) error {
	log, err := os.Create(filepath.Join(folder, "serial.log"))
	if err != nil {
		return fmt.Errorf("cannot keep the console's log: %w", err)
	}
	defer log.Close()
	output := io.Writer(log)
	if !headless {
		output = io.MultiWriter(log, cmd.OutOrStdout())
	}
	m, err := vm.Start(ctx, config, output)
	if err != nil {
		return err
	}
	defer m.Kill()
	say := func(format string, args ...any) {
		// The terminal is in raw mode, where a line feed does not return the carriage.
		fmt.Fprintf(cmd.ErrOrStderr(), "\r\nskerry: "+format+"\r\n", args...)
	}
	if headless {
		say("the machine is on; its console is in %s; interrupt (Ctrl-C) presses its power button", log.Name())
	} else {
		restore, err := attachTerminal(m, cmd.InOrStdin(), say)
		if err != nil {
			return err
		}
		defer restore()
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	go announceReady(watch, m, filepath.Join(folder, "kubeconfig"), say)

	select {
	case <-m.Ended():
	case <-ctx.Done():
		again, stop := signal.NotifyContext(context.Background(), interrupts...)
		defer stop()
		say("pressing the power button; interrupt again to pull the plug")
		err := shutDown(again, m)
		if again.Err() != nil {
			m.Kill()
		} else if err != nil {
			return err
		}
	}
	return m.Wait(context.Background())
}

// shutDown presses the power button and waits, for as long as a busy machine may take.
func shutDown(ctx context.Context, m *vm.VM) error {
	ctx, cancel := context.WithTimeout(ctx, m.Config.Accelerator.Patience(30*time.Second))
	defer cancel()
	if err := m.PowerButton(ctx); err != nil && !errors.Is(err, vm.ErrPowerOff) {
		return err
	}
	return m.Wait(ctx)
}
