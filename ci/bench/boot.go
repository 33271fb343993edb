package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"

	"github.com/skerryos/skerry/builder/vm"
)

// A guest is a machine that is being measured.
type guest struct {
	*vm.VM
	remove func()
}

func (g *guest) off() {
	g.Kill()
	g.remove()
}

// boot switches on a machine with a new disk; direct skips firmware and boot loader.
func (b *bench) boot(ctx context.Context, direct bool) (*guest, error) {
	return b.bootImage(ctx, filepath.Join(b.build, name+".img"), "amd64", direct)
}

// bootImage is boot for the image of a build for any board of that architecture (GOARCH).
func (b *bench) bootImage(ctx context.Context, image, architecture string, direct bool) (_ *guest, err error) {
	folder, err := os.MkdirTemp(b.build, "bench-")
	if err != nil {
		return nil, err
	}
	sockets, removeSockets, err := vm.PrepareSockets()
	remove := func() { os.RemoveAll(folder) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	if err != nil {
		return nil, err
	}
	remove = func() { removeSockets(); os.RemoveAll(folder) }
	port, err := vm.FreePort(0)
	if err != nil {
		return nil, err
	}
	manage, err := vm.FreePort(0)
	if err != nil {
		return nil, err
	}
	c := vm.Config{
		Architecture: architecture, Accelerator: b.acceleratorOf(architecture), MemoryMiB: b.memoryMiB, CPUs: 2, Volatile: true,
		Disk: filepath.Join(folder, "disk.img"), Sockets: sockets, Forwards: []vm.Forward{{Host: port, Guest: 6443}, {Host: manage, Guest: v1.Port}},
	}
	if err := vm.CopyDisk(image, c.Disk, 4<<30); err != nil {
		return nil, err
	}
	if direct {
		c.Kernel, err = vm.ReadKernel(filepath.Join(filepath.Dir(image), "boot", strings.TrimSuffix(strings.TrimPrefix(filepath.Base(image), "skerry-"), ".img")))
	} else {
		c.Firmware, err = vm.PrepareFirmware(c.Architecture, folder)
	}
	if err != nil {
		return nil, err
	}
	m, err := vm.Start(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	return &guest{m, remove}, nil
}

// acceleratorOf is what machines of an architecture run with: foreign processors are always emulated.
func (b *bench) acceleratorOf(architecture string) vm.Accelerator {
	if architecture == "amd64" {
		return b.accelerator
	}
	return vm.TCG
}

// A milestone is a moment of a boot, seen from outside and counted from power-on.
type milestone struct {
	name    string
	reached func(context.Context, *guest) bool
}

var milestones = []milestone{
	{"init runs", func(_ context.Context, g *guest) bool {
		for _, l := range g.Console.Lines(0) {
			if strings.Contains(l.Text, "skerry") {
				return true
			}
		}
		return false
	}},
	{"containerd is ready", func(ctx context.Context, g *guest) bool { return serviceReady(ctx, g, "containerd") }},
	{"API server says readyz", apiReady},
	{"node is ready", func(ctx context.Context, g *guest) bool {
		state, err := g.Device.Status(ctx)
		return err == nil && state.Phase == v1.Ready
	}},
}

func serviceReady(ctx context.Context, g *guest, name string) bool {
	state, err := g.Device.Status(ctx)
	if err != nil {
		return false
	}
	for _, s := range state.Services {
		if s.Name == name {
			return s.State == "ready"
		}
	}
	return false
}

// apiReady asks without a certificate: readyz is open to everybody.
func apiReady(ctx context.Context, g *guest) bool {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the question is when it answers, not who
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/readyz", g.Config.Forwards[0].Host), nil)
	if err != nil {
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// bootTimes boots new machines and notes when each milestone is reached, by asking four times a second.
func bootTimes(ctx context.Context, b *bench) (string, error) {
	var out strings.Builder
	for _, way := range []struct {
		title  string
		direct bool
	}{{"Through UEFI and boot loader", false}, {"Kernel started directly", true}} {
		times := make([][]time.Duration, len(milestones))
		var processor []time.Duration
		var timeline v1.Timeline
		for range b.runs {
			reached, cpu, steps, err := b.timeBoot(ctx, way.direct)
			if err != nil {
				return "", err
			}
			for i, at := range reached {
				times[i] = append(times[i], at)
			}
			processor = append(processor, cpu)
			timeline = steps
		}
		rows := [][]string{{"since power-on", "median (fastest–slowest)"}}
		for i, m := range milestones {
			rows = append(rows, []string{m.name, spread(times[i])})
		}
		rows = append(rows, []string{"processor time of the emulator until then", spread(processor)})
		fmt.Fprintf(&out, "%s, first boot of a new disk, %d times, %d MiB, 2 processors:\n\n%s\n", way.title, b.runs, b.memoryMiB, table(rows))
		if way.direct {
			rows = [][]string{{"step of init (the last of these boots)", "stage", "from, since the kernel's start", "took"}}
			for _, s := range timeline.Steps {
				rows = append(rows, []string{s.Name, s.Stage, fmt.Sprintf("%.2f s", s.Start), fmt.Sprintf("%.2f s", s.End-s.Start)})
			}
			fmt.Fprintf(&out, "%s\n", table(rows))
		}
	}
	return out.String(), nil
}

func (b *bench) timeBoot(ctx context.Context, direct bool) (reached []time.Duration, cpu time.Duration, steps v1.Timeline, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.accelerator.Patience(time.Minute))
	defer cancel()
	g, err := b.boot(ctx, direct)
	if err != nil {
		return nil, 0, steps, err
	}
	defer g.off()
	ask := time.NewTicker(250 * time.Millisecond)
	defer ask.Stop()
	for _, m := range milestones {
		for !m.reached(ctx, g) {
			select {
			case <-ask.C:
			case <-ctx.Done():
				return nil, 0, steps, fmt.Errorf("the machine did not get to %q: %w; console: %q", m.name, ctx.Err(), g.Console.Last())
			}
		}
		reached = append(reached, g.Uptime())
		fmt.Fprintf(os.Stderr, "bench: %s after %v\n", m.name, seconds(g.Uptime()))
	}
	if cpu, err = processorTime(g.PID()); err != nil {
		return nil, 0, steps, err
	}
	steps, err = g.Device.Timeline(ctx)
	return reached, cpu, steps, err
}

// processorTime is what a process has used, from /proc/PID/stat (proc_pid_stat(5)): fields 14 and 15, in ticks of 10 ms.
func processorTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("cannot read the emulator's processor time: %w", err)
	}
	// The second field, the name, may contain blanks; it ends with the last parenthesis.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int64
	for _, i := range []int{14 - 3, 15 - 3} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("cannot read the emulator's processor time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
