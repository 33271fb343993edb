package vm

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// A machine is what one architecture's virtual machine has of its own on QEMU's command line. Everything that is not
// here is the same on all of them.
type machine struct {
	// program is the emulator's name, without a folder.
	program string
	// qemuArch is the architecture in QEMU's own words, as in its firmware descriptors.
	qemuArch string
	// typ is the argument of -machine; firmwareMachine is how firmware descriptors write it.
	typ, firmwareMachine string
	// emulated and native are the arguments of -cpu without and with the workstation's own processor.
	emulated, native string
	// console is the serial line in the words of the guest's kernel.
	console string
	// screen are the arguments for a screen, which nobody looks at unless for a screenshot.
	screen []string
	// extra are further arguments, each with the reason beside it.
	extra []string
}

// machines has the architectures that images can be booted for, by GOARCH.
var machines = map[string]machine{
	"amd64": {
		program:         "qemu-system-x86_64",
		qemuArch:        "x86_64",
		typ:             "q35",
		firmwareMachine: "pc-q35-*",
		// The kernel takes these two for "copying byte by byte is the fastest", which in software emulation is the slowest.
		emulated: "max,erms=off,fsrm=off",
		native:   "host",
		console:  "ttyS0",
		screen:   []string{"-vga", "std"},
		// q35 has the chip set's own watchdog, wired so that it does nothing; let it reset the machine, as on a board.
		extra: []string{"-global", "ICH9-LPC.noreboot=off"},
	},
	"arm64": {
		program:         "qemu-system-aarch64",
		qemuArch:        "aarch64",
		typ:             "virt",
		firmwareMachine: "virt-*",
		// Software emulation of later processors spends most of its time on signing pointers.
		emulated: "cortex-a72",
		native:   "host",
		console:  "ttyAMA0",
		screen:   []string{"-device", "virtio-gpu-pci"},
		// The machine has no watchdog of its own.
		extra: []string{"-device", "i6300esb"},
	},
	"arm": {
		program:         "qemu-system-arm",
		qemuArch:        "arm",
		typ:             "virt,highmem=off", // devices within reach of a kernel without LPAE
		firmwareMachine: "virt-*",
		emulated:        "cortex-a15",
		native:          "host",
		console:         "ttyAMA0",
		screen:          []string{"-device", "virtio-gpu-pci"},
	},
}

// SerialLine is what an architecture's virtual machine calls its serial line.
func SerialLine(architecture string) string { return machines[architecture].console }

// A Forward makes a TCP port of the guest reachable on the workstation's loopback address. The other way round needs none: services
// of that address are at [Host] for the guest.
type Forward struct {
	Host, Guest int
	// Address of the guest on its network; empty for the machine that asks first for one.
	Address string
}

// Host is where the guest finds the workstation.
const Host = "10.0.2.2"

// A Kernel is booted directly, without firmware and boot loader: for benchmarks, and for the probe of accelerators.
type Kernel struct {
	// Image and Initrd are files; Initrd may be empty.
	Image, Initrd string
	CommandLine   string
}

// A Board is a real board that QEMU emulates, with its processors and its memory. Of its firmware QEMU has only the end: it loads what
// the firmware would load from the card.
type Board struct {
	// Machine is the argument of -machine.
	Machine string
	// Loader and DeviceTree are files.
	Loader, DeviceTree string
	// Serial is the number of the serial line that is the console, from 0.
	Serial int
	// Enable and Disable are nodes of the device tree, by path, that differ in QEMU from the board: what the loader finds there.
	Enable, Disable []string
}

