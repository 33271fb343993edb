// Bench measures what the project promises, and writes the results into docs/benchmarks.md with the command that gave them.
//
//	ci/bench/run                  everything; needs about half an hour
//	ci/bench/run -only boot       one section, repeatable: sizes, build, boot, idle, upgrade, boards
//
// Each section stands between two comments in the document; only the sections that were measured are replaced, and what people
// wrote around them stays. The image must have been built (ci/bench/run does it).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/skerryos/skerry/builder/vm"
)

// A bench is the environment of the measurements.
type bench struct {
	// build is the folder of the build's outputs.
	build string
	// runs is how often a machine is booted.
	runs int
	// settle is how long a ready node is left alone before its memory is read, and idle the time over which writes are counted.
	settle, idle time.Duration
	memoryMiB    int
	accelerator  vm.Accelerator
}

// A section is one of the document: what measure returns, under a title.
type section struct {
	name, title string
	measure     func(context.Context, *bench) (string, error)
}

// sections are all measurements, in the order of the document.
var sections = []section{
	{"sizes", "Bytes", sizes},
	{"build", "Time of a build", buildTimes},
	{"boot", "From power-on to a node that is ready", bootTimes},
	{"idle", "Memory and writes of an idle server", idleUse},
	{"upgrade", "An upgrade", upgrade},
	{"boards", "Every board", boards},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	b := &bench{}
	flag.StringVar(&b.build, "build", "out", "folder of the build's outputs")
	flag.IntVar(&b.runs, "runs", 3, "boots to measure")
	flag.DurationVar(&b.settle, "settle", time.Minute, "time between ready and reading the memory")
	flag.DurationVar(&b.idle, "idle", 10*time.Minute, "time over which writes are counted")
	flag.IntVar(&b.memoryMiB, "memory", 2048, "memory of the machine in MiB")
	document := flag.String("output", "docs/benchmarks.md", "document to write the results into")
	only := map[string]bool{}
	flag.Func("only", "measure only this section (repeatable)", func(name string) error {
		for _, s := range sections {
			if s.name == name {
				only[name] = true
				return nil
			}
		}
		return errors.New("there is no such section")
	})
	flag.Parse()
	measured := slices.DeleteFunc(slices.Clone(sections), func(s section) bool { return len(only) > 0 && !only[s.name] })
	// Before anything is measured, which may take an hour.
	for _, s := range measured {
		if err := findSection(*document, s.name); err != nil {
			return err
		}
	}

	var why string
	b.accelerator, why = vm.FindAccelerator(ctx, "amd64", b.build+"/boot/x86-64/vmlinuz")
	if why != "" {
		fmt.Fprintln(os.Stderr, "bench: software emulation:", why)
	}
	for _, s := range measured {
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.title)
		text, err := s.measure(ctx, b)
		if err != nil {
			return fmt.Errorf("cannot measure %s: %w", s.name, err)
		}
		how := fmt.Sprintf("`make bench ARGS='-only %s'`, %s", s.name, conditions(b))
		if err := replaceSection(*document, s.name, "## "+s.title+"\n\n"+text+"\n"+how+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// conditions says where and of what the numbers are.
func conditions(b *bench) string {
	commit := firstLine("git", "describe", "--always", "--dirty")
	qemu := firstLine("qemu-system-x86_64", "--version")
	return fmt.Sprintf("%s, commit %s, %s (%d processors), %s, -accel %s",
		time.Now().Format(time.DateOnly), commit, processor(), runtime.NumCPU(), qemu, b.accelerator)
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return name + ": unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// processor is the model of the workstation's processor, as far as the system tells.
func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}
