package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/initd/cluster/datastore"
	"github.com/skerryos/skerry/initd/cluster/settings"
	"github.com/skerryos/skerry/initd/cluster/upkeep"
)

// upgradeCommand is for the machine's own init; an operator upgrades with the device API.
func upgradeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "upgrade", Short: "tell the cluster about an upgrade of this machine", Hidden: true,
		Long: "Tell the cluster about an upgrade of this machine. The machine does this by itself.",
	}
	var name, dataDir string
	cmd.PersistentFlags().StringVar(&name, "node-name", "", "name of the node; the host's when left out")
	cmd.PersistentFlags().StringVarP(&dataDir, "data-dir", "d", settings.DefaultDataDir, "folder of all state")
	node := func() (*upkeep.Node, error) {
		if name == "" {
			var err error
			if name, err = os.Hostname(); err != nil {
				return nil, fmt.Errorf("cannot tell the node's name: %w", err)
			}
		}
		return upkeep.Open(name, settings.DefaultKubeconfig, filepath.Join(dataDir, "agent", "kubelet.kubeconfig"))
	}

	var timeout time.Duration
	drain := &cobra.Command{
		Use: "drain", Short: "cordon the node and evict its pods", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := node()
			if err != nil {
				return err
			}
			return n.Drain(cmd.Context(), timeout)
		},
	}
	drain.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long pods may take to leave")

	uncordon := &cobra.Command{
		Use: "uncordon", Short: "take back what drain has done to the node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := node()
			if err != nil {
				return err
			}
			return n.Uncordon(cmd.Context())
		},
	}

	var o upkeep.Outcome
	report := &cobra.Command{
		Use: "report", Short: "say on the node and in an Event what became of an upgrade, and uncordon the node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := node()
			if err != nil {
				return err
			}
			return n.Report(cmd.Context(), o)
		},
	}
	report.Flags().StringVar(&o.State, "state", "", `"committed" or "rolled back"`)
	report.Flags().StringVar(&o.Version, "version", "", "the new version")
	report.Flags().StringVar(&o.From, "from", "", "the version before")
	report.Flags().StringVar(&o.Reason, "reason", "", "why it was rolled back")
	cmd.AddCommand(drain, uncordon, report)
	return cmd
}

func snapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use: "snapshot DATASTORE FOLDER", Short: "copy a datastore that is in use", Args: cobra.ExactArgs(2),
		Long: `Copy the datastore of a server into an empty folder, as it is at one moment, while the server goes on. To restore it, put the files
in the place of the datastore while the server is stopped.`,
		Example: "  skerryd snapshot /var/lib/skerry/server/db /mnt/backup/today",
		RunE: func(cmd *cobra.Command, args []string) error {
			return datastore.Copy(cmd.Context(), args[0], args[1])
		},
	}
}
