package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/node"
)

func nodeTokenCommand() *cobra.Command {
	var f nodeFlags
	c := &cobra.Command{
		Use:   "token",
		Short: "Get the token that agents join a server with",
		Long: `Token prints the token of a server's cluster. In an agent's configuration it is skerry.token, beside skerry.server. Who has it may add
nodes to the cluster. It names the cluster's authority, so that an agent knows the server before it says anything secret. An agent has none: ask
its server.`,
		Example: `  skerry node token --node 192.0.2.7`,
		Args:    cobra.NoArgs,
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		token, err := n.Token(cmd.Context())
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), token)
		return nil
	})
	f.register(c)
	return c
}
