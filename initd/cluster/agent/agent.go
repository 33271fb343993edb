package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"

	"github.com/skerryos/skerry/initd/cluster/node"
	"github.com/skerryos/skerry/initd/cluster/notify"
	"github.com/skerryos/skerry/initd/cluster/settings"
	"github.com/skerryos/skerry/initd/cluster/token"
)

// Run joins the machine to the server in its settings and runs it as a node until ctx ends.
func Run(ctx context.Context, s *settings.Settings, n *notify.Notifier, ips []netip.Addr, runDir string) error {
	t, err := token.Parse(s.Token)
	if err != nil {
		return err
	}
	m := membership{dir: filepath.Join(s.DataDir, "agent"), name: s.NodeName, url: s.Endpoint(), token: t}
	cluster, err := m.join(ctx, n.Status)
	if err != nil {
		return err
	}
	go n.Watchdog(ctx, kubeletAlive)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		if err := m.follow(ctx, n.Status); err != nil {
			n.Stopping()
			stop(err)
		}
	}()
	err = node.Run(ctx, node.Config{
		Name: s.NodeName, IPs: ips, DataDir: s.DataDir, AgentDir: m.dir, RunDir: runDir,
		Kubeconfig: m.path("kubelet.kubeconfig"), Bootstrap: m.path("bootstrap.kubeconfig"), ClientCA: m.path("client-ca.crt"),
		Cluster:  cluster,
		Endpoint: s.ContainerRuntimeEndpoint, PauseImage: s.PauseImage, ResolvConf: s.ResolvConf, FlannelIface: s.FlannelIface,
		Labels: s.NodeLabels, Taints: s.NodeTaints, KubeletArgs: s.KubeletArgs, ProxyArgs: s.KubeProxyArgs,
		OnReady:  func() { n.Status("node Ready"); n.Ready() },
		OnStatus: n.Status,
	})
	if cause := context.Cause(ctx); err == nil && errors.Is(cause, errStartAgain) {
		err = cause
	}
	return err
}

// kubeletAlive asks kubelet whether its loop turns.
func kubeletAlive(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:10248/healthz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("kubelet answers %s", res.Status)
	}
	return nil
}
