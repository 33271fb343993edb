package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/fetch"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

// Images are made of packages of this release of Debian.
var (
	suite      = "trixie"
	components = []string{"main", "non-free-firmware"}
)

// lockCommand checks or renews skerry.lock.
func lockCommand() *cobra.Command {
	var in inputs
	var update bool
	c := &cobra.Command{
		Use:   "lock",
		Short: "Check that skerry.lock has every package, or renew it",
		Long: `The lock pins every Debian package that profiles and boards name, by version and digest. Without a flag the command
checks that it is complete and has nothing superfluous. With --update it asks a mirror for the current package lists,
checks that a key of the Debian archive signed them, and writes the lock anew.`,
		Example: `  skerry lock
  skerry lock --update
  skerry lock --update --mirror https://mirror.example.com/debian`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := repository()
			if err != nil {
				return err
			}
			want, err := wanted(root)
			if err != nil {
				return err
			}
			if !update {
				return checkLock(cmd, root, want)
			}
			return updateLock(cmd, &in, root, want)
		},
	}
	in.registerMirror(c)
	c.Flags().BoolVar(&update, "update", false, "resolve all packages anew and write the lock")
	return c
}

// wanted collects the packages of every profile for every board of the repository.
func wanted(root string) (fetch.Want, error) {
	want := fetch.Want{}
	for _, board := range names(root, "boards") {
		for _, name := range names(root, "profiles") {
			in := inputs{profile: name, board: board}
			p, b, err := in.read(root)
			if err != nil {
				return nil, err
			}
			for _, w := range plan.Wanted(p, b) {
				want.Add(fetch.Source{Suite: w.Suite, Architecture: b.Architecture}, w.Name, w.Position)
			}
		}
	}
	if len(want) == 0 {
		return nil, fmt.Errorf("cannot tell what to lock: there is no board in %s or no profile in %s", filepath.Join(root, "boards"), filepath.Join(root, "profiles"))
	}
	return want, nil
}

func checkLock(cmd *cobra.Command, root string, want fetch.Want) error {
	lock, err := profile.ReadLock(short(lockFile(root)))
	if err != nil {
		return err
	}
	if err := fetch.CheckLock(lock, want); err != nil {
		return fmt.Errorf("%w\nrenew the lock with: skerry lock --update", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "skerry.lock is complete: %d packages of %s as of %s\n", len(lock.Packages), lock.Archive.Suite, lock.Archive.Date)
	return nil
}

func updateLock(cmd *cobra.Command, in *inputs, root string, want fetch.Want) error {
	file := short(lockFile(root))
	old := &profile.Lock{}
	if _, err := os.Stat(file); err == nil {
		if old, err = profile.ReadLock(file); err != nil {
			return fmt.Errorf("%w\nif it cannot be mended, remove it and run this again", err)
		}
	}
	// No date: what is wanted is the newest state.
	cache, err := in.cache(time.Time{})
	if err != nil {
		return err
	}
	done := showProgress(cmd, cache)
	defer done()
	keys, err := fetch.DebianKeys()
	if err != nil {
		return err
	}
	lock, err := cache.Lock(cmd.Context(), fetch.Suite{Name: suite, Components: components, Keys: keys, Now: time.Now()}, want)
	if err != nil {
		return err
	}
	if err := notOlder(lock, old); err != nil {
		return err
	}
	if err := lock.Write(file); err != nil {
		return err
	}
	done()
	out := cmd.OutOrStdout()
	for _, line := range fetch.Changes(old, lock) {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "wrote skerry.lock: %d packages of %s as of %s\n", len(lock.Packages), lock.Archive.Suite, lock.Archive.Date)
	return nil
}

// notOlder refuses a lock with an older state of a suite than the one before. The signature of an old state is as good as any, and Debian's
// releases say of none until when it is valid.
func notOlder(lock, before *profile.Lock) error {
	dates := map[string]time.Time{}
	for _, a := range append(slices.Clone(before.Further), before.Archive) {
		if date, err := a.Time(); err == nil {
			dates[a.Suite] = date
		}
	}
	for _, a := range append(slices.Clone(lock.Further), lock.Archive) {
		date, err := a.Time()
		if err != nil {
			return err
		}
		if known, ok := dates[a.Suite]; ok && date.Before(known) {
			return fmt.Errorf("cannot renew the lock: the mirror has %s as of %s, and the lock has it as of %s; the lock is as it was; "+
				"take another mirror (--mirror), or remove the lock if it is to become older",
				a.Suite, date.Format(time.RFC3339), known.Format(time.RFC3339))
		}
	}
	return nil
}
