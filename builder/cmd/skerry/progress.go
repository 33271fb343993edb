package main

import (
	"fmt"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/skerryos/skerry/builder/fetch"
)

// showProgress makes the cache report what it fetches: as bars with bytes and time left on a terminal, as one line for
// each finished file elsewhere. The returned function takes the bars down and may be called more than once.
func showProgress(cmd *cobra.Command, cache *fetch.Cache) (stop func()) {
	out := cmd.ErrOrStderr()
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("CI") != "" || os.Getenv("NO_COLOR") != "" {
		var mu sync.Mutex
		cache.Progress = func(name string, done, total int64) {
			if done == total {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintf(out, "fetched %s, %s\n", name, size(total))
			}
		}
		return func() {}
	}
	bars := mpb.New(mpb.WithOutput(file), mpb.WithWidth(40))
	var mu sync.Mutex
	byName := map[string]*mpb.Bar{}
	cache.Progress = func(name string, done, total int64) {
		mu.Lock()
		defer mu.Unlock()
		bar := byName[name]
		if bar == nil {
			bar = bars.AddBar(total,
				mpb.BarRemoveOnComplete(),
				mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
				mpb.AppendDecorators(
					decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace),
					decor.OnComplete(decor.AverageETA(decor.ET_STYLE_MMSS, decor.WCSyncSpace), "done"),
				))
			// Bytes that an earlier run has brought must not make this run look fast.
			bar.SetRefill(done)
			byName[name] = bar
		}
		bar.SetCurrent(done)
	}
	return sync.OnceFunc(func() {
		mu.Lock()
		for _, bar := range byName {
			bar.Abort(true) // does nothing to those that are complete
		}
		mu.Unlock()
		bars.Wait()
	})
}

// size is a number of bytes for a person.
func size(n int64) string {
	const kib, mib = 1 << 10, 1 << 20
	if n < mib {
		return fmt.Sprintf("%.1f KiB", float64(n)/kib)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/mib)
}
