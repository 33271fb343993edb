package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/skerryos/skerry/initd/update"
)

// openUpgrade is there from before a node is drained for an upgrade until Kubernetes has been told what became of the upgrade,
// and the node takes pods again.
const openUpgrade = stateDir + "/upgrade-to-report"

const (
	// reportTimeout bounds each attempt to tell Kubernetes something, reportInterval is between two of them.
	reportTimeout  = 2 * time.Minute
	reportInterval = 30 * time.Second
)

// drainNode moves the pods of this node elsewhere, or ends them. A machine without Kubernetes has none.
func drainNode(ctx context.Context) error {
	if _, err := os.Stat(clusterProgram); err != nil {
		return nil
	}
	if err := writeDurably(openUpgrade, nil); err != nil {
		return err
	}
	return runCluster(ctx, "upgrade", "drain")
}

// undrainNode takes back what drainNode has done, when there is no upgrade after all.
func undrainNode(ctx context.Context) error {
	if _, err := os.Stat(openUpgrade); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := runCluster(ctx, "upgrade", "uncordon"); err != nil {
		return err
	}
	return os.Remove(openUpgrade)
}

// uncordon lets the node take pods again as soon as a new version runs Kubernetes: the operator's checks may be about pods.
func (r *root) uncordon(ctx context.Context) {
	if _, err := os.Stat(openUpgrade); err != nil {
		return
	}
	if err := r.tellCluster(ctx, "uncordon"); err != nil {
		r.problem("the node takes no pods: " + err.Error())
	}
}

// report tells Kubernetes in the background what became of an upgrade, once.
func (r *root) report(ctx context.Context) {
	if _, err := os.Stat(openUpgrade); err != nil || r.updater == nil {
		return
	}
	rec, err := r.updater.Status()
	if err != nil {
		r.problem(err.Error())
		return
	}
	go r.reportUntilHeard(ctx, rec.Upgrade)
}

// reportUntilHeard tells it again and again: right after a start the API server has other things to do, and a node that stays
// cordoned takes no pods.
func (r *root) reportUntilHeard(ctx context.Context, up update.Upgrade) {
	again := time.NewTicker(reportInterval)
	defer again.Stop()
	shown := ""
	for {
		err := r.tellCluster(ctx, "report", "--state", string(up.State), "--version", up.Version, "--from", up.From, "--reason", up.Reason)
		if shown != "" {
			r.state.solved(shown)
			shown = ""
		}
		if err == nil {
			break
		}
		shown = "Kubernetes does not know yet what became of the upgrade; it is told again: " + err.Error()
		r.problem(shown)
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
	if err := os.Remove(openUpgrade); err != nil {
		r.problem(err.Error())
	}
}

// tellCluster runs the Kubernetes runtime's program as a child of process 1.
func (r *root) tellCluster(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	out, status, err := r.reaper.Output(ctx, clusterProgram, append([]string{"upgrade"}, args...)...)
	if err == nil && status != 0 {
		err = errors.New(trimmed(out))
	}
	return err
}
