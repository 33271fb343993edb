// Package node runs what makes a machine a node: kubelet, kube-proxy and the pod network, as goroutines of this process, and
// containerd as a child where no supervisor runs it.
//
// Everything is started at once and waits for what it needs: kubelet's own start takes about as long as the API server's.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/skerryos/skerry/initd/cluster/containerd"
	"github.com/skerryos/skerry/initd/cluster/durable"
	"github.com/skerryos/skerry/initd/cluster/nodeconfig"
)

// Config is what a node is made from. Paths are absolute.
type Config struct {
	Name    string
	IPs     []netip.Addr // of this machine, the first one is the node's
	DataDir string
	// AgentDir is the node's part of DataDir, RunDir a folder on a tmpfs.
	AgentDir, RunDir string

	// Kubeconfig is the node's own. With Bootstrap set, kubelet makes it on its first start by the token in that file.
	Kubeconfig, Bootstrap string
	ClientCA              string
	// ServingCert and ServingKey are kubelet's own; empty: it asks the cluster for a certificate.
	ServingCert, ServingKey string

	Cluster Cluster

	// Endpoint of a containerd that somebody else runs, empty to start one.
	Endpoint     string
	PauseImage   string
	ResolvConf   string
	FlannelIface string
	Labels       []string
	Taints       []string
	KubeletArgs  []string
	ProxyArgs    []string

	// Founder marks the node beside the control plane: it is the first of its cluster.
	Founder bool
	// Permitted, when set, is closed when the cluster has the rules that let nodes read Services and other nodes.
	Permitted <-chan struct{}
	// OnReady is called once, when the API server has taken this kubelet's word that the node is Ready: what it
	// says of an earlier run does not count.
	OnReady func()
	// OnStatus tells in a few words what the node is waiting for.
	OnStatus func(format string, args ...any)
}

// Cluster is what all nodes of a cluster agree on; the server publishes it.
type Cluster struct {
	ClusterCIDR      string `json:"clusterCIDR"`
	ClusterDNS       string `json:"clusterDNS"`
	ClusterDomain    string `json:"clusterDomain"`
	FlannelBackend   string `json:"flannelBackend"`
	DisableKubeProxy bool   `json:"disableKubeProxy"`
	// ClientCA is the authority of clients in PEM: kubelet trusts it.
	ClientCA string `json:"clientCA"`
}

// LayoutDir holds the images that came with the system.
const LayoutDir = "/usr/share/skerry/images"

// Run runs the node until ctx ends, which gives nil, or until a part ends by itself. Containers go on running.
func Run(ctx context.Context, c Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unclean, err := markRunning(c.AgentDir)
	if err != nil {
		return err
	}
	if err := prepareHost(); err != nil {
		return err
	}
	if err := c.writeFiles(); err != nil {
		return err
	}
	n := &node{Config: c, failed: make(chan error, 1)}
	if c.Endpoint == "" {
		n.Endpoint = "unix://" + containerd.Socket
		n.start(ctx, "containerd", func(ctx context.Context) error { return containerd.Run(ctx, c.DataDir, c.PauseImage) })
	}
	n.start(ctx, "images", func(ctx context.Context) error { return n.importImages(ctx, unclean) })
	n.start(ctx, "kubelet", n.kubelet)
	n.start(ctx, "pod network", n.network)
	if !c.Cluster.DisableKubeProxy {
		n.start(ctx, "kube-proxy", n.kubeProxy)
	}
	select {
	case <-ctx.Done():
	case err = <-n.failed:
	}
	cancel()
	n.wg.Wait()
	if err == nil {
		err = markStopped(c.AgentDir)
	}
	return err
}

type node struct {
	Config
	wg     sync.WaitGroup
	failed chan error
}

// start runs a part. One that returns an error ends the node; one that returns nil has done its work.
func (n *node) start(ctx context.Context, name string, run func(context.Context) error) {
	n.wg.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			select {
			case n.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	})
}

func (n *node) kubeletConfig() string { return filepath.Join(n.AgentDir, "etc", "kubelet.json") }
func (n *node) proxyConfig() string   { return filepath.Join(n.AgentDir, "etc", "kube-proxy.json") }

// writeFiles writes the configuration that kubelet and kube-proxy read. The files stay for people to look at.
func (c Config) writeFiles() error {
	n := node{Config: c}
	resolv, err := c.resolvConf()
	if err != nil {
		return err
	}
	endpoint := c.Endpoint
	if endpoint == "" {
		endpoint = "unix://" + containerd.Socket
	}
	kubelet, err := nodeconfig.Kubelet{
		ClientCA: c.ClientCA, TLSCert: c.ServingCert, TLSKey: c.ServingKey, RotateCertificates: c.Bootstrap != "",
		Endpoint: endpoint, ClusterDNS: c.Cluster.ClusterDNS, ClusterDomain: c.Cluster.ClusterDomain, ResolvConf: resolv,
		StaticPods: filepath.Join(c.AgentDir, "pod-manifests"), VolumePlugins: filepath.Join(c.AgentDir, "volumeplugins"),
		Taints: c.Taints,
	}.Config()
	if err != nil {
		return err
	}
	proxy, err := nodeconfig.KubeProxy{Kubeconfig: c.Kubeconfig, ClusterCIDR: c.Cluster.ClusterCIDR, NodeName: c.Name}.Config()
	if err != nil {
		return err
	}
	for _, dir := range []string{"pod-manifests", "volumeplugins", "images"} {
		if err := os.MkdirAll(filepath.Join(c.AgentDir, dir), 0o700); err != nil {
			return fmt.Errorf("cannot make the node's folders: %w", err)
		}
	}
	if err := durable.WriteFile(n.kubeletConfig(), kubelet, 0o600); err != nil {
		return err
	}
	return durable.WriteFile(n.proxyConfig(), proxy, 0o600)
}

// resolvConf gives the file that pods get their DNS from.
func (c Config) resolvConf() (string, error) {
	if c.ResolvConf != "" {
		return c.ResolvConf, nil
	}
	path, content := nodeconfig.ResolvConf([]string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}, os.ReadFile)
	if path != "" {
		return path, nil
	}
	path = filepath.Join(c.RunDir, "resolv.conf")
	return path, durable.WriteFile(path, content, 0o644)
}

// runningFile is there while the node runs: found at a start, the machine lost power or the process was killed.
const runningFile = "running"

func markRunning(dir string) (unclean bool, err error) {
	path := filepath.Join(dir, runningFile)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, fmt.Errorf("cannot tell this boot from others: %w", err)
	}
	old, err := os.ReadFile(path)
	// Killed within one boot, the process has lost nothing: the kernel holds all that it wrote.
	unclean = err == nil && !slices.Equal(old, boot)
	return unclean, durable.WriteFile(path, boot, 0o600)
}

func markStopped(dir string) error {
	if err := os.Remove(filepath.Join(dir, runningFile)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("cannot note that the node has stopped: %w", err)
	}
	return durable.SyncDir(dir)
}

// retry calls f every 200 ms, and less often the longer it takes, until it says done. Each new reason is logged once it
// has lasted for ten seconds.
func retry(ctx context.Context, what string, f func() (done bool, err error)) error {
	const shortest, longest = 200 * time.Millisecond, 2 * time.Second
	since, last := time.Now(), ""
	for {
		begun := time.Now()
		done, err := f()
		if done {
			return nil
		}
		if err != nil && time.Since(since) > 10*time.Second && err.Error() != last {
			last = err.Error()
			slog.Warn("still waiting: "+what, "reason", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(max(shortest, 10*time.Since(begun)), longest)):
		}
	}
}
