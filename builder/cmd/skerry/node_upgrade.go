package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/builder/progress"
)

func nodeUpgradeCommand() *cobra.Command {
	f := nodeFlags{many: true}
	var o node.UpgradeOptions
	c := &cobra.Command{
		Use:   "upgrade BUNDLE",
		Short: "Send a bundle to devices, and follow them until the new version is kept or given up",
		Long: `Upgrade sends a bundle (skerry bundle create). The device writes it to its other slot, drains the node, restarts into the new version,
and keeps it once it is healthy; else it goes back to the version before, and says why.

What was sent stays sent: after a lost connection, an interrupt of this command or a power cut, the transfer goes on where it was.
An interrupt ends the command and not what the device does. With several devices it is one after the other, and the first one that
fails ends it: the others are left alone.`,
		Example: `  skerry node upgrade out/skerry-x86-64-1.1.0.skb --node 192.0.2.7
  skerry node upgrade next.skb -n edge-1 -n edge-2 -n edge-3
  skerry node upgrade next.skb -n edge-1 --no-try      # restart later: skerry node try -n edge-1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the bundle: %w", err)
			}
			defer file.Close()
			info, err := file.Stat()
			if err != nil {
				return fmt.Errorf("cannot read the bundle: %w", err)
			}
			return f.oneAfterTheOther(cmd, func(n *node.Client, report func(node.Event)) (node.Outcome, error) {
				o.Report = report
				return n.Upgrade(cmd.Context(), file, info.Size(), o)
			})
		},
	}
	f.register(c)
	f.registerJSON(c)
	c.Flags().BoolVar(&o.Force, "force", false, "override what the device lets an operator decide, such as to try again a version that was rolled back")
	c.Flags().BoolVar(&o.NoTry, "no-try", false, "leave the new version written, and do not restart")
	registerTimeout(c, &o.Timeout)
	return c
}

func nodeTryCommand() *cobra.Command {
	var f nodeFlags
	var o node.UpgradeOptions
	c := &cobra.Command{
		Use:   "try",
		Short: "Restart a device into the version that an upgrade has left written",
		Long: `Try goes on where skerry node upgrade --no-try has stopped: the device drains the node and restarts into the new version. It is followed
until that is kept or given up.`,
		Example: `  skerry node try --node 192.0.2.7`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.oneAfterTheOther(cmd, func(n *node.Client, report func(node.Event)) (node.Outcome, error) {
				o.Report = report
				return n.TryWritten(cmd.Context(), o)
			})
		},
	}
	f.register(c)
	f.registerJSON(c)
	registerTimeout(c, &o.Timeout)
	return c
}

func registerTimeout(c *cobra.Command, d *time.Duration) {
	c.Flags().DurationVar(d, "timeout", node.DefaultTimeout, "give up when nothing has moved on for so long; the device goes on by itself")
}

// An upgrader upgrades one device, and tells how far it is.
type upgrader func(n *node.Client, report func(node.Event)) (node.Outcome, error)

// oneAfterTheOther upgrades the devices, and leaves those alone that come after one that fails.
func (f *nodeFlags) oneAfterTheOther(cmd *cobra.Command, upgrade upgrader) error {
	for i, address := range f.nodes {
		if err := f.upgradeOne(cmd, address, upgrade); err != nil {
			if rest := f.nodes[i+1:]; len(rest) > 0 {
				err = fmt.Errorf("%w; left alone: %s", err, strings.Join(rest, ", "))
			}
			return err
		}
	}
	return nil
}

func (f *nodeFlags) upgradeOne(cmd *cobra.Command, address string, upgrade upgrader) error {
	n, err := f.dial(cmd, address)
	if err != nil {
		return err
	}
	defer n.Close()
	v := &upgradeView{node: n.Address(), w: cmd.ErrOrStderr()}
	o, err := upgrade(n, v.show)
	v.end(err)
	if err != nil {
		return err
	}
	answer := struct {
		Node string `json:"node"`
		node.Outcome
	}{n.Address(), o}
	switch {
	case o.Unchanged:
		return f.print(cmd, answer, "device %s runs version %s already; nothing was changed", n.Address(), o.Version)
	case o.State == "written":
		return f.print(cmd, answer, "device %s runs version %s, and has the new one written; it tries it with: skerry node try --node %s",
			n.Address(), o.Version, n.Address())
	default:
		return f.print(cmd, answer, "device %s runs version %s; before it was %s", n.Address(), o.Version, o.From)
	}
}

// An upgradeView shows an upgrade: a bar while something is sent, and a line for each phase.
type upgradeView struct {
	node string
	w    io.Writer
	// task and stop are of what is being sent, and nil at other times: then lines go to the terminal at once.
	task progress.Task
	stop func()
	sent int64
}

// show shows an event.
func (v *upgradeView) show(e node.Event) {
	if e.Phase != node.Sending {
		var lost error
		if e.Phase == node.Waiting {
			lost = errors.New(e.Detail)
		}
		v.end(lost)
		fmt.Fprintln(v.w, strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", v.node, e.Phase, e.Detail), ": "))
		return
	}
	if v.task == nil || e.Sent == 0 {
		v.end(nil)
		var reporter progress.Reporter
		reporter, v.stop = reporterFor(v.w)
		v.task, v.sent = reporter.Start(fmt.Sprintf("%s: send %s", v.node, e.Detail), e.Total), 0
	}
	v.task.Add(e.Sent - v.sent)
	v.sent = e.Sent
}

// end takes the bar down.
func (v *upgradeView) end(err error) {
	if v.task != nil {
		v.task.Done(err)
		v.stop()
		v.task, v.stop = nil, nil
	}
}
