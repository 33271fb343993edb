package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/hostgw"
	_ "github.com/flannel-io/flannel/pkg/backend/vxlan"
	"github.com/flannel-io/flannel/pkg/subnet/kube"
	"github.com/vishvananda/netlink"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/knftables"

	"github.com/skerryos/skerry/initd/cluster/containerd"
	"github.com/skerryos/skerry/initd/cluster/durable"
	"github.com/skerryos/skerry/initd/cluster/nodeconfig"
)

// vxlanOverhead is what an outer Ethernet, IPv4, UDP and VXLAN header take of a link's MTU (RFC 7348 section 5).
const vxlanOverhead = 50

// network gives pods of this node addresses and carries their traffic to other nodes, until ctx ends.
func (n *node) network(ctx context.Context) error {
	conf := filepath.Join(containerd.CNIConf, nodeconfig.CNIFile)
	if n.Cluster.FlannelBackend == "none" {
		if err := os.Remove(conf); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot remove our network configuration: %w", err)
		}
		return nil // the operator brings a network
	}
	link, err := n.outerLink()
	if err != nil {
		return err
	}
	if err := masquerade(ctx, n.Cluster.ClusterCIDR); err != nil {
		return err
	}
	cache := filepath.Join(n.AgentDir, "pod-cidr")
	last := lastCIDR(cache)
	if !last.IsValid() {
		if err := removeLinks(); err != nil {
			return err
		}
	}
	if cidr := n.likelyCIDR(last); cidr.IsValid() {
		// kubelet need not wait for the controllers to say the same. No pod starts before them: it needs a ServiceAccount.
		if err := n.writeConflist(conf, cidr, link); err != nil {
			return err
		}
	}
	cidr, err := n.waitPodCIDR(ctx)
	if err != nil {
		return err
	}
	if last.IsValid() && cidr != last {
		if err := removeLinks(); err != nil {
			return err
		}
	}
	if err := n.writeConflist(conf, cidr, link); err != nil {
		return err
	}
	if err := durable.WriteFile(cache, []byte(cidr.String()+"\n"), 0o644); err != nil {
		return err
	}
	slog.Info("pod network configured", "network", cidr, "backend", n.Cluster.FlannelBackend, "link", link.Name)
	return n.flannel(ctx, link)
}

// lastCIDR is the part of the pod network that the node had in its last run in this cluster. It is invalid when there was none.
func lastCIDR(cache string) netip.Prefix {
	b, err := os.ReadFile(cache)
	if err != nil {
		return netip.Prefix{}
	}
	cidr, err := netip.ParsePrefix(strings.TrimSpace(string(b)))
	if err != nil {
		return netip.Prefix{}
	}
	return cidr
}

// podLinks are made by the bridge plugin and by flannel.
var podLinks = []string{nodeconfig.Bridge, "flannel.1"}

// removeLinks removes what another pod network has left in the kernel, as that of a cluster which the node was in before: its addresses
// and routes would stand before those of this one.
func removeLinks() error {
	for _, name := range podLinks {
		link, err := netlink.LinkByName(name)
		if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
			continue
		}
		if err == nil {
			slog.Info("removing the link of an earlier pod network", "link", name)
			err = netlink.LinkDel(link)
		}
		if err != nil {
			return fmt.Errorf("cannot remove link %s of an earlier pod network: %w", name, err)
		}
	}
	return nil
}

// likelyCIDR is the part of the pod network that the node will most likely get: that of its last run, or, on the node that
// founds a cluster, the first. It is invalid when nothing is known.
func (n *node) likelyCIDR(last netip.Prefix) netip.Prefix {
	if last.IsValid() || !n.Founder {
		return last
	}
	all, err := netip.ParsePrefix(n.Cluster.ClusterCIDR)
	if err != nil {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(all.Masked().Addr(), nodeMask)
}

// nodeMask is the size of a node's part, the controller manager's --node-cidr-mask-size for IPv4 by default.
const nodeMask = 24

func (n *node) writeConflist(path string, cidr netip.Prefix, link *net.Interface) error {
	mtu := link.MTU
	if n.Cluster.FlannelBackend == "vxlan" {
		mtu -= vxlanOverhead
	}
	b, err := nodeconfig.Network{PodCIDR: cidr, MTU: mtu, LeaseDir: filepath.Join(n.RunDir, "cni", "leases")}.Conflist()
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b, 0o644)
}

// outerLink is the link that carries traffic to other nodes.
func (n *node) outerLink() (*net.Interface, error) {
	if n.FlannelIface != "" {
		l, err := net.InterfaceByName(n.FlannelIface)
		if err != nil {
			return nil, fmt.Errorf("cannot use link %s for the pod network: %w", n.FlannelIface, err)
		}
		return l, nil
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list network links: %w", err)
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == n.IPs[0] {
				return &l, nil
			}
		}
	}
	return nil, fmt.Errorf("cannot find the link of the node's address %s; name one with --flannel-iface", n.IPs[0])
}

// waitCredentials returns when the node's kubeconfig can be used: on a joining node kubelet writes it first, and gets the certificate
// that it names afterwards.
func (n *node) waitCredentials(ctx context.Context) error {
	return retry(ctx, "the node's certificate", func() (bool, error) {
		_, err := clientcmd.BuildConfigFromFlags("", n.Kubeconfig) // reads the files that it names, too
		return err == nil, err
	})
}

