package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// gcPercent is for the years after the start: Kubernetes allocates in bursts, and a smaller heap between them is worth
	// more on a small machine than the processor time.
	gcPercent = 60
	// startLimit is how far the heap may grow before the start is over without being collected at all, in bytes. A
	// start ends at about 250 MiB; collecting on the way takes a seventh of its processor time.
	startLimit = 400 << 20
)

// relaxHeap keeps the collector off while the machine starts, within half of the memory that is available now. settle
// ends that, gives back what only the start needed, and may be called more than once. It is called by itself after
// some minutes, should the start take so long.
func relaxHeap() (settle func()) {
	if os.Getenv("GOGC") != "" {
		return func() {} // the operator decides
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(min(startLimit, available()/2))
	settle = sync.OnceFunc(func() {
		debug.SetGCPercent(gcPercent)
		debug.SetMemoryLimit(math.MaxInt64)
		// Ready is not yet idle: controllers and add-ons go on for some seconds.
		time.AfterFunc(15*time.Second, debug.FreeOSMemory)
	})
	time.AfterFunc(3*time.Minute, settle)
	return settle
}

// available is MemAvailable of /proc/meminfo in bytes, startLimit when it cannot be read.
func available() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return startLimit
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			if kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return startLimit
}
