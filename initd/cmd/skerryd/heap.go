package main

import (
	"os"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// gcPercent is for the years after the start: Kubernetes allocates in bursts, and a smaller heap between them is worth
	// more on a small machine than the processor time.
	gcPercent = 60
	// startPercent is for the start, a seventh of whose processor time the collector takes at gcPercent. It is not off:
	// what is live (some 120 MiB) still bounds the heap, which a limit in bytes would do only by collecting without end
	// once it is reached.
	startPercent = 250
)

// relaxHeap lets the collector run seldom while the machine starts. settle ends that, gives back what only the start
// needed, and may be called more than once. It is called by itself after some minutes, should the start take so long.
func relaxHeap() (settle func()) {
	if os.Getenv("GOGC") != "" {
		return func() {} // the operator decides
	}
	debug.SetGCPercent(startPercent)
	settle = sync.OnceFunc(func() {
		debug.SetGCPercent(gcPercent)
		// Ready is not yet idle: controllers and add-ons go on for some seconds.
		time.AfterFunc(15*time.Second, debug.FreeOSMemory)
	})
	time.AfterFunc(3*time.Minute, settle)
	return settle
}
