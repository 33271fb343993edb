package main

import (
	"sync"

	"github.com/spf13/cobra"

	"github.com/skerryos/skerry/builder/fetch"
)

// showProgress makes the cache report on standard error what it fetches. The returned function ends the report, so that
// something else can be printed, and may be called more than once.
func showProgress(cmd *cobra.Command, cache *fetch.Cache) (stop func()) {
	reporter, stop := reporterFor(cmd.ErrOrStderr())
	reportFetch(cache, reporter)
	return sync.OnceFunc(stop)
}
