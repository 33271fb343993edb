package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/initd/config"
)

// configCommand groups what is about the configuration of a device.
func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Work with the configuration of a device",
	}
	c.AddCommand(configValidateCommand())
	return c
}

// configValidateCommand checks a configuration by the same code that a device reads it with.
func configValidateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE",
		Short: "Check a #cloud-config or network-config file as a device would",
		Long: `Validate reads a #cloud-config file, or a network-config, by the same code as a device and reports every mistake with line and
column, and keys that have no effect. Use - for standard input.`,
		Example: `  skerry config validate my-node.yaml
  skerry config validate - < my-node.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			var data []byte
			var err error
			if name == "-" {
				name = "standard input"
				data, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), config.MaxSize+1))
			} else {
				data, err = os.ReadFile(name)
			}
			if err != nil {
				return fmt.Errorf("cannot read the configuration: %w", err)
			}
			ignored, err := config.Validate(name, data)
			if err != nil {
				return err
			}
			for _, p := range ignored {
				fmt.Fprintln(cmd.ErrOrStderr(), p.Error())
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", name)
			return nil
		},
	}
}

// validateConfig checks what is to be baked into an image: single keys, then whether they go together.
func validateConfig(name string, data []byte) error {
	c, err := config.Parse(name, data)
	if err != nil {
		return err
	}
	return c.Check()
}
