package main

import (
	"github.com/spf13/cobra"
)

// root is the command line. Each command is one function in a file of its own name that returns a *cobra.Command; to
// add one, write it and list it here.
func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "skerry",
		Short: "Build and run images of Skerry, an operating system for Kubernetes nodes",
		Example: `  skerry build                     # image of profiles/default.yaml for board x86-64
  skerry plan                      # what would be in it
  skerry explain /usr/sbin/nft     # why a file is in it`,
		// main prints the error once; the usage text would hide it.
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.AddCommand(
		buildCommand(),
		bundleCommand(),
		releaseCommand(),
		keysCommand(),
		contextCommand(),
		nodeCommand(),
		planCommand(),
		lockCommand(),
		explainCommand(),
		configCommand(),
		kernelCommand(),
		runCommand(),
		versionCommand(),
	)
	return c
}
