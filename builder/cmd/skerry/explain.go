package main

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/fetch"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/initd/boot"
	"github.com/skerryos/skerry/initd/update"
)

// explainCommand says why something is in an image.
func explainCommand() *cobra.Command {
	var in inputs
	var table struct{ boot, update bool }
	c := &cobra.Command{
		Use:   "explain PATH | --boot | --update",
		Short: "Say why a file, link or container image is in an image",
		Long: `Explain looks a path of the root file system, or the name of a container image, up in the plan and prints where it
comes from and why. Nothing has to be built. If only a pattern matches, the packages in question are read (and fetched,
if the cache does not have them). With --boot it prints what a device does from power-on until it is ready: each step,
where it runs, and what happens if it fails. With --update it prints the states of an upgrade: what is true in each, what follows,
and how a device goes on from there after a power cut.`,
		Example: `  skerry explain /usr/bin/kubectl
  skerry explain /usr/lib/x86_64-linux-gnu/libmnl.so.0
  skerry explain skerry.internal/pause:1
  skerry explain --boot
  skerry explain --update`,
		Args: func(cmd *cobra.Command, args []string) error {
			if table.boot || table.update {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case table.boot:
				return printBoot(cmd.OutOrStdout())
			case table.update:
				return update.WriteTable(cmd.OutOrStdout())
			}
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
			stop := showProgress(cmd, cache)
			origins, err := explain(cmd.Context(), root, p, cache, args[0])
			stop()
			if err != nil {
				return err
			}
			for _, o := range origins {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n\t%s\n\twhy: %s\n", args[0], o.What, o.Reason)
			}
			return nil
		},
	}
	in.register(c)
	in.registerKeys(c, "key")
	in.clients.register(c)
	c.Flags().BoolVar(&table.boot, "boot", false, "print the steps of a boot")
	c.Flags().BoolVar(&table.update, "update", false, "print the states of an upgrade")
	c.MarkFlagsMutuallyExclusive("boot", "update")
	return c
}

// printBoot writes the table that init itself runs by.
func printBoot(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STEP\tWHERE\tON FAILURE\tLIMIT\tWHAT")
	for _, s := range boot.Table() {
		limit := "its own"
		if s.Limit != boot.Unlimited {
			limit = fmt.Sprintf("%.0f min", s.Limit.Minutes())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Name, s.Stage, s.OnFailure, limit, s.Doc)
	}
	return t.Flush()
}

// explain completes the plan's answer with what only folders and packages know.
func explain(ctx context.Context, root string, p *plan.Plan, cache *fetch.Cache, name string) ([]plan.Origin, error) {
	if strings.HasPrefix(name, "/") {
		name = p.Real(path.Clean(name))
	}
	var sure, maybe []plan.Origin
	for _, o := range p.Explain(name) {
		if o.Package == nil {
			sure = append(sure, o)
		} else {
			maybe = append(maybe, o)
		}
	}
	for _, dir := range p.Overlays {
		_, err := os.Lstat(filepath.Join(root, filepath.FromSlash(dir), filepath.FromSlash(name)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot look into overlay %s: %w", dir, err)
		}
		if err == nil && strings.HasPrefix(name, "/") {
			sure = append(sure, plan.Origin{What: "copied from " + dir + name, Reason: "everything in the overlay " + dir + " is"})
		}
	}
	if len(sure) > 0 {
		return sure, nil
	}
	// Small packages first: the kernel's takes seconds to read, and is rarely the answer.
	slices.SortStableFunc(maybe, func(a, b plan.Origin) int { return cmp.Compare(a.Package.Size, b.Package.Size) })
	for _, o := range maybe {
		has, err := packageHas(ctx, cache, *o.Package, name)
		if err != nil {
			return nil, err
		}
		if has {
			return []plan.Origin{o}, nil
		}
	}
	return nil, fmt.Errorf("cannot explain %s: no program, link, directory, container image, overlay, kernel module or package file of the plan has this path. Modules that others depend on, and what the builder itself makes, are listed in the manifest of a build", name)
}

// packageHas says whether a package has a file of that name.
func packageHas(ctx context.Context, cache *fetch.Cache, p plan.Package, name string) (bool, error) {
	file, err := cache.Package(ctx, p)
	if err != nil {
		return false, err
	}
	found := false
	err = fetch.WalkDeb(file, func(h *tar.Header, _ io.Reader) error {
		if "/"+h.Name == name {
			found = true
			return fetch.ErrSkipRest
		}
		return nil
	})
	return found, err
}
