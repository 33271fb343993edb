package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/node/browse"
	"github.com/skerryos/skerry/initd/network/discovery"
)

// openNetwork is where devices are looked for. Tests have networks of their own.
var openNetwork = browse.Open

func nodeListCommand() *cobra.Command {
	var f nodeFlags
	var wait time.Duration
	c := &cobra.Command{
		Use:   "list",
		Short: "Find devices in the network",
		Long: `List asks by multicast DNS which devices there are in the networks of this workstation, and shows what they say of themselves. None of
that is proven: a device is known for sure by its key, which is looked at when it is asked for something. KNOWN tells whether the
context in use knows the key of the device's address or machine identifier.

Multicast does not pass routers; give devices behind them by their address. A device without an authority in its image does not answer.`,
		Example: `  skerry node list
  skerry node list --wait 10s --json | jq -r '.devices[] | select(.version != "1.2.0") | .addresses[0]'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait <= 0 {
				return fmt.Errorf("cannot wait %v for answers: give --wait a duration such as 3s", wait)
			}
			known, err := f.knownDevices()
			if err != nil {
				return err
			}
			network, err := openNetwork()
			if err != nil {
				return err
			}
			found, err := browse.Browse(cmd.Context(), network, wait)
			if err != nil {
				return err
			}
			list := listNodes(found, known)
			if f.asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string][]listedNode{"devices": list})
			}
			if len(list) == 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "skerry: note: no device has answered within %v. Are they in the same network, and does their image "+
					"have an authority? A firewall must let in UDP port %d\n", wait, discovery.Port)
				return nil
			}
			return printNodes(cmd.OutOrStdout(), list)
		},
	}
	c.Flags().StringVar(&f.context, "context", "", "context whose devices are known (default: $"+contexts.Variable+", then the current one)")
	c.Flags().DurationVar(&wait, "wait", browse.Wait, "how long to wait for answers")
	f.registerJSON(c)
	_ = c.RegisterFlagCompletionFunc("context", completeContexts)
	return c
}

// knownDevices are those of the context in use. Devices can be looked for without any context.
func (f *nodeFlags) knownDevices() ([]contexts.Device, error) {
	store, err := contexts.Default()
	if err != nil {
		return nil, err
	}
	if empty, err := store.Empty(); err != nil || empty && f.context == "" {
		return nil, err
	}
	c, err := f.used()
	if err != nil {
		return nil, err
	}
	return c.Devices()
}

// A listedNode is a device that was found.
type listedNode struct {
	browse.Device
	// Known tells that the context knows the key of a device with this address or machine identifier, by the address KnownAs.
	Known   bool   `json:"known"`
	KnownAs string `json:"knownAs,omitempty"`
}

func listNodes(found []browse.Device, known []contexts.Device) []listedNode {
	list := []listedNode{}
	for _, d := range found {
		n := listedNode{Device: d}
		is := func(k contexts.Device) bool {
			return k.MachineID != "" && discovery.PublicID(k.MachineID) == d.ID || slices.Contains(d.Nodes(), k.Address)
		}
		if i := slices.IndexFunc(known, is); i >= 0 {
			n.Known, n.KnownAs = true, known[i].Address
		}
		list = append(list, n)
	}
	return list
}

func printNodes(w io.Writer, list []listedNode) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var errs []error
	row := func(cells ...string) {
		_, err := fmt.Fprintln(t, strings.Join(cells, "\t"))
		errs = append(errs, err)
	}
	row("NAME", "ADDRESS", "VERSION", "BOARD", "SLOT", "PHASE", "KNOWN")
	for _, n := range list {
		known := "no"
		if n.Known {
			known = "yes"
		}
		row(n.Name, n.Nodes()[0], orDash(n.Version), orDash(n.Board), orDash(n.Slot), orDash(n.Phase), known)
	}
	return errors.Join(append(errs, t.Flush())...)
}
