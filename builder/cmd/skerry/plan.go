package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/plan"
)

// planCommand prints what an image is made of, without making it.
func planCommand() *cobra.Command {
	var in inputs
	var asJSON bool
	c := &cobra.Command{
		Use:   "plan",
		Short: "Print what an image is made of, without making it",
		Long: `Plan puts profile, board and lock together and prints the result: every package with version and digest, every
program, link and container image, and every kernel module with the reason for it. The same inputs give the same plan on
every machine; its digest is in the image as BUILD_ID.`,
		Example: `  skerry plan
  skerry plan --profile e2e --json | jq .packages`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := repository()
			if err != nil {
				return err
			}
			p, err := in.resolve(root)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				enc.SetEscapeHTML(false)
				return enc.Encode(p)
			}
			return printPlan(cmd.OutOrStdout(), p)
		},
	}
	in.register(c)
	in.registerKeys(c, "key")
	in.clients.register(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printPlan writes the plan for a person.
func printPlan(w io.Writer, p *plan.Plan) error {
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	const mib = 1 << 20
	fmt.Fprintf(t, "image\t%s %s (profile %s)\n", p.Name, p.Version, p.Profile)
	fmt.Fprintf(t, "digest\t%s\n", digest)
	fmt.Fprintf(t, "processor\t%s\n", p.Target.Debian)
	fmt.Fprintf(t, "disk\t%s: boot %d MiB, two roots of %d MiB, data from %d MiB\n", p.Disk.Table, p.Disk.BootBytes/mib, p.Disk.RootBytes/mib, p.Disk.MinimumDataBytes/mib)
	fmt.Fprintf(t, "boot loader\t%s\n", p.BootLoader)
	fmt.Fprintf(t, "kernel\t%s\n", p.Kernel.Release)
	fmt.Fprintf(t, "command line\t%s\n", strings.Join(p.CommandLine, " "))
	for _, k := range p.Keys {
		fmt.Fprintf(t, "trusted key\t%s\n", describeKey(k))
	}
	if len(p.Keys) == 0 {
		fmt.Fprintln(t, "trusted key\tnone is named")
	}
	for _, a := range p.Clients {
		fmt.Fprintf(t, "API clients\t%s (%s)\n", a.Name, a.Fingerprint)
	}
	switch {
	case p.NoRemote:
		fmt.Fprintln(t, "API clients\tnobody: the device API is not on the network")
	case len(p.Clients) == 0:
		fmt.Fprintln(t, "API clients\tnobody is named")
	}
	fmt.Fprintln(t, "\nPACKAGE\tVERSION\tWHY")
	for _, x := range p.Packages {
		fmt.Fprintf(t, "%s\t%s\t%s\n", x.Name, x.Version, x.Reason)
	}
	fmt.Fprintln(t, "\nPROGRAM\tPATH\tWHY")
	for _, x := range p.Programs {
		fmt.Fprintf(t, "%s\t%s\t%s\n", x.Name, orDash(x.Path), x.Reason)
	}
	fmt.Fprintln(t, "\nLINK\tTARGET\tWHY")
	for _, x := range p.Links {
		fmt.Fprintf(t, "%s\t%s\t%s\n", x.Path, x.Target, x.Reason)
	}
	fmt.Fprintln(t, "\nDIRECTORY\tMODE\tWHY")
	for _, x := range p.Directories {
		fmt.Fprintf(t, "%s\t%04o\t%s\n", x.Path, x.Mode, x.Reason)
	}
	fmt.Fprintln(t, "\nCONTAINER IMAGE\tMADE OF\tWHY")
	for _, x := range p.Images {
		fmt.Fprintf(t, "%s\t%s\t%s\n", x.Reference, strings.Join(append(append([]string(nil), x.Programs...), x.Packages...), ", "), x.Reason)
	}
	fmt.Fprintln(t, "\nMODULES\tSTAGE\tWHY")
	for _, x := range p.Kernel.Config {
		if len(x.Modules) > 0 {
			fmt.Fprintf(t, "%s\t%s\t%s\n", strings.Join(x.Modules, ", "), x.Stage, x.Reason)
		}
	}
	return t.Flush()
}

func describeKey(k plan.TrustedKey) string {
	if k.Development {
		return k.ID + " (development)"
	}
	return k.ID
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