// A Config describes one virtual machine. [Config.Command] turns it into QEMU's command line.
type Config struct {
	// Architecture is the guest's, in Go's words (GOARCH).
	Architecture string
	// Program is the emulator; empty means the architecture's usual one, found on PATH.
	Program     string
	Accelerator Accelerator
	MemoryMiB   int
	CPUs        int
	// Disk is a raw disk image, which the guest writes to; empty means no disk.
	Disk string
	// Volatile says that nobody needs the disk after a crash of the *workstation*: the guest's flushes then end in the
	// workstation's page cache. A guest that dies, or a QEMU that is killed, loses exactly as much as without it.
	Volatile bool
	// Firmware is the UEFI firmware, with a copy of the variables that belongs to this machine; unused with Kernel.
	Firmware Firmware
	// Kernel, if set, is booted directly.
	Kernel *Kernel
	// Board, if set, is emulated instead of the architecture's usual machine.
	Board *Board
	// Arguments are added to the kernel's command line.
	Arguments []string
	Forwards  []Forward
	// Number, from 0, tells machines on one network apart: their hardware addresses differ by it.
	Number int
	// Port, if set, is that of a [Switch] which the machine is plugged into, instead of having a network of its own.
	Port Port
	// Router, if set, is another port of the switch. There this machine's emulator plugs in the router to the workstation, with the Forwards for
	// all machines: one has to. It goes and comes with the machine.
	Router Port
	// USB adds a USB controller, which disks can be plugged into: [VM.Plug].
	USB bool
	// Sockets is the folder of the control sockets. Its path must be short: the operating system allows about 100 bytes
	// for a socket's path.
	Sockets string
}

func (c Config) monitorSocket() string { return filepath.Join(c.Sockets, "monitor") }
func (c Config) deviceSocket() string  { return filepath.Join(c.Sockets, "device") }

// Command is QEMU's command line for the machine, the program first. It depends on nothing but the configuration.
func (c Config) Command() ([]string, error) {
	m, ok := machines[c.Architecture]
	if !ok {
		return nil, fmt.Errorf("cannot start a virtual machine: no machine is known for architecture %q", c.Architecture)
	}
	program := c.Program
	if program == "" {
		program = m.program
	}
	if c.Port != "" && c.Router == "" && len(c.Forwards) > 0 {
		return nil, errors.New("cannot start a virtual machine: without the router of its network it cannot forward ports")
	}
	if c.Board != nil {
		return c.boardCommand(program), nil
	}
	cpu := m.emulated
	if c.Accelerator.native() {
		cpu = m.native
	}
	args := []string{program,
		"-name", "skerry", "-nodefaults", "-no-user-config",
		"-machine", m.typ, "-accel", string(c.Accelerator), "-cpu", cpu,
		"-smp", strconv.Itoa(c.CPUs), "-m", strconv.Itoa(c.MemoryMiB),
		"-display", "none",
	}
	args = append(append(args, m.screen...), m.extra...)
	// The serial line is QEMU's own standard input and output: no byte is lost before somebody connects.
	args = append(args, "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	if c.Kernel != nil {
		args = append(args, c.directBoot()...)
	} else {
		args = append(args, c.firmwareBoot()...)
	}
	if c.Disk != "" {
		args = append(args,
			"-drive", "if=none,id=disk,format=raw,discard=unmap,detect-zeroes=unmap,cache="+c.cache()+",file="+escape(c.Disk),
			"-device", "virtio-blk-pci,drive=disk"+c.bootIndex())
	}
	if c.USB {
		args = append(args, "-device", "qemu-xhci,id=usb")
	}
	args = append(args, c.network()...)
	// No option ROM: the firmware has its own driver, and a network boot would only delay the one from disk.
	args = append(args, "-device", "virtio-net-pci,netdev=net,romfile="+c.hardwareAddress(), "-device", "virtio-rng-pci")
	if c.Sockets != "" {
		args = append(args,
			"-qmp", "unix:"+escape(c.monitorSocket())+",server=on,wait=off",
			"-device", "virtio-serial-pci",
			"-chardev", "socket,id=device,server=on,wait=off,path="+escape(c.deviceSocket()),
			"-device", "virtserialport,id=device,chardev=device,name="+v1.HostPort)
	}
	return args, nil
}

