// Package server runs a cluster's server: datastore, API server, controller manager and scheduler, and a node beside them
// unless it is disabled, all in this process.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	componentversion "k8s.io/component-base/version"

	"github.com/skerryos/skerry/initd/cluster/addons"
	"github.com/skerryos/skerry/initd/cluster/controlplane"
	"github.com/skerryos/skerry/initd/cluster/datastore"
	"github.com/skerryos/skerry/initd/cluster/durable"
	"github.com/skerryos/skerry/initd/cluster/node"
	"github.com/skerryos/skerry/initd/cluster/notify"
	"github.com/skerryos/skerry/initd/cluster/pki"
	"github.com/skerryos/skerry/initd/cluster/settings"
)

// Server is a server that Run starts. All fields must be set.
type Server struct {
	Settings *settings.Settings
	Notify   *notify.Notifier
	// NodeIPs are the addresses of this machine, the one that others use first.
	NodeIPs []netip.Addr
	// Built is when the program was built: the clock is certainly not earlier.
	Built time.Time
	// RunDir is for sockets, on a tmpfs.
	RunDir string

	permitted chan struct{} // closed when the objects that nodes join by are written
	ready     sync.WaitGroup
	late      *time.Timer // ends a start that takes too long
}

// shutdown limits how long each layer may take to stop before the next is stopped under it. Three of them and the
// datastore fit into the thirty seconds that supervisors give.
const shutdown = 7 * time.Second

// startLimit is how long a control plane may take until it is ready. The slowest machine that was seen to come up needed a third of it; what takes longer
// hangs, and only signs of life of a server that is ready are watched. A control plane serves others while its own node is not ready.
const startLimit = 45 * time.Minute

// Run starts the server and stops it in reverse order when ctx ends or a part fails. The error names the part.
func (s *Server) Run(ctx context.Context) error {
	id := &identity{
		settings: s.Settings, paths: pathsOf(s.Settings), nodeIPs: s.NodeIPs,
		store: pki.Store{Dir: pathsOf(s.Settings).tls, Now: time.Now, Floor: s.Built},
	}
	s.permitted = make(chan struct{})
	s.ready.Add(1) // the API server
	if !s.Settings.DisableAgent {
		s.ready.Add(1)
	}
	s.Notify.Status("preparing certificates and datastore")
	store, err := s.prepare(id)
	if err != nil {
		return err
	}
	defer store.Stop() // last: without it the API server hangs instead of ending

	parts := newGroup(ctx)
	defer parts.stop()
	go parts.watch("datastore", store.Failed())
	late := make(chan error, 1)
	s.late = time.AfterFunc(startLimit, func() { late <- fmt.Errorf("not ready within %v, starting again", startLimit) })
	defer s.late.Stop()
	go parts.watch("start", late)

	cfg := s.controlPlane(id)
	api, err := controlplane.APIServer(cfg.APIServerFlags())
	if err != nil {
		return err
	}
	controllers, err := controlplane.ControllerManager(cfg.ControllerFlags())
	if err != nil {
		return err
	}
	scheduler, err := controlplane.Scheduler(cfg.SchedulerFlags())
	if err != nil {
		return err
	}
	client, err := clientcmd.BuildConfigFromFlags("", filepath.Join(id.paths.cred, "supervisor.kubeconfig"))
	if err != nil {
		return fmt.Errorf("cannot make a client of the API server: %w", err)
	}
	client.QPS, client.Burst = 100, 200

	s.Notify.Status("starting the API server")
	parts.start(0, "API server", api)
	if !s.Settings.DisableAgent {
		// Long before the API server answers: kubelet's own start takes as long.
		n := s.nodeConfig(id)
		parts.start(2, "node", func(ctx context.Context) error { return node.Run(ctx, n) })
	}
	parts.start(1, "control plane", func(ctx context.Context) error {
		probe, err := newProbe(client)
		if err != nil {
			return err
		}
		started := time.Now()
		if err := probe.until(ctx, "/readyz"); err != nil {
			return err
		}
		slog.Info("API server ready", "after", time.Since(started).Round(time.Millisecond))
		parts.start(1, "controller manager", controllers)
		parts.start(1, "scheduler", scheduler)
		return s.afterAPI(ctx, id, client, probe, parts)
	})
	parts.start(1, "certificates", func(ctx context.Context) error { return keepRenewed(ctx, id) })
	err = parts.wait()
	if err != nil {
		// Said now: stopping the rest may take a while.
		slog.Error("a part ended by itself; stopping the others", "reason", err)
	}
	s.Notify.Stopping()
	return err
}

// prepare makes the identity and opens the datastore, at the same time: both wait for the disk.
func (s *Server) prepare(id *identity) (*datastore.Store, error) {
	identityDone := make(chan error, 1)
	go func() { identityDone <- id.init() }()
	seeded := false
	store, err := datastore.Start(datastore.Config{Dir: id.paths.db, Socket: s.etcdSocket(), Sync: datastore.Sync(s.Settings.DatastoreSync),
		Seed: func() ([]datastore.Entry, error) { seeded = true; return controlplane.SeedEntries(time.Now()) }})
	if err == nil && seeded {
		markRules(id.paths.rules)
	}
	if idErr := <-identityDone; idErr != nil {
		err = idErr
	}
	if err != nil && store != nil {
		store.Stop()
	}
	return store, err
}

