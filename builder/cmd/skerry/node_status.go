package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/builder/progress"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

func nodeStatusCommand() *cobra.Command {
	f := nodeFlags{many: true}
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how devices are: version, slots, health, last upgrade, memory and disks",
		Long: `Status shows what a device says of itself: what runs, whether all is well and if not what to do, how its last upgrade ended, and what
uses its memory. With several devices those that cannot be asked do not keep it from asking the others; with --json each device is
a line of its own.`,
		Example: `  skerry node status --node 192.0.2.7
  skerry node status -n edge-1 -n edge-2 --json | jq .status.version`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			var errs []error
			for i, address := range f.nodes {
				s := askStatus(cmd, &f, address)
				if s.err != nil {
					errs = append(errs, s.err)
				}
				if f.asJSON {
					errs = append(errs, json.NewEncoder(cmd.OutOrStdout()).Encode(s))
					continue
				}
				if s.err != nil {
					continue // is told at the end
				}
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				errs = append(errs, s.print(cmd.OutOrStdout()))
			}
			return errors.Join(errs...)
		},
	}
	f.register(c)
	f.registerJSON(c)
	return c
}

// A nodeStatus is what one device says of itself.
type nodeStatus struct {
	Node        string     `json:"node"`
	Fingerprint string     `json:"fingerprint,omitempty"`
	Status      *v1.State  `json:"status,omitempty"`
	Memory      *v1.Memory `json:"memory,omitempty"`
	Disk        *v1.Disk   `json:"disk,omitempty"`
	Error       string     `json:"error,omitempty"`
	err         error
}

func askStatus(cmd *cobra.Command, f *nodeFlags, address string) nodeStatus {
	s := nodeStatus{Node: address}
	n, err := f.dial(cmd, address)
	if err == nil {
		defer n.Close()
		s.Node, s.Fingerprint = n.Address(), n.Fingerprint()
		err = s.ask(cmd.Context(), n)
	}
	if err != nil {
		s.err, s.Error = err, err.Error()
	}
	return s
}

func (s *nodeStatus) ask(ctx context.Context, n *node.Client) error {
	state, err := n.Status(ctx)
	if err != nil {
		return err
	}
	s.Status = &state
	memory, err := n.Memory(ctx)
	if err == nil {
		s.Memory = &memory
	} else if !isRefused(err) {
		return err
	}
	disk, err := n.Disk(ctx)
	if err == nil {
		s.Disk = &disk
	} else if !isRefused(err) {
		return err
	}
	return nil
}

// isRefused tells an answer of a device that does not know something from having no answer.
func isRefused(err error) bool {
	_, refused := errors.AsType[*node.RefusedError](err)
	return refused
}

// print writes the status for a person. What is wrong comes first.
func (s *nodeStatus) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	x := s.Status
	row := func(name string, lines ...string) {
		for i, line := range lines {
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(t, "%s\t%s\n", name, line)
		}
	}
	machine := ""
	if x.MachineID != "" {
		machine = ", machine " + x.MachineID
	}
	row("device", fmt.Sprintf("%s (%s)%s", cmp.Or(x.Hostname, "without a name"), s.Node, machine))
	row("key", s.Fingerprint)
	row("phase", strings.TrimSuffix(string(x.Phase)+": "+x.Message, ": "))
	row("problems", x.Problems...)
	row("version", fmt.Sprintf("%s for board %s, in slot %s%s", x.Version, x.Board, x.Slot, trial(x)))
	var slots []string
	for _, y := range x.Slots {
		slots = append(slots, describeSlot(y))
	}
	row("slots", slots...)
	row("update", describeUpdate(x.Update)...)
	var checks []string
	for _, y := range x.Checks {
		result := "passed"
		if !y.Passed {
			result = "not passed"
		}
		checks = append(checks, strings.TrimSuffix(y.Name+": "+result+", "+y.Reason, ", "))
	}
	row("checks", checks...)
	var services []string
	for _, y := range x.Services {
		line := y.Name + ": " + y.State
		if y.Restarts > 0 {
			line += fmt.Sprintf(", restarted %d times", y.Restarts)
		}
		if y.Status != "" {
			line += ", " + y.Status
		}
		services = append(services, line)
	}
	row("services", services...)
	row("addresses", cmp.Or(strings.Join(x.Addresses, ", "), "none"))
	if !x.Booted.IsZero() {
		synced := ""
		if !x.TimeSynced {
			synced = ", by a clock that no time server has set"
		}
		row("booted", utc(x.Booted)+synced)
	}
	row("memory", describeMemory(s.Memory)...)
	row("disks", describeDisks(s.Disk)...)
	return t.Flush()
}

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func trial(s *v1.State) string {
	text := ""
	if s.Trial {
		text = ", on trial"
		if !s.Deadline.IsZero() {
			text += " until " + utc(s.Deadline)
		}
	}
	if s.Tries >= 0 {
		text += fmt.Sprintf(", %d more starts", s.Tries)
	}
	return text
}

func describeSlot(s v1.Slot) string {
	text := s.Name + ": " + cmp.Or(s.Version, "unknown version")
	switch {
	case !s.Present:
		return s.Name + ": nothing to boot"
	case s.Running:
		text += ", running"
	}
	if s.Good {
		return text + ", good"
	}
	return text + fmt.Sprintf(", not marked good, %d tries left", s.Tries)
}

func describeUpdate(u *v1.Update) []string {
	if u == nil || u.State == "" || u.State == "idle" && u.Reason == "" {
		return []string{"none"}
	}
	text := u.State
	if u.Version != "" {
		text = "to version " + u.Version + ": " + text
	}
	if u.State == "writing" {
		text += fmt.Sprintf(", %d of %d chunks", u.Chunk, u.Chunks)
	}
	if !u.Changed.IsZero() {
		text += " (" + utc(u.Changed) + ")"
	}
	lines := []string{text}
	for _, more := range []struct{ head, text string }{{"now: ", u.Activity}, {"reason: ", u.Reason}} {
		if more.text != "" {
			lines = append(lines, more.head+more.text)
		}
	}
	for _, x := range u.Failed {
		if x.Version != u.Version || u.State != "rolled back" {
			lines = append(lines, fmt.Sprintf("version %s was rolled back: %s (%s)", x.Version, x.Reason, utc(x.Time)))
		}
	}
	return lines
}

// mostProcesses are shown: those that matter are the largest.
const mostProcesses = 5

func describeMemory(m *v1.Memory) []string {
	if m == nil {
		return nil
	}
	lines := []string{fmt.Sprintf("%s of %s available, %s of programs", sizeOf(m.Available), sizeOf(m.Total), sizeOf(m.Anonymous))}
	for _, p := range m.Processes[:min(len(m.Processes), mostProcesses)] {
		lines = append(lines, fmt.Sprintf("%s: %s", p.Name, sizeOf(p.PSS)))
	}
	return lines
}

func describeDisks(d *v1.Disk) []string {
	if d == nil {
		return nil
	}
	var lines []string
	for _, x := range d.Devices {
		lines = append(lines, fmt.Sprintf("%s: %s read, %s written since the boot", x.Name, sizeOf(x.ReadBytes), sizeOf(x.WrittenBytes)))
	}
	return lines
}

func sizeOf(n uint64) string { return progress.Bytes(int64(n)) }