// boardCommand is the command line for a real board. It has no virtio, so no port of the device API; its network is on USB.
func (c Config) boardCommand(program string) []string {
	args := []string{program,
		"-name", "skerry", "-nodefaults", "-no-user-config",
		"-machine", c.Board.Machine, "-accel", string(c.Accelerator), "-display", "none",
		"-chardev", "stdio,id=console,signal=off",
	}
	for range c.Board.Serial {
		args = append(args, "-serial", "null")
	}
	args = append(args, "-serial", "chardev:console",
		"-kernel", c.Board.Loader, "-dtb", c.Board.DeviceTree,
		"-drive", "if=sd,format=raw,cache="+c.cache()+",file="+escape(c.Disk))
	args = append(args, c.network()...)
	args = append(args, "-device", "usb-net,netdev=net"+c.hardwareAddress())
	if c.Sockets != "" {
		args = append(args, "-qmp", "unix:"+escape(c.monitorSocket())+",server=on,wait=off")
	}
	return args
}

func (c Config) cache() string {
	if c.Volatile {
		return "unsafe"
	}
	return "writeback"
}

// network is what the network device "net" is connected with: QEMU's router to the workstation, or a port of a switch.
func (c Config) network() []string {
	id, args := "net", []string(nil)
	if c.Port != "" {
		args = append(args, "-netdev", c.Port.wire(id))
		if c.Router == "" {
			return args
		}
		id = "router"
	}
	user := []string{"user", "id=" + id}
	for _, f := range c.Forwards {
		user = append(user, fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-%s:%d", f.Host, f.Address, f.Guest))
	}
	args = append(args, "-netdev", strings.Join(user, ","))
	if c.Port == "" {
		return args
	}
	return append(args, "-netdev", c.Router.wire("wire"), // a hub has room for both ends
		"-netdev", "hubport,id=hub-router,hubid=0,netdev=router", "-netdev", "hubport,id=hub-wire,hubid=0,netdev=wire")
}

// hardwareAddress is QEMU's own address of a first network device, and those that follow it.
func (c Config) hardwareAddress() string {
	if c.Number == 0 {
		return ""
	}
	return fmt.Sprintf(",mac=52:54:00:12:%02x:%02x", 0x34+((0x56+c.Number)>>8), (0x56+c.Number)&0xff)
}

// bootIndex makes the firmware try the disk first. A kernel that is started directly has the first place itself.
func (c Config) bootIndex() string {
	if c.Kernel != nil {
		return ""
	}
	return ",bootindex=0"
}

func (c Config) directBoot() []string {
	args := []string{"-kernel", c.Kernel.Image}
	if c.Kernel.Initrd != "" {
		args = append(args, "-initrd", c.Kernel.Initrd)
	}
	line := slices.DeleteFunc(append([]string{c.Kernel.CommandLine}, c.Arguments...), func(s string) bool { return s == "" })
	return append(args, "-append", strings.Join(line, " "))
}

func (c Config) firmwareBoot() []string {
	args := []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=" + escape(c.Firmware.Code),
		"-drive", "if=pflash,format=raw,file=" + escape(c.Firmware.Variables),
	}
	if len(c.Arguments) > 0 {
		// The UKI's stub appends this SMBIOS type 11 string to the kernel's command line (systemd-stub(7)), so that the image's
		// bytes stay as they are.
		args = append(args, "-smbios",
			"type=11,value=io.systemd.stub.kernel-cmdline-extra="+escape(strings.Join(c.Arguments, " ")))
	}
	return args
}

// escape doubles commas, which otherwise end a value in QEMU's option syntax.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// Shell writes a command line so that a shell reads the same words.
func Shell(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@%", r)
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words[i] = a
	}
	return strings.Join(words, " ")
}

// FreePort returns a TCP port of the loopback address that nobody listens on: preferred if it is free (0: no
// preference), or another. Somebody else may take it before QEMU does; QEMU then refuses to start and says so.
func FreePort(preferred int) (int, error) {
	for _, port := range []int{preferred, 0} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	return 0, fmt.Errorf("cannot find a free TCP port on 127.0.0.1 (on %s)", runtime.GOOS)
}
