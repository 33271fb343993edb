package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// An Accelerator is the argument of QEMU's -accel.
type Accelerator string

// The accelerators that machines run with.
const (
	KVM Accelerator = "kvm"
	HVF Accelerator = "hvf"
	// TCG is emulation in software: available everywhere, and at least ten times slower.
	TCG Accelerator = "tcg,thread=multi"
)

func (a Accelerator) native() bool { return a == KVM || a == HVF }

// Patience scales a duration that is ample on real hardware to what the accelerator needs on a busy workstation.
// Deadlines are for telling a hang from a slow machine, so they err on the long side.
func (a Accelerator) Patience(onHardware time.Duration) time.Duration {
	if a.native() {
		return onHardware
	}
	return 10 * onHardware
}

// ProbeTime is how long a stock kernel may take, on an accelerator, from power-on to looking for its root file
// system. On hardware it takes one to two seconds.
const ProbeTime = 15 * time.Second

// FindAccelerator returns the fastest accelerator that can run the kernel, and why it is not a faster one.
//
// That a device node exists, and even that QEMU starts with it, says little: under some nested hypervisors a stock kernel
// hangs before its first line. So each candidate has to boot the very kernel, without a root file system, up to the
// panic about that, within [ProbeTime].
func FindAccelerator(ctx context.Context, architecture, kernel string) (Accelerator, string) {
	var reasons []string
	for _, candidate := range candidates(architecture) {
		err := probe(ctx, candidate, architecture, kernel)
		if err == nil {
			return candidate, ""
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", candidate, err))
	}
	if len(reasons) == 0 {
		reasons = append(reasons, fmt.Sprintf("%s on %s has no other", architecture, runtime.GOOS+"/"+runtime.GOARCH))
	}
	return TCG, strings.Join(reasons, "; ")
}

// candidates are the hardware accelerators worth a probe: a guest must have the workstation's architecture.
func candidates(architecture string) []Accelerator {
	if architecture != runtime.GOARCH {
		return nil
	}
	switch runtime.GOOS {
	case "linux":
		return []Accelerator{KVM}
	case "darwin":
		return []Accelerator{HVF}
	}
	return nil
}

// rootPanic is what a kernel without a root file system says last.
const rootPanic = `Unable to mount root fs|No working init found`

func probe(ctx context.Context, accelerator Accelerator, architecture, kernel string) error {
	if accelerator == KVM {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		f.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, ProbeTime)
	defer cancel()
	return bootBareKernel(ctx, accelerator, architecture, kernel)
}

// bootBareKernel boots the kernel until it finds no root file system.
func bootBareKernel(ctx context.Context, accelerator Accelerator, architecture, kernel string) error {
	m, err := Start(ctx, Config{
		Architecture: architecture,
		Accelerator:  accelerator,
		MemoryMiB:    256,
		CPUs:         2, // a second processor is where nested virtualisation fails most often
		Kernel:       &Kernel{Image: kernel, CommandLine: "panic=0 console=" + machines[architecture].console},
	}, nil)
	if err != nil {
		return err
	}
	defer m.Kill()
	_, err = m.Console.Wait(ctx, 0, rootPanic)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("a stock kernel did not start within %v; its last line: %q", ProbeTime, m.Console.Last())
	}
	return err
}
