package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/node"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

func nodeLogsCommand() *cobra.Command {
	var f nodeFlags
	var o node.LogOptions
	c := &cobra.Command{
		Use:   "logs UNIT",
		Short: "Print the log of a unit of a device",
		Long: `Logs prints what a unit has logged: init, kernel, api, containerd, skerryd; and crash, which is what the device kept of its last crash.
Logs are in the device's memory; those of one boot are kept for the next, if it was stopped in order or has failed before its eyes. Logs
of pods are kubectl's.`,
		Example: `  skerry node logs skerryd --node 192.0.2.7
  skerry node logs kernel -n edge-1 --follow
  skerry node logs init -n edge-1 --previous-boot      # after an upgrade was rolled back`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []cobra.Completion{"init", "kernel", "api", "containerd", "skerryd", "crash"},
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, args []string) error {
		err := n.Log(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		if o.Follow && cmd.Context().Err() != nil {
			return nil // whoever follows a log ends that by an interrupt
		}
		return err
	})
	f.register(c)
	c.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on with what is added, until it is interrupted")
	c.Flags().BoolVar(&o.Previous, "previous", false, "print the older part, which was full")
	c.Flags().BoolVar(&o.PreviousBoot, "previous-boot", false, "print the log of the boot before")
	c.MarkFlagsMutuallyExclusive("follow", "previous")
	c.MarkFlagsMutuallyExclusive("follow", "previous-boot")
	return c
}

func nodeTimelineCommand() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use:   "timeline",
		Short: "Show what the last boot of a device spent its time on",
		Example: `  skerry node timeline --node 192.0.2.7
  skerry node timeline -n edge-1 --json`,
		Args: cobra.NoArgs,
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		timeline, err := n.Timeline(cmd.Context())
		if err != nil {
			return err
		}
		if f.asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(timeline)
		}
		return printTimeline(cmd.OutOrStdout(), timeline)
	})
	f.register(c)
	f.registerJSON(c)
	return c
}

// printTimeline writes a line for each step, in seconds since the kernel started.
func printTimeline(w io.Writer, timeline v1.Timeline) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STEP\tWHERE\tSTART\tTOOK\tERROR")
	for _, s := range timeline.Steps {
		took := "under way"
		if s.End != 0 {
			took = fmt.Sprintf("%.2f s", s.End-s.Start)
		}
		fmt.Fprintf(t, "%s\t%s\t%.2f s\t%s\t%s\n", s.Name, s.Stage, s.Start, took, orDash(s.Error))
	}
	return t.Flush()
}
