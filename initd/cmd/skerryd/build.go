package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	componentversion "k8s.io/component-base/version"
)

// version is that of Kubernetes with our own suffix. The builder stamps it by the linker:
// -X k8s.io/component-base/version.gitVersion=v1.37.2+skerry.1
func version() string { return componentversion.Get().GitVersion }

// buildTimeFile holds a time that has certainly passed, in seconds since 1970; on a Skerry image it says when it was built.
const buildTimeFile = "/usr/lib/skerry/build-time"

// source is the date of the youngest source when no image says more: the clock cannot be earlier.
var source = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func built() time.Time {
	b, err := os.ReadFile(buildTimeFile)
	if err != nil {
		return source
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || sec < source.Unix() {
		return source
	}
	return time.Unix(sec, 0)
}
