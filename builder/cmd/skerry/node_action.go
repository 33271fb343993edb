package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skerryos/skerry/builder/node"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// actionCommand makes a command that asks a device for something which takes effect by a restart or by switching off.
func actionCommand(c *cobra.Command, f *nodeFlags, then string, act func(context.Context, *node.Client) (v1.Accepted, error)) *cobra.Command {
	c.Args = cobra.NoArgs
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		a, err := act(cmd.Context(), n)
		if err != nil {
			return err
		}
		return f.print(cmd, a, "device %s "+then, n.Address())
	})
	f.register(c)
	f.registerJSON(c)
	return c
}

func nodeRebootCommand() *cobra.Command {
	return actionCommand(&cobra.Command{
		Use:     "reboot",
		Short:   "Restart a device in good order",
		Example: `  skerry node reboot --node 192.0.2.7`,
	}, &nodeFlags{}, "stops its services and restarts", func(ctx context.Context, n *node.Client) (v1.Accepted, error) {
		return n.Reboot(ctx)
	})
}

func nodePowerOffCommand() *cobra.Command {
	return actionCommand(&cobra.Command{
		Use:     "poweroff",
		Short:   "Switch a device off in good order",
		Example: `  skerry node poweroff --node 192.0.2.7`,
	}, &nodeFlags{}, "stops its services and switches itself off", func(ctx context.Context, n *node.Client) (v1.Accepted, error) {
		return n.PowerOff(ctx)
	})
}

func nodeRollbackCommand() *cobra.Command {
	var f nodeFlags
	var reason string
	c := actionCommand(&cobra.Command{
		Use:   "rollback",
		Short: "Make a device go back to the version before",
		Long: `Rollback gives the running version up, whether it is on trial or was kept long ago, and restarts into the other slot. The device refuses
if there is nothing that works. The reason is kept, and shown by skerry node status.`,
		Example: `  skerry node rollback --node 192.0.2.7 --reason "the camera is not found"`,
	}, &f, "rolls back and restarts", func(ctx context.Context, n *node.Client) (v1.Accepted, error) {
		c, err := f.used()
		if err != nil {
			return v1.Accepted{}, err
		}
		return n.Rollback(ctx, cmp.Or(reason, "asked for by "+c.Holder))
	})
	c.Flags().StringVar(&reason, "reason", "", "why, in a few words (default: who asks)")
	return c
}

func nodeFetchCommand() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use:   "fetch",
		Short: "Let a device ask its update URL for an upgrade now",
		Long: `Fetch makes a device whose configuration has skerry.update.url ask there at once, whatever interval and window say. What is new is
written, tried, and kept once it is healthy: skerry node status shows how far it is.`,
		Example: `  skerry node fetch --node 192.0.2.7`,
		Args:    cobra.NoArgs,
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		a, err := n.Fetch(cmd.Context())
		if err != nil {
			return err
		}
		return f.print(cmd, a, "device %s asks its update URL now", n.Address())
	})
	f.register(c)
	f.registerJSON(c)
	return c
}

func nodeCommitCommand() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use:   "commit",
		Short: "Keep the version on trial now, without waiting until it is healthy",
		Long: `Commit marks the running slot good. A device does that by itself once it is healthy: this is for one that will not be, and is of use
nevertheless.`,
		Example: `  skerry node commit --node 192.0.2.7`,
		Args:    cobra.NoArgs,
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		u, err := n.Commit(cmd.Context())
		if err != nil {
			return err
		}
		return f.print(cmd, u, "device %s keeps version %s", n.Address(), u.Version)
	})
	f.register(c)
	f.registerJSON(c)
	return c
}

func nodeResetCommand() *cobra.Command {
	var f nodeFlags
	var scope string
	var yes bool
	c := &cobra.Command{
		Use:   "reset",
		Short: "Delete what is on a device",
		Long: `Reset deletes and restarts. The scope data is the cluster: pods, images, volumes and the datastore; who the device is and how it is
configured stays. The scope everything makes the data partition anew and deletes the configuration on the boot partition, too: the
device is as it was flashed, with the version that runs now, and has a new key.

It asks on the terminal for the device's host name before it does so; --yes answers for you.`,
		Example: `  skerry node reset --node 192.0.2.7 --scope data
  skerry node reset --node 192.0.2.7 --scope everything --yes`,
		Args: cobra.NoArgs,
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		deleted, ok := map[string]string{
			v1.ResetData:       "its pods, images, volumes and datastore are deleted",
			v1.ResetEverything: "all that is on it but the system is deleted, its key and its configuration too",
		}[scope]
		if !ok {
			return fmt.Errorf("there is no scope %q; the scopes are %s and %s; nothing was deleted", scope, v1.ResetData, v1.ResetEverything)
		}
		return f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
			if !yes {
				if err := confirm(cmd, n, "reset device %s: "+deleted); err != nil {
					return err
				}
			}
			a, err := n.Reset(cmd.Context(), scope)
			if err != nil {
				return err
			}
			return f.print(cmd, a, "device %s stops its services, resets itself (%s) and restarts", n.Address(), scope)
		})(cmd, args)
	}
	f.register(c)
	f.registerJSON(c)
	c.Flags().StringVar(&scope, "scope", "", v1.ResetData+" or "+v1.ResetEverything)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = c.MarkFlagRequired("scope")
	_ = c.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(
		[]cobra.Completion{v1.ResetData, v1.ResetEverything}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// confirm asks the person at the terminal to type the device's host name. Whoever types it knows which device it is.
func confirm(cmd *cobra.Command, n *node.Client, what string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return errors.New("cannot ask whether this is meant: standard input is no terminal; nothing was done; give --yes")
	}
	state, err := n.Status(cmd.Context())
	if err != nil {
		return err
	}
	if state.Hostname == "" {
		return errors.New("cannot ask whether this is meant: the device has no host name yet; nothing was done; give --yes")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), what+".\nType its host name, %s, to go on: ", n.Address(), state.Hostname)
	line, err := answer(cmd.Context(), func() ([]byte, error) { return bufio.NewReader(os.Stdin).ReadBytes('\n') })
	if err != nil {
		return fmt.Errorf("cannot ask whether this is meant: %w; nothing was done", err)
	}
	if got := strings.TrimSpace(string(line)); got != state.Hostname {
		return fmt.Errorf("%q is not %q; nothing was done", got, state.Hostname)
	}
	return nil
}
