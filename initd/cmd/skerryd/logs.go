package main

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
)

// setupLogs sends what all parts say to one place, in one form: our own steps always, Kubernetes' warnings and errors, and
// with verbosity above 0 what it tells besides. mute silences Kubernetes: a part that is being stopped complains of each
// other part that has stopped before it.
func setupLogs(debug bool, verbosity int) (mute func()) {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}
	own := slog.NewTextHandler(os.Stderr, opts)
	slog.SetDefault(slog.New(own))

	k8s := slog.LevelWarn
	if debug || verbosity > 0 {
		k8s = slog.LevelInfo
	}
	muted := new(atomic.Bool)
	klog.SetSlogLogger(slog.New(quiet{muted, slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: k8s - slog.Level(verbosity), ReplaceAttr: withoutTime})}))
	logrus.SetLevel(logrus.WarnLevel) // kine
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(discard{}, discard{}, discard{}))
	return func() {
		if verbosity == 0 && !debug {
			muted.Store(true)
		}
	}
}

// withoutTime drops the time of a record: init's journal, or systemd's, puts its own in front of each line.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 {
		return slog.Attr{}
	}
	return a
}

// noise are warnings that every start of every Kubernetes gives and nobody can act on, as parts of their text or error.
var noise = []string{
	"Skipping API ",                        // groups without a version that is on by default
	"The manifest file is empty",           // no static admission configuration
	"Resetting endpoints for master",       // each start registers the API server anew
	"namespaces \"kube-system\" not found", // first start: the API server makes it a moment later
	"namespaces \"default\" not found",     // the same
	"Error getting the current node",       // kubelet's lister before its first answer
	"node is not registered yet",           // kubelet starts before the API server
	"Skipping pod synchronization",         // the first look at containerd is still going on
	"Stats initialization may not have completed yet",
	"checkpoint is not found",              // first start
	"Failed to list existing sets",         // kube-proxy cleans up after IPVS, which was never used
	"nodePortAddresses is unset",           // a choice, not a fault
	"is not as new as written version",     // a controller that waits for its own write to come back
	"metrics.k8s.io/v1beta1: stale",        // until the pod of metrics-server runs
	`"v1beta1.metrics.k8s.io" failed with`, // the same
	"failed to download v1beta1.metrics",   // the same
}

// quiet is a handler that leaves out noise, and everything once muted is set.
type quiet struct {
	muted *atomic.Bool
	slog.Handler
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if q.muted.Load() {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			text += " " + a.Value.String()
		}
		return true
	})
	for _, n := range noise {
		if strings.Contains(text, n) {
			return nil
		}
	}
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.muted, q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(g string) slog.Handler      { return quiet{q.muted, q.Handler.WithGroup(g)} }

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
