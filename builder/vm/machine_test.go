package vm

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files of this package")

// The command lines are held whole against files: what QEMU is told is the interface here.
func TestCommandLines(t *testing.T) {
	firmware := Firmware{Code: "/firmware/code.fd", Variables: "/run/vars.fd"}
	tests := []struct {
		name   string
		config Config
	}{
		{"disk", Config{
			Architecture: "amd64", Accelerator: TCG, MemoryMiB: 2048, CPUs: 2, Firmware: firmware,
			Disk: "/run/disk.img", Sockets: "/tmp/s", Forwards: []Forward{{Host: 6443, Guest: 6443}, {Host: 10022, Guest: 22}},
		}},
		{"volatile-disk-with-arguments", Config{
			Architecture: "amd64", Accelerator: KVM, MemoryMiB: 1024, CPUs: 1, Firmware: firmware,
			Disk: "/run/a,b.img", Volatile: true, Arguments: []string{"skerry.loglevel=debug", "a=1,2"},
			USB: true,
		}},
		{"direct", Config{
			Architecture: "amd64", Accelerator: TCG, MemoryMiB: 512, CPUs: 2, Disk: "/run/disk.img",
			Kernel: &Kernel{Image: "/k/linux", Initrd: "/k/initrd", CommandLine: "console=ttyS0 panic=10"}, Arguments: []string{"skerry.loglevel=debug"},
		}},
		{"arm64", Config{
			Architecture: "arm64", Accelerator: TCG, MemoryMiB: 2048, CPUs: 2, Firmware: firmware, Disk: "/run/disk.img", Sockets: "/tmp/s",
		}},
		{"arm-direct", Config{
			Architecture: "arm", Accelerator: TCG, MemoryMiB: 1024, CPUs: 2, Disk: "/run/disk.img", Volatile: true,
			Kernel: &Kernel{Image: "/k/linux", Initrd: "/k/initrd", CommandLine: "console=ttyAMA0"},
		}},
		{"board", Config{
			Architecture: "arm64", Accelerator: TCG, MemoryMiB: 2048, CPUs: 2, Disk: "/run/a,b.img", Volatile: true, Sockets: "/tmp/s",
			Board: &Board{Machine: "raspi3b", Loader: "/run/u-boot.bin", DeviceTree: "/run/board.dtb", Serial: 1}, Forwards: []Forward{{Host: 6443, Guest: 6443}},
		}},
		{"switch-with-router", Config{
			Architecture: "amd64", Accelerator: TCG, MemoryMiB: 1024, CPUs: 1, Firmware: firmware, Disk: "/run/disk.img",
			Forwards: []Forward{{Host: 6443, Guest: 6443}, {Host: 10023, Guest: 22, Address: "10.0.2.16"}}, Port: "/tmp/s/port0", Router: "/tmp/s/port1",
		}},
		{"switch", Config{
			Architecture: "amd64", Accelerator: TCG, MemoryMiB: 1024, CPUs: 1, Firmware: firmware, Disk: "/run/disk.img",
			Number: 2, Port: "/tmp/s/port2",
		}},
		{"bare-kernel", Config{
			Architecture: "amd64", Accelerator: HVF, MemoryMiB: 256, CPUs: 2, Kernel: &Kernel{Image: "/k/linux"},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			args, err := test.config.Command()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(args, "\n") + "\n"
			golden := filepath.Join("testdata", test.name+".args")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant (%s; -update rewrites it)\n%s", got, golden, want)
			}
		})
	}
}

func TestCommandOfUnknownArchitecture(t *testing.T) {
	_, err := Config{Architecture: "riscv64"}.Command()
	if err == nil || !strings.Contains(err.Error(), `"riscv64"`) {
		t.Errorf("got error %v, want one that names the architecture", err)
	}
}

func TestShell(t *testing.T) {
	got := Shell([]string{"qemu", "-append", "a b", "it's", "", "if=none,id=x"})
	want := `qemu -append 'a b' 'it'\''s' '' if=none,id=x`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFreePort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	got, err := FreePort(taken)
	if err != nil {
		t.Fatal(err)
	}
	if got == taken || got == 0 {
		t.Errorf("got port %d although somebody listens on it", got)
	}
	if again, err := FreePort(got); err != nil || again != got {
		t.Errorf("got port %d, %v; want the preferred one, %d", again, err, got)
	}
}
