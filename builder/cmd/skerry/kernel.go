package main

import (
	"archive/tar"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/fetch"
	"github.com/skerryos/skerry/builder/kernelconfig"
	"github.com/skerryos/skerry/builder/plan"
)

// kernelCommand groups what is about the kernel.
func kernelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "kernel",
		Short: "Work with the kernel that images get",
	}
	c.AddCommand(kernelCheckCommand())
	return c
}

// kernelCheckCommand holds the kernel configuration fragments against the locked kernel.
func kernelCheckCommand() *cobra.Command {
	var in inputs
	c := &cobra.Command{
		Use:   "check",
		Short: "Check that the locked kernel has all that kernel-config asks for",
		Long: `Check reads the configuration and the modules of the locked kernel package, and compares them with the fragments in
kernel-config that the profile and the board name. It fails with the place of each line that the kernel does not meet.`,
		Example: `  skerry kernel check
  skerry kernel check --board x86-64`,
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
			cache, err := in.cacheFor(p)
			if err != nil {
				return err
			}
			packages := []plan.Package{*p.PackageNamed(p.Kernel.Package)}
			for _, part := range p.Kernel.Parts {
				packages = append(packages, *p.PackageNamed(part))
			}
			stop := showProgress(cmd, cache)
			debs, err := cache.Packages(cmd.Context(), packages)
			stop()
			if err != nil {
				return err
			}
			kernel, err := readKernel(debs, p.Kernel.Release)
			if err != nil {
				return err
			}
			if err := kernelconfig.Check(p.Kernel.Config, kernel); err != nil {
				return fmt.Errorf("kernel %s does not meet kernel-config:\n%w", p.Kernel.Release, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "kernel %s meets all %d options of kernel-config\n", p.Kernel.Release, len(p.Kernel.Config))
			return nil
		},
	}
	in.register(c)
	return c
}

// readKernel reads what is to be known of the kernel in its packages.
func readKernel(debs []string, release string) (kernelconfig.Kernel, error) {
	k := kernelconfig.Kernel{Name: "kernel " + release}
	for _, deb := range debs {
		if err := readKernelPackage(deb, release, &k); err != nil {
			return k, err
		}
	}
	if k.Values == nil || k.Builtin == nil || k.Modules == nil {
		return k, fmt.Errorf("cannot check the kernel: %s lacks config, modules.builtin or modules of %s", strings.Join(debs, ", "), release)
	}
	return k, nil
}

func readKernelPackage(deb, release string, k *kernelconfig.Kernel) error {
	return fetch.WalkDeb(deb, func(h *tar.Header, r io.Reader) error {
		read := func(into func([]byte)) error {
			data, err := io.ReadAll(r)
			if err != nil {
				return fmt.Errorf("cannot read %s in %s: %w", h.Name, deb, err)
			}
			into(data)
			return nil
		}
		switch {
		case h.Name == "boot/config-"+release, h.Name == "usr/lib/modules/"+release+"/config":
			return read(k.ReadConfig)
		case path.Base(h.Name) == "modules.builtin":
			return read(k.ReadBuiltin)
		case strings.Contains(path.Base(h.Name), ".ko"):
			k.AddModule(h.Name)
		}
		return nil
	})
}
