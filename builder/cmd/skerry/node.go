package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/node"
)

// nodeClock is what commands wait by; nil is the system's clock. Tests have one that is in a hurry.
var nodeClock node.Clock

// nodeCommand groups what is about devices that run.
func nodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "Look at devices in the network, upgrade and manage them",
		Long: `The commands below speak to a device over the network, as the context in use (skerry context). A device is known by the fingerprint of
its key: at first use it is noted, afterwards a device with another key is refused. docs/nodes.md says more.`,
	}
	c.AddCommand(
		nodeListCommand(),
		nodeStatusCommand(),
		nodeLogsCommand(),
		nodeTimelineCommand(),
		nodeUpgradeCommand(),
		nodeTryCommand(),
		nodeFetchCommand(),
		nodeCommitCommand(),
		nodeRollbackCommand(),
		nodeRebootCommand(),
		nodePowerOffCommand(),
		nodeResetCommand(),
		nodeKubeconfigCommand(),
		nodeTokenCommand(),
		nodeSnapshotCommand(),
	)
	return c
}

// nodeFlags say which devices a command is for, and who asks.
type nodeFlags struct {
	nodes       []string
	context     string
	fingerprint string
	asJSON      bool
	// many tells that the command takes several devices, one after the other.
	many bool
}

// register adds the flags; those of output are of the commands that have JSON.
func (f *nodeFlags) register(c *cobra.Command) {
	what := "address of the device: host or IP address, with a port if it is not the usual one"
	if f.many {
		what += " (repeatable: one after the other)"
	}
	c.Flags().StringArrayVarP(&f.nodes, "node", "n", nil, what)
	c.Flags().StringVar(&f.context, "context", "", "context to use (default: $"+contexts.Variable+", then the current one)")
	c.Flags().StringVar(&f.fingerprint, "fingerprint", "", "fingerprint (SHA256:...) that the device's key must have, whatever is known of it")
	_ = c.MarkFlagRequired("node")
	_ = c.RegisterFlagCompletionFunc("context", completeContexts)
	_ = c.RegisterFlagCompletionFunc("node", f.completeNodes)
}

func (f *nodeFlags) registerJSON(c *cobra.Command) {
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
}

// completeNodes completes the address of a device that was met.
func (f *nodeFlags) completeNodes(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := f.used()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	devices, err := c.Devices()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	for _, d := range devices {
		list = append(list, d.Address)
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// used is the context.
func (f *nodeFlags) used() (contexts.Context, error) {
	store, err := contexts.Default()
	if err != nil {
		return contexts.Context{}, err
	}
	return store.Select(f.context)
}

// check refuses what the flags cannot mean together.
func (f *nodeFlags) check() error {
	if len(f.nodes) > 1 && !f.many {
		return errors.New("this is done to one device at a time: give --node once")
	}
	if len(f.nodes) > 1 && f.fingerprint != "" {
		return errors.New("a fingerprint is that of one device: give --fingerprint with one --node")
	}
	return nil
}

// dial connects to a device and says what a person should know of it.
func (f *nodeFlags) dial(cmd *cobra.Command, address string) (*node.Client, error) {
	c, err := f.used()
	if err != nil {
		return nil, err
	}
	return node.Dial(cmd.Context(), address, c, node.Options{
		Fingerprint: f.fingerprint,
		Clock:       nodeClock,
		Note:        func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), "skerry: note:", line) },
	})
}

// on makes the body of a command that is for one device.
func (f *nodeFlags) on(do func(cmd *cobra.Command, n *node.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		n, err := f.dial(cmd, f.nodes[0])
		if err != nil {
			return err
		}
		defer n.Close()
		return do(cmd, n, args)
	}
}

// print writes the answer as JSON, or else a line for a person.
func (f *nodeFlags) print(cmd *cobra.Command, answer any, line string, args ...any) error {
	if f.asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(answer)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), line+"\n", args...)
	return err
}
