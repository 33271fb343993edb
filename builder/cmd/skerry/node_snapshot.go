package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/builder/progress"
)

// nodeSnapshotCommand groups what is about copies of the cluster's datastore.
func nodeSnapshotCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Make, list and restore copies of a server's datastore",
		Long: `A snapshot is a copy of the cluster's datastore: what kubectl sees, but neither volumes nor images. A device makes one before each
upgrade.`,
	}
	c.AddCommand(snapshotCreateCommand(), snapshotListCommand(), snapshotRestoreCommand())
	return c
}

func snapshotCreateCommand() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use:     "create",
		Short:   "Copy the datastore now",
		Example: `  skerry node snapshot create --node 192.0.2.7`,
		Args:    cobra.NoArgs,
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		s, err := n.CreateSnapshot(cmd.Context())
		if err != nil {
			return err
		}
		return f.print(cmd, s, "made snapshot %s, %s", s.Name, progress.Bytes(s.Bytes))
	})
	f.register(c)
	f.registerJSON(c)
	return c
}

func snapshotListCommand() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the snapshots, newest first",
		Example: `  skerry node snapshot list --node 192.0.2.7 --json`,
		Args:    cobra.NoArgs,
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		list, err := n.Snapshots(cmd.Context())
		if err != nil {
			return err
		}
		if f.asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tMADE\tSIZE\tVERSION\tREASON")
		for _, s := range list.Snapshots {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Name, utc(s.Created), progress.Bytes(s.Bytes), orDash(s.Version), s.Reason)
		}
		return t.Flush()
	})
	f.register(c)
	f.registerJSON(c)
	return c
}

func snapshotRestoreCommand() *cobra.Command {
	var f nodeFlags
	var yes bool
	c := &cobra.Command{
		Use:   "restore NAME",
		Short: "Put a snapshot in the place of the datastore",
		Long: `Restore takes the cluster back to what it was when the snapshot was made: what was changed since is lost. The device restarts. It asks
on the terminal for the device's host name before it does so; --yes answers for you.`,
		Example: `  skerry node snapshot restore upgrade-1.1.0 --node 192.0.2.7`,
		Args:    cobra.ExactArgs(1),
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, args []string) error {
		if !yes {
			if err := confirm(cmd, n, "restore a snapshot on device %s: what was changed in its cluster since is lost"); err != nil {
				return err
			}
		}
		a, err := n.RestoreSnapshot(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return f.print(cmd, a, "device %s stops its services, restores snapshot %s and restarts", n.Address(), args[0])
	})
	f.register(c)
	f.registerJSON(c)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}
