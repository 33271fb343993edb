package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	"k8s.io/kubernetes/pkg/kubelet/util"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"

	"github.com/skerryos/skerry/initd/cluster/containerd"
)

// kubelet runs kubelet without its command: that installs a handler of signals, of which one process can have one.
func (n *node) kubelet(ctx context.Context) error {
	n.OnStatus("waiting for containerd")
	if err := containerd.Wait(ctx, n.Endpoint); err != nil {
		return err
	}
	n.OnStatus("starting kubelet")
	server, err := n.kubeletServer(ctx)
	if err != nil {
		return err
	}
	deps, err := kubelet.UnsecuredDependencies(ctx, server, utilfeature.DefaultFeatureGate)
	if err != nil {
		return fmt.Errorf("cannot prepare kubelet: %w", err)
	}
	deps.NodeStartupLatencyTracker = &readyTracker{
		NodeStartupLatencyTracker: util.NewNodeStartupLatencyTracker(klog.FromContext(ctx)),
		ready:                     sync.OnceFunc(n.OnReady),
	}
	if err := kubelet.Run(ctx, server, deps, utilfeature.DefaultFeatureGate); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return errors.New("it ended without an error")
	}
	return nil
}

// readyTracker learns from kubelet when the API server has stored that this node is Ready. The Node object alone does
// not tell: after a power cut it says Ready from before.
type readyTracker struct {
	util.NodeStartupLatencyTracker
	ready func()
}

func (t *readyTracker) RecordNodeReady() {
	t.NodeStartupLatencyTracker.RecordNodeReady()
	t.ready()
}

// kubeletServer reads kubelet's configuration file and flags as its own command does: file first, then the operator's flags.
func (n *node) kubeletServer(ctx context.Context) (*options.KubeletServer, error) {
	loader, err := configfiles.NewFsLoader(&utilfs.DefaultFs{}, n.kubeletConfig())
	if err != nil {
		return nil, fmt.Errorf("cannot read kubelet's configuration: %w", err)
	}
	config, err := loader.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read kubelet's configuration: %w", err)
	}
	flags := options.NewKubeletFlags()
	if err := parseKubelet(flags, config, n.kubeletFlags()); err != nil {
		return nil, err
	}
	if err := options.ValidateKubeletFlags(flags); err != nil {
		return nil, fmt.Errorf("cannot use kubelet's flags: %w", err)
	}
	if err := validation.ValidateKubeletConfiguration(config, utilfeature.DefaultFeatureGate); err != nil {
		return nil, fmt.Errorf("cannot use kubelet's configuration %s: %w", n.kubeletConfig(), err)
	}
	return &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}, nil
}

func parseKubelet(flags *options.KubeletFlags, config *kubeletconfig.KubeletConfiguration, args []string) error {
	fs := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	fs.Usage = func() {}
	flags.AddFlags(fs)
	options.AddKubeletConfigFlags(fs, config)
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("cannot use the arguments of kubelet: %w", err)
	}
	return nil
}

func (n *node) kubeletFlags() []string {
	args := []string{
		"--kubeconfig=" + n.Kubeconfig,
		"--hostname-override=" + n.Name,
		"--cert-dir=" + filepath.Join(n.AgentDir, "pki"),
		"--root-dir=/var/lib/kubelet", // where CSI drivers and backup tools look for volumes
	}
	if len(n.IPs) > 0 {
		args = append(args, "--node-ip="+joinAddrs(n.IPs[:1]))
	}
	if n.Bootstrap != "" {
		args = append(args, "--bootstrap-kubeconfig="+n.Bootstrap)
	}
	if len(n.Labels) > 0 {
		args = append(args, "--node-labels="+strings.Join(n.Labels, ","))
	}
	return append(args, dashed(n.KubeletArgs)...)
}

// kubeProxy runs kube-proxy without its command. It does not end with its context but with the process, so it is left
// behind: its rules in the kernel stay anyway.
func (n *node) kubeProxy(ctx context.Context) error {
	if err := n.waitPermitted(ctx); err != nil {
		return err
	}
	if n.Bootstrap != "" {
		// A kube-proxy that does not find its Node within half a minute ends the process.
		if err := n.waitRegistered(ctx); err != nil {
			return err
		}
	}
	o := proxy.NewOptions()
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	fs.Usage = func() {}
	o.AddFlags(fs)
	if err := fs.Parse(append([]string{"--config=" + n.proxyConfig()}, dashed(n.ProxyArgs)...)); err != nil {
		return fmt.Errorf("cannot use the arguments of kube-proxy: %w", err)
	}
	if err := o.Complete(fs); err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		if err == nil {
			err = errors.New("it ended without an error")
		}
		return err
	}
}

func dashed(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = "--" + strings.TrimLeft(a, "-")
	}
	return out
}

func joinAddrs(addrs []netip.Addr) string {
	s := make([]string, len(addrs))
	for i, a := range addrs {
		s[i] = a.String()
	}
	return strings.Join(s, ",")
}
