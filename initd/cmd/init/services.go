package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/service"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/update"
)

const (
	unitDir     = "/usr/lib/skerry/units"
	notifyDir   = runDir + "/notify"
	servicePath = cgroupRoot + "/system"
	// clusterUnit is the one whose words the state line repeats.
	clusterUnit = "skerryd"
)

// environ is what all services have in their environment.
var environ = []string{"PATH=/usr/sbin:/usr/bin", "HOME=/root", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}

func (r *root) startServices(ctx context.Context) error {
	if err := r.awaitModules(ctx); err != nil {
		r.problem("Kubernetes will miss a part of the kernel: " + err.Error())
	}
	if err := r.configureNode(); err != nil {
		// The machine stays reachable, and the unit says why it does not start.
		r.problem("Kubernetes is not started: " + err.Error())
	}
	if err := os.MkdirAll(notifyDir, 0o700); err != nil {
		return err
	}
	units, err := service.LoadUnits(unitDir)
	if err != nil {
		return err
	}
	groups, err := service.NewCgroups(servicePath)
	if err != nil {
		return err
	}
	services, err := service.New(units, service.Options{
		Spawner:   r.reaper,
		Groups:    groups,
		Output:    r.journal.Writer,
		NotifyDir: notifyDir,
		Environ:   environ,
		Logger:    slog.Default(),
		Changed:   r.state.unit,
	})
	if err != nil {
		return err
	}
	services.Start()
	r.services.Store(services)
	go r.watchSpace(ctx)
	return nil
}

// supervisor is nil until the services are started.
func (r *root) supervisor() *service.Supervisor { return r.services.Load() }

func (r *root) stopServices(ctx context.Context) error {
	s := r.supervisor()
	if s == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return s.Stop(ctx)
}

// configureNode tells the Kubernetes runtime what the configuration says. Both files are in memory.
func (r *root) configureNode() error {
	node, err := r.config.Node(r.hostname)
	if err != nil {
		return err
	}
	if err := os.MkdirAll("/etc/skerry", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(config.NodeConfigPath, node.Config, 0o600); err != nil {
		return fmt.Errorf("cannot write the configuration of Kubernetes: %w", err)
	}
	if err := os.WriteFile(config.NodeEnvPath, node.Env, 0o644); err != nil {
		return fmt.Errorf("cannot write the role of the node: %w", err)
	}
	return nil
}

// markGood commits a slot that is healthy. It fails, and by that restarts the machine, only when a slot on trial is not, or cannot
// be kept, and the other one can be booted. A slot that was good before, or that there is no other one for, stays up for somebody
// to look at.
func (r *root) markGood(ctx context.Context) error {
	if r.unhealthy == nil {
		err := r.commit(ctx)
		if err == nil {
			r.committed(ctx)
			return nil
		}
		r.problem(err.Error())
		if r.trial.Load() {
			// Left like that it would be taken back at some restart, with a datastore of today.
			r.unhealthy = err
		}
	}
	mine, err := r.slots.Status(r.cmdline.slot)
	if err == nil && mine.Good {
		r.committed(ctx) // somebody has committed it without waiting, or all but the note of it was done
		if s := r.supervisor(); s != nil && r.unhealthy != nil {
			go r.healthyLater(ctx, s.WaitUp, stepProblem("healthy", r.unhealthy))
		}
		return nil
	}
	var other slot.Status
	if err == nil {
		r.state.tries(mine.Left)
		other, err = r.slots.Status(r.cmdline.slot.Other())
	}
	switch {
	case err != nil && r.trial.Load():
		r.problem(err.Error())
		return r.giveUp(ctx, update.Tries) // as far as anybody can tell; the boot loader counts
	case err != nil:
		r.problem(err.Error())
	case r.unhealthy == nil:
	case other.Bootable():
		return r.giveUp(ctx, mine.Left)
	default:
		text := fmt.Sprintf("slot %s is not marked good, because the machine did not become ready", r.cmdline.slot)
		r.problem(text)
		if s := r.supervisor(); s != nil {
			go r.markGoodLater(ctx, s.WaitUp, text, stepProblem("healthy", r.unhealthy))
		}
	}
	return nil
}

// markGoodLater is for what was switched on long before something that it waits for, as an agent before its server: once it is up, nothing is
// wrong with it. problems are those that are none any more then. It ends when wait fails.
func (r *root) markGoodLater(ctx context.Context, wait func(context.Context) error, problems ...string) {
	if wait(ctx) != nil {
		return
	}
	if err := r.commit(ctx); err != nil {
		r.problem(err.Error())
		return
	}
	r.committed(ctx)
	for _, p := range problems {
		r.state.solved(p)
	}
}

// healthyLater is that for a slot that was good before.
func (r *root) healthyLater(ctx context.Context, wait func(context.Context) error, problem string) {
	if wait(ctx) == nil {
		r.state.solved(problem)
	}
}

// commit keeps the running slot.
func (r *root) commit(ctx context.Context) error {
	if r.updater == nil {
		return r.slots.MarkGood(r.cmdline.slot)
	}
	return patiently(ctx, r.updater.Commit)
}

// committed ends a trial, and tells of what became of an upgrade.
func (r *root) committed(ctx context.Context) {
	if r.trial.CompareAndSwap(true, false) {
		r.state.committed()
		r.logf("version %s in slot %s is committed", r.cmdline.version, r.cmdline.slot)
		if err := r.lastWords().Clear(); err != nil {
			r.problem(err.Error())
		}
	}
	r.recount()
	r.report(ctx)
}

// How often, and how long after the time before, something is done that the device API was in the way of.
const (
	patience      = 5
	patiencePause = time.Second
)

// patiently does again what the device API was in the way of: as long as a slot is on trial it has the record for a moment only.
func patiently(ctx context.Context, do func() error) error {
	for range patience {
		if err := do(); !has[*update.BusyError](err) {
			return err
		}
		select {
		case <-time.After(patiencePause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return do()
}

// giveUp rolls back what is not healthy in time. Its tries are for what may go better the next time, a crash or a loss of power, and
// each costs the device its work for as long as this one did.
func (r *root) giveUp(ctx context.Context, left int) error {
	then := fmt.Sprintf("slot %s is booted again", r.cmdline.slot.Other())
	err := errors.New("there is no record of upgrades")
	if r.updater != nil {
		err = patiently(ctx, func() error { return r.updater.Rollback(r.unhealthy.Error()) })
	}
	if err != nil {
		r.logf("cannot roll back: %v", err)
		if r.updater != nil {
			if err := r.updater.NoteFailure(r.unhealthy.Error()); err != nil {
				r.logf("%v", err)
			}
		}
		if left > 0 {
			then = fmt.Sprintf("it is tried again, %d times at most, before slot %s is", left, r.cmdline.slot.Other())
		}
	}
	return &unhealthyError{r.unhealthy, fmt.Sprintf("slot %s on trial: %v; %s", r.cmdline.slot, r.unhealthy, then)}
}

// An unhealthyError ends the boot of a slot on trial.
type unhealthyError struct {
	// reason is what people are told later, text what is shown now.
	reason error
	text   string
}

func (e *unhealthyError) Error() string { return e.text }
func (e *unhealthyError) Unwrap() error { return e.reason }
