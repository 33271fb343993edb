package main

import (
	"fmt"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/node"
)

func nodeKubeconfigCommand() *cobra.Command {
	var f nodeFlags
	var output string
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Get the administrator's kubeconfig of a server",
		Long: `Kubeconfig prints the administrator's kubeconfig of a server's cluster, with the address that the device was asked by. Who has it may do
everything in the cluster. An agent has none: ask its server.`,
		Example: `  skerry node kubeconfig --node 192.0.2.7 --output edge.kubeconfig
  kubectl --kubeconfig edge.kubeconfig get nodes`,
		Args: cobra.NoArgs,
	}
	c.RunE = f.on(func(cmd *cobra.Command, n *node.Client, _ []string) error {
		b, err := n.Kubeconfig(cmd.Context())
		if err != nil {
			return err
		}
		if b, err = redirectKubeconfig(b, fmt.Sprintf("https://%s:%d", n.Host(), apiServerPort)); err != nil {
			return err
		}
		if output == "" {
			_, err := cmd.OutOrStdout().Write(b)
			return err
		}
		if err := renameio.WriteFile(output, b, 0o600); err != nil {
			return fmt.Errorf("cannot write the kubeconfig: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "wrote %s: kubectl --kubeconfig %s get nodes\n", output, output)
		return nil
	})
	f.register(c)
	c.Flags().StringVarP(&output, "output", "o", "", "file to write, mode 0600 (default: standard output)")
	return c
}
