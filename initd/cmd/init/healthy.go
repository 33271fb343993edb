package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/skerryos/skerry/initd/api"
	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/health"
	"github.com/skerryos/skerry/initd/service"
)

const (
	// bootTimeout is how long a boot may take until all services are ready, counted from their start. A small board with a slow
	// card needs minutes on its first boot. That of a slot on trial, which never is a first boot, is the operator's to say.
	bootTimeout = 15 * time.Minute
	// trialInterval is between two rounds of checks while a person waits, watchInterval while nobody does.
	trialInterval = 2 * time.Second
	watchInterval = 30 * time.Second
)

// ownChecks are those that every device has.
func (r *root) ownChecks() []health.Check {
	return []health.Check{
		{Name: "services", Run: func(context.Context) error { return r.servicesReady() }},
		{Name: "clock", Run: func(context.Context) error { return clockSane(buildTimeFile) }},
		{Name: "keys", Run: func(context.Context) error { return r.upgradable() }},
		{Name: "device-api", Run: apiReachable},
	}
}

// upgradable: a version that trusts no key could never be replaced.
func (r *root) upgradable() error {
	if r.updater == nil || len(r.updater.Keys) == 0 {
		return health.Never(errors.New("the image trusts no key, and could never be upgraded"))
	}
	return nil
}

// apiReachable: a version that nobody can ask must not be kept, unless its image wants that.
func apiReachable(ctx context.Context) error {
	if _, err := os.Stat(v1.ClientsPath); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(v1.Port)))
	if err != nil {
		return fmt.Errorf("it is not served on the network: %w", err)
	}
	return c.Close()
}

// operatorsChecks are those of the configuration.
func (r *root) operatorsChecks() []health.Check {
	return health.FromConfig(r.config.Config.Skerry.Health.Checks, health.NewCluster(v1.KubeconfigPath))
}

func (r *root) servicesReady() error {
	var failed []string
	for _, s := range r.supervisor().Status() {
		if s.State != service.Ready && s.State != service.Done {
			text := s.Unit + " is " + string(s.State)
			if s.Reason != "" {
				text += " (" + s.Reason + ")"
			}
			failed = append(failed, text)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return errors.New(strings.Join(failed, "; "))
}

// clockSane: with a clock before the build no certificate of ours is valid, and nobody else's is of today.
func clockSane(buildTime string) error {
	built, err := readTime(buildTime)
	if err != nil {
		return err
	}
	if now := time.Now(); now.Before(built) {
		return fmt.Errorf("it is %v by the clock, and the image was made later", now.UTC().Format(time.DateTime))
	}
	return nil
}

// waitHealthy waits for the services, but not for ever: the other slot may do better. A slot on trial must pass the operator's
// checks too, and go on passing all of them for a while.
func (r *root) waitHealthy(ctx context.Context) error {
	trial := r.trial.Load()
	limit := bootTimeout
	if trial {
		limit = r.config.Config.Skerry.Health.Deadline
		r.state.deadline(time.Now().Add(limit))
	}
	begun := time.Now() // by the monotonic clock
	up, cancel := context.WithDeadlineCause(ctx, begun.Add(limit), fmt.Errorf("not ready after %v", limit))
	defer cancel()
	if r.unhealthy = r.supervisor().WaitUp(up); r.unhealthy != nil && errors.Is(up.Err(), context.DeadlineExceeded) {
		r.unhealthy = fmt.Errorf("%w: %s", r.unhealthy, message(r.servicesReady()))
	}
	r.state.checks([]health.Result{{Name: "services", Passed: r.unhealthy == nil, Reason: message(r.unhealthy)}})
	r.showFingerprint()
	if r.unhealthy != nil || !trial {
		return r.unhealthy
	}
	// The operator's checks may be about pods, which need a node that takes them; but they need time of their own, too.
	soon, stop := context.WithTimeout(ctx, (limit-time.Since(begun))/2)
	r.uncordon(soon)
	stop()
	verdict, err := health.Wait(ctx, append(r.ownChecks(), r.operatorsChecks()...), health.Options{
		Interval: trialInterval, Deadline: limit, Spent: time.Since(begun), Changed: r.state.checks,
	})
	if err == nil && !verdict.Healthy {
		err = errors.New(verdict.Reason)
	}
	r.unhealthy = err
	return err
}

// watchHealth goes on after the boot: a good slot that turns unhealthy stays up and says so. What the operator's checks are about
// may take as long to start as a trial may.
func (r *root) watchHealth(ctx context.Context) {
	operators := r.operatorsChecks()
	if len(operators) == 0 {
		return
	}
	_, err := health.Wait(ctx, operators, health.Options{Settle: -1, Deadline: r.config.Config.Skerry.Health.Deadline, Changed: r.state.checks})
	if err != nil {
		return // the machine goes down
	}
	reported := map[string]string{}
	health.Watch(ctx, operators, health.Options{Interval: watchInterval, Changed: func(results []health.Result) {
		r.state.checks(results)
		for _, c := range results {
			text := fmt.Sprintf("check %s: %s", c.Name, c.Reason)
			if old := reported[c.Name]; old != "" && (c.Passed || old != text) {
				r.state.solved(old)
				delete(reported, c.Name)
			}
			if !c.Passed {
				reported[c.Name] = text
				r.problem(text)
			}
		}
	}})
}

// showFingerprint shows what a person compares who meets the device for the first time from afar.
func (r *root) showFingerprint() {
	pair, err := tls.LoadX509KeyPair(v1.ServerCertPath, v1.ServerKeyPath)
	if err != nil {
		return // it is not served on the network, or the API's process says what is wrong
	}
	r.logf("the device API has the key %s", api.Fingerprint(pair.Leaf))
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
