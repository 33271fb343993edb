package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/contexts"
)

// contextCommand groups what is about contexts.
func contextCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "context",
		Short: "Make, choose and share what this workstation proves itself with to devices",
		Long: `A context is an authority and a certificate of it, in the user's configuration folder (skerry/contexts). Images carry the authorities
of contexts; a device lets in whoever shows a certificate of one of them: as an admin, or as a reader who may only ask.
docs/nodes.md says more.`,
	}
	c.AddCommand(contextListCommand(), contextUseCommand(), contextNewCommand(), contextIssueCommand(), contextImportCommand())
	return c
}

func contextListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the contexts",
		Example: `  skerry context list
  skerry context list --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := contexts.Default()
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "CURRENT\tNAME\tROLE\tHOLDER\tEXPIRES\tAUTHORITY\tISSUES CERTIFICATES")
			for _, c := range list {
				current, issues := "", "no"
				if c.Current {
					current = "*"
				}
				if c.CanIssue {
					issues = "yes"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", current, c.Name, c.Role, c.Holder, c.Expires.Format(time.DateOnly), c.Authority, issues)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return c
}

func contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Choose the context that is used when none is named",
		Example:           `  skerry context use fleet`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := contexts.Default()
			if err != nil {
				return err
			}
			if err := store.Use(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "context %s is used from now on\n", args[0])
			return nil
		},
	}
}

func contextNewCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a context: an authority for images, and an admin's certificate",
		Long: `New makes an authority and a certificate of it for this workstation. Devices whose image carries the authority (skerry build
--context NAME) let in whoever has a certificate of it. The first context becomes the current one. A context is never replaced.`,
		Example: `  skerry context new fleet
  skerry build --context fleet`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := contexts.Default()
			if err != nil {
				return err
			}
			made, err := store.New(args[0], time.Now())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(made)
			}
			printContext(cmd, "context %s is in %s\n", made)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the context as JSON")
	return c
}

func printContext(cmd *cobra.Command, head string, c contexts.Context) {
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, head, c.Name, c.Dir)
	fmt.Fprintf(w, "  authority   %s\n  certificate %s, %s until %s\n", c.Authority, c.Holder, c.Role, c.Expires.Format(time.DateOnly))
	if !c.Current {
		fmt.Fprintf(w, "  to use it when none is named: skerry context use %s\n", c.Name)
	}
}

func contextIssueCommand() *cobra.Command {
	var from, role, output string
	c := &cobra.Command{
		Use:   "issue HOLDER --role ROLE",
		Short: "Issue a certificate for another person or program",
		Long: `Issue makes a certificate of the context's authority and writes a folder that another workstation imports. It has the secret key of
the certificate: hand it over on a way that nobody else reads, and delete it then. Devices cannot take a certificate back before it
expires, other than by an image with another authority. An admin may do everything; a reader may ask, but neither change anything
nor read the kubeconfig or the token.`,
		Example: `  skerry context issue anna --role reader
  skerry context issue ci --role admin --context fleet --output /run/secrets/skerry`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := contexts.Default()
			if err != nil {
				return err
			}
			used, err := store.Select(from)
			if err != nil {
				return err
			}
			if output == "" {
				output = used.Name + "-" + args[0]
			}
			if err := used.Issue(output, args[0], contexts.Role(role), time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s: %s is %s of context %s; on the other workstation: skerry context import %s\n",
				output, args[0], role, used.Name, output)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&from, "context", "", "context to issue it in (default: $"+contexts.Variable+", then the current one)")
	f.StringVar(&role, "role", "", "admin or reader")
	f.StringVarP(&output, "output", "o", "", "folder to write, which must not be there (default: CONTEXT-HOLDER)")
	_ = c.MarkFlagRequired("role")
	_ = c.RegisterFlagCompletionFunc("context", completeContexts)
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(slices.Collect(roleNames), cobra.ShellCompDirectiveNoFileComp))
	return c
}

// roleNames are the roles as the command line takes them.
func roleNames(yield func(cobra.Completion) bool) {
	for _, r := range contexts.Roles {
		if !yield(string(r)) {
			return
		}
	}
}

func contextImportCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "import FOLDER",
		Short: "Make a context of a certificate that somebody has issued",
		Long: `Import checks a folder that skerry context issue has written and copies it. The context is named as where it comes from, unless
--name gives it another name. The folder can be deleted then.`,
		Example: `  skerry context import ./fleet-anna
  skerry context import ./default-anna --name office`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := contexts.Default()
			if err != nil {
				return err
			}
			imported, err := store.Import(args[0], name)
			if err != nil {
				return err
			}
			printContext(cmd, "imported context %s into %s\n", imported)
			return nil
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the context here (default: its name where it comes from)")
	return c
}
