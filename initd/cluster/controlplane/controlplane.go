// Package controlplane runs the API server, the controller manager and the scheduler as goroutines of this process.
//
// One process shares one copy of the code, of client-go's caches and of the heap; DESIGN.md section 3 has the numbers. The price
// is that what is global in Kubernetes (feature gates, logging, metrics) is shared too: call Run once in a process.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controlleroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
	"k8s.io/kubernetes/pkg/controlplane/apiserver"
)

// Component is a part of Kubernetes that runs until its context ends. It returns an error when it stopped by itself.
type Component func(ctx context.Context) error

// identityLeaseRenewal is how often an API server says that it is there, by a write: upstream's ten seconds are for finding out within
// its lease of an hour which of several servers are there. docs/decisions/0016 has the numbers.
const identityLeaseRenewal = 10 * time.Minute

// APIServer prepares the API server with flags as its own command line would have them.
func APIServer(flags []string) (Component, error) {
	o := apiserveroptions.NewServerRunOptions()
	if err := parse("kube-apiserver", flags, values(o.Flags().FlagSets)); err != nil {
		return nil, err
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, fmt.Errorf("cannot set the feature gates of kube-apiserver: %w", err)
	}
	apiserver.IdentityLeaseRenewIntervalPeriod = identityLeaseRenewal
	// The API server's own client would log a warning for each deprecated API that it looks after.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	return func(ctx context.Context) error {
		completed, err := o.Complete(ctx)
		if err != nil {
			return fmt.Errorf("kube-apiserver: %w", err)
		}
		if errs := completed.Validate(); len(errs) > 0 {
			return fmt.Errorf("kube-apiserver: %w", errors.Join(errs...))
		}
		return ended("kube-apiserver", ctx, runAPIServer(ctx, completed, flags))
	}, nil
}

// ControllerManager prepares the controller manager. It must be started when the API server answers: it gives up
// after ten seconds.
func ControllerManager(flags []string) (Component, error) {
	o, err := controlleroptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, fmt.Errorf("kube-controller-manager: %w", err)
	}
	all, off, aliases := controllers.KnownControllers(), controllers.ControllersDisabledByDefault(), controllers.ControllerAliases()
	sets := o.Flags(all, off, aliases)
	o.ParsedFlags = &sets
	if err := parse("kube-controller-manager", flags, values(sets.FlagSets)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		c, err := o.Config(ctx, all, off, aliases)
		if err != nil {
			return fmt.Errorf("kube-controller-manager: %w", err)
		}
		return ended("kube-controller-manager", ctx, controllers.Run(ctx, c.Complete()))
	}, nil
}

// Scheduler prepares the scheduler.
func Scheduler(flags []string) (Component, error) {
	o := scheduleroptions.NewOptions()
	if err := parse("kube-scheduler", flags, values(o.Flags.FlagSets)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		c, s, err := scheduler.Setup(ctx, o)
		if err != nil {
			return fmt.Errorf("kube-scheduler: %w", err)
		}
		return ended("kube-scheduler", ctx, scheduler.Run(ctx, c, s))
	}, nil
}

// parse reads a component's flags without cobra: each of the commands installs its own handler of signals, and the
// second one panics.
func parse(name string, args []string, sets []*pflag.FlagSet) error {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.Usage = func() {}
	for _, s := range sets {
		fs.AddFlagSet(s)
	}
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("cannot use the arguments of %s: %w", name, err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("cannot use the arguments of %s: %q is not a flag", name, fs.Arg(0))
	}
	return nil
}

func values(m map[string]*pflag.FlagSet) []*pflag.FlagSet {
	var out []*pflag.FlagSet
	for _, s := range m {
		out = append(out, s)
	}
	return out
}

// ended tells a stop on request from one that nobody asked for.
func ended(name string, ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("%s ended: %w", name, err)
	default:
		return fmt.Errorf("%s ended without an error", name)
	}
}