func (s *Server) etcdSocket() string { return filepath.Join(s.RunDir, "kine.sock") }

func (s *Server) controlPlane(id *identity) controlplane.Config {
	c := s.Settings
	advertise := c.AdvertiseAddress
	if advertise == "" {
		advertise = s.NodeIPs[0].String()
	}
	return controlplane.Config{
		TLSDir: id.paths.tls, CredDir: id.paths.cred, EtcdSocket: s.etcdSocket(),
		BindAddress: c.BindAddress, Port: c.HTTPSListenPort, Advertise: advertise,
		ClusterCIDR: c.ClusterCIDR, ServiceCIDR: c.ServiceCIDR, NodePorts: c.ServiceNodePortRange, ClusterDomain: c.ClusterDomain,
		VolumePlugins:  filepath.Join(id.paths.agent, "volumeplugins"),
		APIServerExtra: c.APIServerArgs, ControllerExtra: c.ControllerArgs, SchedulerExtra: c.SchedulerArgs,
	}
}

// afterAPI does what needs a running API server: it writes the objects that nodes join by and approves what they ask for.
func (s *Server) afterAPI(ctx context.Context, id *identity, c *rest.Config, probe *probe, parts *group) error {
	if s.Settings.DisableAgent {
		s.Notify.Status("API server ready")
	}
	go s.Notify.Watchdog(ctx, func(ctx context.Context) error { return probe.get(ctx, "/livez") })
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		return fmt.Errorf("cannot make a client of the API server: %w", err)
	}
	if err := retry(ctx, "cannot write the objects that nodes join by", func() error { return s.writeJoinObjects(ctx, id, k) }); err != nil {
		return err
	}
	close(s.permitted)
	go func() {
		s.ready.Wait() // the node, too, in either order
		s.Notify.Ready()
	}()
	go (&approver{client: k, server: id.reserved(), said: map[string]bool{}}).run(ctx)
	if err := waitControllers(ctx, k); err != nil {
		return err
	}
	s.late.Stop()
	s.ready.Done()
	go ensureRules(ctx, c, id.paths.rules)
	if !s.Settings.DisableAgent {
		go func() {
			_ = retry(ctx, "cannot label the node as one of the control plane", func() error { return labelControlPlane(ctx, k, s.Settings.NodeName) })
		}()
	}
	parts.start(2, "add-ons", func(ctx context.Context) error { return addons.Run(ctx, s.addons(c)) })
	<-ctx.Done()
	return nil
}

// rulesDelay is how long after its start a server looks whether somebody has damaged the cluster's own rules. That takes 150 requests, for which
// a machine on which pods are starting has no time.
const rulesDelay = 10 * time.Minute

// ensureRules adds the rules of a new version at once, and mends those of the same one later. name is the file of the version whose rules
// were last written.
func ensureRules(ctx context.Context, c *rest.Config, name string) {
	if was, err := os.ReadFile(name); err == nil && string(was) == rulesVersion() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rulesDelay):
		}
	}
	controlplane.EnsureRules(ctx, c)
	if ctx.Err() == nil {
		markRules(name)
	}
}

func rulesVersion() string { return componentversion.Get().GitVersion + "\n" }

// markRules notes that the datastore has the rules of this version.
func markRules(name string) {
	if err := durable.WriteFile(name, []byte(rulesVersion()), 0o600); err != nil {
		slog.Warn("cannot note that the cluster has the rules of this version; they are looked at again at the next start", "reason", err)
	}
}

// labelControlPlane gives a node the role that people see and select nodes by
// (https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane). A kubelet may not give itself a role.
func labelControlPlane(ctx context.Context, k kubernetes.Interface, node string) error {
	const patch = `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":"true"}}}`
	_, err := k.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// waitControllers waits for what the controllers do first in a new cluster: the default ServiceAccount. Without it no pod can
// be made, so that whoever had waited for the node would be refused.
func waitControllers(ctx context.Context, k kubernetes.Interface) error {
	return wait.PollUntilContextCancel(ctx, 250*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := k.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
}

// keepRenewed looks at all certificates once a minute, by the wall clock: it may jump by years when time is first set.
func keepRenewed(ctx context.Context, id *identity) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := id.renew(); err != nil {
			// A full disk, most likely. The certificates still hold for months: try again.
			slog.Error("cannot renew certificates; the present ones stay in use", "reason", err)
		}
	}
}

// retry calls f until it succeeds, with pauses that grow to ten seconds, and logs each new reason once.
func retry(ctx context.Context, what string, f func() error) error {
	pause, last := 100*time.Millisecond, ""
	for {
		err := f()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if msg := err.Error(); msg != last {
			slog.Warn(what+"; trying again", "reason", msg)
			last = msg
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(pause*2, 10*time.Second)
	}
}
