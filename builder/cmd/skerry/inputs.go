package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/modfile"

	"github.com/skerryos/skerry/builder/fetch"
	"github.com/skerryos/skerry/builder/kernelconfig"
	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

// modulePath is the Go module that a folder must hold to be a Skerry repository.
const modulePath = "github.com/skerryos/skerry"

// inputs are the flags of every command that needs a plan.
type inputs struct {
	profile  string
	board    string
	userData string
	mirror   string
	// keys are files with the public keys that the image is to trust, instead of those that the profile names.
	keys     []string
	keysFlag string
	clients  clients
}

// register adds the flags that choose what to plan, and the mirror.
func (in *inputs) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&in.profile, "profile", "p", "default", "profile: a name in profiles/, or a file")
	f.StringVarP(&in.board, "board", "b", "x86-64", "board: a name in boards/, or a file")
	f.StringVar(&in.userData, "config", "", "#cloud-config file to bake into the image")
	in.registerMirror(c)
	complete := func(kind string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			root, err := repository()
			if err != nil {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return names(root, kind), cobra.ShellCompDirectiveDefault
		}
	}
	// Registering fails only for a flag that does not exist; the test of the command line runs through here.
	_ = c.RegisterFlagCompletionFunc("profile", complete("profiles"))
	_ = c.RegisterFlagCompletionFunc("board", complete("boards"))
}

// registerKeys adds the flag for the keys that the image is to trust, under that name.
func (in *inputs) registerKeys(c *cobra.Command, name string) {
	in.keysFlag = name
	c.Flags().StringArrayVar(&in.keys, name, nil, "public key file whose bundles devices are to trust (repeatable; default: the profile's keys, then a development key)")
}

func (in *inputs) registerMirror(c *cobra.Command) {
	c.Flags().StringVar(&in.mirror, "mirror", "", "mirror of the Debian archive (default: $"+fetch.MirrorVariable+", then this host's own, then snapshot.debian.org)")
}

// resolve reads the inputs from the repository at root and makes the plan.
func (in *inputs) resolve(root string) (*plan.Plan, error) {
	p, b, err := in.read(root)
	if err != nil {
		return nil, err
	}
	lock, err := profile.ReadLock(short(lockFile(root)))
	if err != nil {
		return nil, err
	}
	fragments := map[string][]plan.Option{}
	for _, name := range slices.Concat(p.KernelConfig, b.KernelConfig) {
		if fragments[name], err = readFragment(root, name); err != nil {
			return nil, err
		}
	}
	userData, err := in.readUserData(root, p)
	if err != nil {
		return nil, err
	}
	trusted, err := in.trusted(root, p)
	if err != nil {
		return nil, err
	}
	authorities, err := in.clients.authorities(root, p)
	if err != nil {
		return nil, err
	}
	return plan.Resolve(plan.Input{
		Profile: p, Board: b, Lock: lock, Module: modulePath, Fragments: fragments, UserData: userData, Keys: trusted,
		Clients: authorities, NoRemote: in.clients.nobody(p),
	})
}

// trusted are the keys that the image is to trust: those of the command line, else those of the profile, else the user's
// development key if there is one.
func (in *inputs) trusted(root string, p *profile.Profile) ([]plan.TrustedKey, error) {
	files := in.keys
	if len(files) == 0 {
		for _, name := range p.Update.Keys {
			files = append(files, short(filepath.Join(root, filepath.FromSlash(name))))
		}
	}
	store, err := keys.Default()
	if err != nil && len(files) == 0 {
		return nil, fmt.Errorf("%w; give the key that devices are to trust with --key", err)
	}
	if len(files) > 0 {
		return store.Trusted(files)
	}
	if p.Release {
		return nil, nil
	}
	k, err := store.Get(keys.Development)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []plan.TrustedKey{k.Trusted()}, nil
}

// resolveToBuild is resolve for a command that goes on to build: there is always a key that devices trust, the development
// key if no other is named, and a warning if that is one of them; and a context whose certificates they accept, unless none
// is wanted.
func (in *inputs) resolveToBuild(cmd *cobra.Command, root string) (*plan.Plan, error) {
	p, err := in.resolve(root)
	if err != nil {
		return nil, err
	}
	if len(p.Keys) == 0 && !p.Release {
		store, err := keys.Default()
		if err != nil {
			return nil, err
		}
		k, err := store.New(keys.Development, "")
		if err != nil {
			return nil, err
		}
		p.Keys = []plan.TrustedKey{k.Trusted()}
	}
	if err := p.CheckKeys(); err != nil {
		return nil, err
	}
	if err := p.CheckClients(); err != nil {
		return nil, err
	}
	if len(p.Clients) == 0 && !p.NoRemote {
		if p.Clients, err = makeDefaultContext(cmd.ErrOrStderr()); err != nil {
			return nil, err
		}
	}
	for _, k := range p.Keys {
		if k.Development {
			fmt.Fprintf(cmd.ErrOrStderr(), "skerry: warning: devices with this image trust development key %s, which is not protected: whoever can read %s.key in the folder of keys can upgrade them. "+
				"For devices in the field make a key with `skerry keys new NAME` and give its .pub with --%s.\n", k.ID, keys.Development, in.keysFlag)
		}
	}
	return p, nil
}

