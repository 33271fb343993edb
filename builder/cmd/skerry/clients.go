package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

// clients are the flags that say whom the device API of an image lets in.
type clients struct {
	contexts []string
	noRemote bool
}

// register adds the flags to a command that needs a plan.
func (c *clients) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&c.contexts, "context", nil,
		"context whose certificates devices accept (repeatable; default: the profile's, then $"+contexts.Variable+", then the current one)")
	cmd.Flags().BoolVar(&c.noRemote, "no-remote", false, "keep the device API off the network")
	cmd.MarkFlagsMutuallyExclusive("context", "no-remote")
	_ = cmd.RegisterFlagCompletionFunc("context", completeContexts)
}

// nobody tells that the device API is not to be on the network.
func (c *clients) nobody(p *profile.Profile) bool {
	return c.noRemote || p.API.NoRemote && len(c.contexts) == 0
}

// authorities are those whose certificates devices accept: of the contexts on the command line, else those that the profile names,
// else that of the context in use. A release gets only what is named for it: the context in use may be anyone's.
func (c *clients) authorities(root string, p *profile.Profile) ([]plan.Authority, error) {
	if c.nobody(p) {
		return nil, nil
	}
	if len(c.contexts) == 0 && len(p.API.Clients) > 0 {
		var files []string
		for _, name := range p.API.Clients {
			files = append(files, short(filepath.Join(root, filepath.FromSlash(name))))
		}
		return contexts.Authorities(files)
	}
	store, err := contexts.Default()
	if err != nil {
		return nil, fmt.Errorf("%w; name the authorities in api.clients of the profile, or give --no-remote", err)
	}
	names := c.contexts
	if len(names) == 0 {
		none, err := store.Empty()
		if err != nil || none || p.Release {
			return nil, err
		}
		names = []string{""}
	}
	var files []string
	for _, name := range names {
		used, err := store.Select(name)
		if err != nil {
			return nil, err
		}
		files = append(files, used.AuthorityFile())
	}
	return contexts.Authorities(files)
}

// makeDefaultContext makes the first context of a workstation, and says where it is.
func makeDefaultContext(w io.Writer) ([]plan.Authority, error) {
	store, err := contexts.Default()
	if err != nil {
		return nil, err
	}
	made, err := store.New(contexts.DefaultName, time.Now())
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "skerry: note: made context %s in %s: devices with this image are managed by whoever has the files in it. "+
		"Keep them; other people get certificates of their own by `skerry context issue`.\n", made.Name, made.Dir)
	return contexts.Authorities([]string{made.AuthorityFile()})
}

// completeContexts completes the name of a context.
func completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	store, err := contexts.Default()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := store.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
