// Skerry builds, flashes, runs and manages images of Skerry, an operating system whose only purpose is to be a
// Kubernetes node.
//
// It reads the repository that the working directory is in: profiles, boards, kernel configuration fragments and
// skerry.lock. It needs no other program than the Go toolchain, and no privileges. Fetched packages are kept in the
// user's cache folder ($XDG_CACHE_HOME/skerry).
//
// Signing keys and contexts, which are what a workstation proves itself with to devices, are kept in the user's configuration
// folder ($XDG_CONFIG_HOME/skerry/keys and contexts; on macOS ~/Library/Application Support/skerry).
//
// Environment: SKERRY_MIRROR names a mirror of the Debian archive, SKERRY_SIGNING_KEY is the text of the secret key that bundles are
// signed with, SKERRY_KEY_PASSPHRASE the passphrase of a signing key, SKERRY_CONTEXT names the context to use,
// XDG_CACHE_HOME moves the cache, XDG_CONFIG_HOME keys and contexts, NO_COLOR and CI turn off progress bars.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// interrupts end a command: an interrupt from the keyboard, the end of a job, and that of the terminal, but not under nohup(1).
var interrupts = slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, func(s os.Signal) bool {
	return s == syscall.SIGHUP && signal.Ignored(s)
})

func main() {
	// A first interrupt ends the command cleanly: what was downloaded is kept, no output is left half-written. A second
	// one ends it at once, because stop() brings the default back.
	ctx, stop := signal.NotifyContext(context.Background(), interrupts...)
	context.AfterFunc(ctx, stop)
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "skerry:", err)
		os.Exit(1)
	}
}
