package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/update"
)

// openUpgrade is there from before a node is drained for an upgrade until Kubernetes has been told what became of the upgrade,
// and the node takes pods again.
const openUpgrade = stateDir + "/upgrade-to-report"

// What stands in openUpgrade.
const (
	oweOutcome = ""
	// oweUncordon: there is nothing to tell, but the node may be cordoned. That is so of a datastore from before an upgrade.
	oweUncordon = "uncordon"
)

// owe notes, before the cause of it, what is to be done with the node. A machine without Kubernetes owes nothing, and who owes an
// outcome owes no less.
func owe(what string) error {
	if _, err := os.Stat(clusterProgram); err != nil {
		return nil
	}
	if _, err := os.Stat(openUpgrade); err == nil && what == oweUncordon {
		return nil
	}
	return stateRoom.use(func() error { return writeDurably(openUpgrade, []byte(what)) })
}

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
	if err := owe(oweOutcome); err != nil {
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

// undrainLeftover gives the node back that a process of the device API has drained which has ended since, without having come to
// the restart. After a boot process 1 does it.
func (u *upgrades) undrainLeftover(ctx context.Context) {
	var s v1.State
	b, err := os.ReadFile(v1.StatePath)
	if err != nil || json.Unmarshal(b, &s) != nil || s.Phase != v1.Ready && s.Phase != v1.Degraded {
		return
	}
	if rec, err := u.Status(); err != nil || rec.Upgrade.State != update.Written {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := u.undrain(ctx); err != nil {
		slog.Warn("the node that was drained for an upgrade takes no pods", "reason", err)
	}
}

// uncordon lets the node take pods again as soon as a new version runs Kubernetes: the operator's checks may be about pods.
func (r *root) uncordon(ctx context.Context) {
	if _, err := os.Stat(openUpgrade); err != nil {
		return
	}
	if err := r.tellCluster(ctx, "uncordon"); err != nil {
		r.cordoned = "the node takes no pods: " + err.Error()
		r.problem(r.cordoned)
	}
}

// report tells Kubernetes in the background what became of an upgrade, once.
func (r *root) report(ctx context.Context) {
	owed, err := os.ReadFile(openUpgrade)
	if err != nil || r.updater == nil {
		return
	}
	rec, err := r.updater.Status()
	if err != nil {
		r.problem(err.Error())
		return
	}
	if rec.Upgrade.State == update.Trying {
		return // it could not be noted that it is committed, and is at the next boot
	}
	go r.reportUntilHeard(ctx, reportOf(rec.Upgrade, string(owed)))
}

// reportOf is what the Kubernetes runtime's program is told. An upgrade that has come to no end, because the machine was restarted
// while the node was drained, leaves a cordoned node and nothing to tell.
func reportOf(up update.Upgrade, owed string) []string {
	if owed == oweUncordon || up.State != update.Committed && up.State != update.RolledBack {
		return []string{"uncordon"}
	}
	return []string{"report", "--state", string(up.State), "--version", up.Version, "--from", up.From, "--reason", argument(up.Reason)}
}

// longestArgument is in bytes; execve(2) takes 128 KiB.
const longestArgument = 4 << 10

// argument makes a text from anywhere one that a program can be started with: a reason must not keep a node cordoned.
func argument(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), longestArgument)], "")
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)
}

// reportUntilHeard tells it again and again: right after a start the API server has other things to do, and a node that stays
// cordoned takes no pods.
func (r *root) reportUntilHeard(ctx context.Context, args []string) {
	again := time.NewTicker(reportInterval)
	defer again.Stop()
	shown := ""
	for {
		err := r.tellCluster(ctx, args...)
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
	r.state.solved(r.cordoned)
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