// read finds and reads profile and board.
func (in *inputs) read(root string) (*profile.Profile, *profile.Board, error) {
	profileFile, err := find(root, "profiles", "profile", in.profile)
	if err != nil {
		return nil, nil, err
	}
	boardFile, err := find(root, "boards", "board", in.board)
	if err != nil {
		return nil, nil, err
	}
	p, err := profile.ReadProfile(profileFile)
	if err != nil {
		return nil, nil, err
	}
	b, err := profile.ReadBoard(boardFile)
	if err != nil {
		return nil, nil, err
	}
	return p, b, nil
}

// readUserData returns the configuration to bake in: that of the command line, else that of the profile, else none.
func (in *inputs) readUserData(root string, p *profile.Profile) (string, error) {
	name := in.userData
	if name == "" && p.UserData != "" {
		name = filepath.Join(root, filepath.FromSlash(p.UserData))
	}
	if name == "" {
		return "", nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the configuration to bake in: %w", err)
	}
	// A mistake found now costs seconds; found by a device that was flashed, it costs a walk to it.
	if err := validateConfig(name, data); err != nil {
		return "", fmt.Errorf("cannot bake in the configuration %s:\n%w", name, err)
	}
	return string(data), nil
}

func readFragment(root, name string) ([]plan.Option, error) {
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		return nil, fmt.Errorf("cannot read kernel configuration fragment: %w", err)
	}
	return kernelconfig.Parse(name, data)
}

// cacheFor is the user's cache, with mirrors that fit the dates of the plan's packages.
func (in *inputs) cacheFor(p *plan.Plan) (*fetch.Cache, error) {
	dates := []time.Time{time.Unix(p.SourceDate, 0)}
	for _, date := range p.FurtherDates {
		dates = append(dates, time.Unix(date, 0))
	}
	return in.cache(dates...)
}

// cache is the user's cache, with mirrors that fit these dates.
func (in *inputs) cache(locked ...time.Time) (*fetch.Cache, error) {
	dir, err := fetch.DefaultDir()
	if err != nil {
		return nil, err
	}
	mirrors, err := fetch.Mirrors(in.mirror, os.Getenv, "/etc/apt", locked...)
	if err != nil {
		return nil, err
	}
	return &fetch.Cache{Dir: dir, Mirrors: mirrors}, nil
}

// repository is the folder of the Skerry repository that the working directory is in.
func repository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("cannot find the repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && modfile.ModulePath(data) == modulePath {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("cannot find the repository: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("cannot find the repository: neither %s nor a folder above it has the go.mod of %s; change into a checkout of it", start, modulePath)
		}
	}
}

func lockFile(root string) string { return filepath.Join(root, "skerry.lock") }

// find turns what a person typed into a file: a path if it looks like one, else a name in a folder of the repository.
func find(root, dir, what, given string) (string, error) {
	if strings.ContainsRune(given, filepath.Separator) || filepath.Ext(given) == ".yaml" {
		return given, nil
	}
	file := filepath.Join(root, dir, given+".yaml")
	if _, err := os.Stat(file); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("cannot read %s: %w", what, err)
		}
		return "", fmt.Errorf("unknown %s %q; there are: %s (or name a file: ./my.yaml)", what, given, strings.Join(names(root, dir), ", "))
	}
	return short(file), nil
}

// names lists the YAML files in a folder of the repository without their extension.
func names(root, dir string) []string {
	files, err := filepath.Glob(filepath.Join(root, dir, "*.yaml"))
	if err != nil {
		return nil // only for a malformed pattern: a repository in a folder with a bracket in its name has no completion
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".yaml")
	}
	return files
}

// short is the file's path as a person in the working directory would write it, for messages.
func short(file string) string {
	wd, err := os.Getwd()
	if err != nil {
		return file
	}
	rel, err := filepath.Rel(wd, file)
	if err != nil || strings.HasPrefix(rel, ".."+string(filepath.Separator)+"..") {
		return file
	}
	return rel
}
