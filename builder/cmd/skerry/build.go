package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/fetch"
	"github.com/skerryos/skerry/builder/image"
	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/progress"
)

// buildCommand makes an image.
func buildCommand() *cobra.Command {
	var in inputs
	var output string
	var asJSON bool
	c := &cobra.Command{
		Use:   "build [PROFILE]",
		Short: "Build the disk image of a profile for a board",
		Long: `Build fetches the locked packages, builds the device's programs, and writes to the output folder

  skerry-BOARD.img            disk image, to be flashed or booted in a virtual machine
  skerry-BOARD.cdx.json       software bill of materials (CycloneDX)
  skerry-BOARD.manifest.json  every input and output with its digest, every file of the image with its origin
  boot/                       kernel, initramfs and command line, for virtual machines that need no boot loader
  cache/                      what the next build need not make again

Devices upgrade to what a key that their image trusts has signed: name public keys with --key, or in update.keys of the profile.
Without one the image trusts a development key of this workstation; a profile with release: true is then refused.

Devices are managed by whoever has a certificate of a context that their image carries: name contexts with --context, or their ca.crt
in api.clients of the profile. Without either it is the current context, which is made if there is none at all; a profile with
release: true is then refused. With --no-remote the device API is not on the network.

The same inputs, keys and contexts among them, give the same bytes on every machine with the same version of Go. A build that fails or is interrupted leaves former outputs as
they were. Neither root nor any tool but Go is needed.`,
		Example: `  skerry build
  skerry build --config my-node.yaml
  skerry build --key ~/.config/skerry/keys/fleet.pub --context fleet
  skerry build e2e --board x86-64 --output /tmp/e2e --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				in.profile = args[0]
			}
			root, err := repository()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("output") {
				output = filepath.Join(root, "out")
			}
			r, took, err := build(cmd, &in, root, output)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			printResult(cmd.OutOrStdout(), r, took)
			return nil
		},
	}
	in.register(c)
	in.registerKeys(c, "key")
	in.clients.register(c)
	c.Flags().StringVarP(&output, "output", "o", "", "folder of the outputs (default: out in the repository)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// build makes the image and says how long it took.
func build(cmd *cobra.Command, in *inputs, root, output string) (*image.Result, time.Duration, error) {
	begun := time.Now()
	p, err := in.resolveToBuild(cmd, root)
	if err != nil {
		return nil, 0, err
	}
	r, err := withBuilder(cmd, in, p, root, output, func(b *artifact.Builder) (*image.Result, error) {
		return image.Build(cmd.Context(), b, p, output)
	})
	return r, time.Since(begun), err
}

// withBuilder fetches the packages of a plan and lets make work with them, alone in the output folder.
func withBuilder[T any](cmd *cobra.Command, in *inputs, p *plan.Plan, root, output string, make func(*artifact.Builder) (*T, error)) (*T, error) {
	cache, err := in.cacheFor(p)
	if err != nil {
		return nil, err
	}
	store, err := artifact.OpenStore(filepath.Join(output, "cache"))
	if err != nil {
		return nil, err
	}
	unlock, err := store.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()

	reporter, stop := reporterFor(cmd.ErrOrStderr())
	defer stop()
	reportFetch(cache, reporter)
	// All packages at once, and before the long compilation: a mirror that is down is known within seconds.
	if _, err := cache.Packages(cmd.Context(), p.Packages); err != nil {
		return nil, err
	}
	r, err := make(&artifact.Builder{Source: root, Store: store, Packages: cache, Progress: reporter})
	if err != nil {
		return nil, err
	}
	// Large artefacts of former builds: the last one and the one before it, for a change that is taken back.
	for _, kind := range []string{"root", "initramfs", "gzip"} {
		if err := store.Prune(kind, 2); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// reporterFor returns bars for a terminal and lines for everything else.
func reporterFor(w io.Writer) (progress.Reporter, func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("CI") != "" || os.Getenv("NO_COLOR") != "" {
		return progress.Plain(w), func() {}
	}
	return progress.Terminal(f)
}

// reportFetch makes the cache report each file as a task.
func reportFetch(cache *fetch.Cache, r progress.Reporter) {
	var mu sync.Mutex
	type transfer struct {
		task progress.Task
		done int64
	}
	running := map[string]*transfer{}
	cache.Progress = func(name string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		t := running[name]
		if t == nil {
			t = &transfer{task: r.Start("fetch "+name, total)}
			running[name] = t
		}
		t.task.Add(done - t.done)
		t.done = done
		if done == total {
			t.task.Done(nil)
			delete(running, name)
		}
	}
}

func printResult(w io.Writer, r *image.Result, took time.Duration) {
	if r.Unchanged {
		fmt.Fprintf(w, "%s is up to date: nothing has changed (%s)\n", short(r.Image), took.Round(10*time.Millisecond))
		return
	}
	fmt.Fprintf(w, "wrote %s in %s\n", short(r.Image), took.Round(10*time.Millisecond))
	fmt.Fprintf(w, "  %s on the device's disk, %s of it with content\n", progress.Bytes(r.Bytes), progress.Bytes(r.Content))
	fmt.Fprintf(w, "  sha256 %s\n  root hash %s\n", r.SHA256, r.RootHash)
}