// waitPermitted returns when the node has credentials and may use them for more than what every kubelet may.
func (n *node) waitPermitted(ctx context.Context) error {
	if err := n.waitCredentials(ctx); err != nil {
		return err
	}
	if n.Permitted == nil {
		return nil
	}
	select {
	case <-n.Permitted:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waitPodCIDR returns the part of the pod network that the controller manager gives to this node.
func (n *node) waitPodCIDR(ctx context.Context) (netip.Prefix, error) {
	var cidr netip.Prefix
	err := n.waitNode(ctx, "the node's part of the pod network", func(node *core.Node) (bool, error) {
		if node.Spec.PodCIDR == "" {
			return false, nil
		}
		var err error
		cidr, err = netip.ParsePrefix(node.Spec.PodCIDR)
		return err == nil, err
	})
	return cidr, err
}

// waitRegistered returns when the cluster knows the node and its addresses.
func (n *node) waitRegistered(ctx context.Context) error {
	return n.waitNode(ctx, "the node's registration", func(node *core.Node) (bool, error) { return len(node.Status.Addresses) > 0, nil })
}

// waitNode asks for this machine's Node until done is satisfied with it.
func (n *node) waitNode(ctx context.Context, what string, done func(*core.Node) (bool, error)) error {
	if err := n.waitCredentials(ctx); err != nil {
		return err
	}
	c, err := clientcmd.BuildConfigFromFlags("", n.Kubeconfig)
	if err != nil {
		return fmt.Errorf("cannot make a client of the API server: %w", err)
	}
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		return fmt.Errorf("cannot make a client of the API server: %w", err)
	}
	return retry(ctx, what, func() (bool, error) {
		node, err := k.CoreV1().Nodes().Get(ctx, n.Name, meta.GetOptions{})
		if err != nil {
			return false, err
		}
		return done(node)
	})
}

// flannel exchanges routes with the other nodes until ctx ends.
func (n *node) flannel(ctx context.Context, link *net.Interface) error {
	if err := n.waitPermitted(ctx); err != nil {
		return err
	}
	conf, err := json.Marshal(map[string]any{
		"Network": n.Cluster.ClusterCIDR,
		"Backend": map[string]any{"Type": n.Cluster.FlannelBackend},
	})
	if err != nil {
		return fmt.Errorf("cannot encode flannel's configuration: %w", err)
	}
	path := filepath.Join(n.RunDir, "flannel.json")
	if err := durable.WriteFile(path, conf, 0o644); err != nil {
		return err
	}
	// The library takes the node's name from the environment only.
	if err := os.Setenv("NODE_NAME", n.Name); err != nil {
		return fmt.Errorf("cannot tell flannel the node's name: %w", err)
	}
	manager, err := kube.NewSubnetManager(ctx, "", n.Kubeconfig, "flannel.alpha.coreos.com", path, false)
	if err != nil {
		return fmt.Errorf("cannot start flannel: %w", err)
	}
	config, err := manager.GetNetworkConfig(ctx)
	if err != nil {
		return fmt.Errorf("cannot start flannel: %w", err)
	}
	ip := net.IP(n.IPs[0].AsSlice())
	outer := &backend.ExternalInterface{Iface: link, IfaceName: link.Name, IfaceAddr: ip, ExtAddr: ip}
	be, err := backend.NewManager(ctx, manager, outer).GetBackend(config.BackendType)
	if err != nil {
		return fmt.Errorf("cannot start flannel's backend %s: %w", config.BackendType, err)
	}
	var wg sync.WaitGroup
	network, err := be.RegisterNetwork(ctx, &wg, config)
	if err != nil {
		return fmt.Errorf("cannot start flannel's backend %s: %w", config.BackendType, err)
	}
	network.Run(ctx)
	wg.Wait()
	if ctx.Err() == nil {
		return errors.New("flannel ended without an error")
	}
	return nil
}

// masquerade gives traffic that leaves the pod network the node's address. Traffic between pods keeps theirs, on
// whichever nodes they are: NetworkPolicies and logs need to see it.
func masquerade(ctx context.Context, clusterCIDR string) error {
	nft, err := knftables.New(knftables.IPv4Family, "skerry-pods")
	if err != nil {
		return fmt.Errorf("cannot use nftables for the pod network: %w; it needs the program nft and the kernel's nf_tables", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pods reach the outside world by their node's address")})
	chain := &knftables.Chain{
		Name: "postrouting", Type: knftables.PtrTo(knftables.NATType),
		Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority),
	}
	tx.Add(chain)
	tx.Flush(chain)
	tx.Add(&knftables.Rule{Chain: chain.Name, Rule: knftables.Concat("ip saddr", clusterCIDR, "ip daddr", clusterCIDR, "return")})
	tx.Add(&knftables.Rule{Chain: chain.Name, Rule: knftables.Concat("ip saddr", clusterCIDR, "ip daddr != 224.0.0.0/4", "masquerade fully-random")})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("cannot write the masquerading rules of the pod network: %w", err)
	}
	return nil
}
