// Package addons keeps the add-ons of a cluster applied: the built-in ones (DNS, local storage, metrics), and the manifests that an
// operator puts into the server's manifests directory, as with K3s.
//
// An add-on is a YAML file, or several documents in one. Its name is the file's name up to the first dot. A file named
// like a built-in add-on takes its place; an empty NAME.yaml.skip beside it leaves the add-on and what it has made in
// the cluster as they are; a name in Options.Disable removes its objects. Removing a file removes nothing, as with K3s.
//
// The API server may be anywhere between not started and busy when Run is called: everything is retried with back-off, and an
// add-on that cannot be applied does not hold up the others.
package addons

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/record"
)

// fieldManager owns, in the sense of server-side apply, the fields that add-ons set.
const fieldManager = "skerry"

// Options are what Run needs to know. Client and ManifestDir are required.
type Options struct {
	// Client reaches the API server with the rights of a cluster administrator. Run lifts its rate limit.
	Client *rest.Config
	// ManifestDir holds the operator's add-ons; it is made when missing, and watched.
	ManifestDir string
	// Values fill the built-in manifests.
	Values Values
	// Disable are the names of add-ons, built in or not, that shall not run.
	Disable []string
	Log     *slog.Logger
}

// Values are what the built-in manifests take from the configuration. The zero value of a field means its default.
type Values struct {
	ClusterDNS    string // address of the DNS service; default 10.43.0.10
	ClusterDomain string // default cluster.local
	StoragePath   string // directory on each node for volumes of local-path; default /var/lib/skerry/storage
	Image         string // image of the add-ons' pods, which needs nothing in it; default skerry.internal/pause:1
	Binary        string // skerryd on each node; default is the running program's path
}

func (v Values) withDefaults() (Values, error) {
	def := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	def(&v.ClusterDNS, "10.43.0.10")
	def(&v.ClusterDomain, "cluster.local")
	def(&v.StoragePath, "/var/lib/skerry/storage")
	def(&v.Image, "skerry.internal/pause:1")
	if v.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return v, fmt.Errorf("cannot find the path of this program for the add-ons' pods: %w", err)
		}
		v.Binary = self
	}
	return v, nil
}

// Run applies the add-ons, then waits for changes of the manifests directory until ctx is done, and returns nil. An error
// means that it could not even begin: bad options, or a manifests directory that cannot be made.
func Run(ctx context.Context, o Options) error {
	values, err := o.Values.withDefaults()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.ManifestDir, 0o700); err != nil {
		return fmt.Errorf("cannot make the manifests directory: %w", err)
	}
	dir, err := filepath.Abs(o.ManifestDir)
	if err != nil {
		return fmt.Errorf("cannot find the manifests directory: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	config := rest.CopyConfig(o.Client)
	config.QPS = -1 // the API server is in this machine, and boot time counts
	config.UserAgent = "skerry-addons"
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cannot make the add-ons' API client: %w", err)
	}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cannot make the add-ons' API client: %w", err)
	}
	events := record.NewBroadcaster(record.WithContext(ctx))
	defer events.Shutdown()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: typed.CoreV1().Events("")})

	d := &deployer{
		client:  client,
		mapper:  newMapper(typed.Discovery()),
		events:  events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "skerry-addons"}),
		log:     log,
		source:  source{dir: dir, values: values, disabled: o.Disable},
		now:     time.Now,
		pending: map[string]*attempt{},
	}
	if !slices.Contains(o.Disable, "coredns") {
		go keepNodeHosts(ctx, typed, log)
	}
	d.run(ctx)
	return nil
}

func newMapper(d discovery.DiscoveryInterface) *mapper {
	return &mapper{known: builtinKinds(), discovered: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))}
}

// repairDelay is how long after its start Run looks once at every object for damage done while the server was down. It is
// not done in the first pass, because the machine is then busy starting what runs on it.
const repairDelay = time.Minute

// run is Run's loop. Its three causes to act are a changed directory, a retry that is due, and the one repair.
func (d *deployer) run(ctx context.Context) {
	changed := d.watch(ctx)
	repair := time.NewTimer(repairDelay)
	defer repair.Stop()
	for {
		next := d.pass(ctx)
		retry := make(<-chan time.Time)
		if next > 0 {
			retry = time.After(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry:
		case <-repair.C:
			if err := d.repair(ctx); err != nil && !errors.Is(err, context.Canceled) {
				d.log.Warn("cannot look for damaged add-ons", "error", err)
			}
		}
	}
}
