// Package e2e boots the image of profiles/e2e.yaml in QEMU and does with it what users do. ci/e2e/run builds the image and
// runs the tests; what they need of the workstation is installed by ci/setup. Tests of upgrades build smaller images, which boot in
// seconds, and bundles of them: see [releases].
//
// Booting costs a minute or more without hardware acceleration, so the tests of a healthy node share one machine
// ([TestNode]); those that spoil theirs have their own. A machine with Kubernetes has the workstation for itself; those of the tests
// of upgrades, which wait for watchdogs and deadlines most of the time, run several at once after it. A machine of a failed test is
// kept: its disk, its serial log, its last state, and the command that boots it again.
package e2e

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/skerryos/skerry/builder/vm"
)

var (
	build  = flag.String("build", "", "folder that `skerry build e2e` wrote to, absolute")
	memory = flag.Int("memory", 2048, "memory of the machines, in MiB")

	// accelerator is what all machines run with.
	accelerator vm.Accelerator
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *build == "" {
		fmt.Println("the end-to-end tests need an image: run them with make e2e")
		if os.Getenv("CI") == "true" {
			os.Exit(1)
		}
		return
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		fmt.Printf("the end-to-end tests execute kubectl from the image, so they need linux/amd64, not %s/%s\n", runtime.GOOS, runtime.GOARCH)
		os.Exit(1)
	}
	kernel, err := kernelToProbe()
	if err != nil {
		fmt.Println("no kernel to try accelerators with:", err)
		os.Exit(1)
	}
	var why string
	accelerator, why = vm.FindAccelerator(contextWithoutTest, "amd64", kernel)
	if why != "" {
		fmt.Println("software emulation:", why)
	}
	os.Exit(m.Run())
}

// kernelToProbe is that of the image in the build folder, or if there is none that of the first image which the tests of upgrades make:
// those can be run without the other one.
func kernelToProbe() (string, error) {
	kernel := filepath.Join(*build, "boot", "x86-64", "vmlinuz")
	if _, err := os.Stat(kernel); !errors.Is(err, fs.ErrNotExist) {
		return kernel, err
	}
	_, err := firstImage()
	return releases("boot", "x86-64", "vmlinuz"), err
}
