package server

import (
	"log/slog"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"

	"github.com/skerryos/skerry/initd/cluster/addons"
	"github.com/skerryos/skerry/initd/cluster/node"
	"github.com/skerryos/skerry/initd/cluster/pki"
)

// nodeCluster is what all nodes of this cluster agree on. It is called after the identity is made.
func (s *Server) nodeCluster() node.Cluster {
	c := s.Settings
	crt, _ := pki.Store{Dir: pathsOf(c).tls}.Path(pki.ClientCA)
	ca, err := os.ReadFile(crt)
	if err != nil {
		// It was made a moment ago; without it nodes could not trust the API server's calls.
		slog.Error("cannot read the authority of clients", "reason", err)
	}
	return node.Cluster{
		ClusterCIDR: c.ClusterCIDR, ClusterDNS: c.ClusterDNS, ClusterDomain: c.ClusterDomain,
		FlannelBackend: c.FlannelBackend, DisableKubeProxy: c.DisableKubeProxy, ClientCA: string(ca),
	}
}

// nodeConfig is the node on this machine. Its certificates are issued here, without asking the API server.
func (s *Server) nodeConfig(id *identity) node.Config {
	c := s.Settings
	clientCA, _ := id.store.Path(pki.ClientCA)
	serving, servingKey := id.store.Files(pki.Leaf{Dir: id.paths.agent, Name: "serving-kubelet"})
	return node.Config{
		Name: c.NodeName, IPs: s.NodeIPs, DataDir: c.DataDir, AgentDir: id.paths.agent, RunDir: s.RunDir,
		Kubeconfig: id.nodeKubeconfig(), ClientCA: clientCA, ServingCert: serving, ServingKey: servingKey,
		Cluster:  s.nodeCluster(),
		Endpoint: c.ContainerRuntimeEndpoint, PauseImage: c.PauseImage, ResolvConf: c.ResolvConf, FlannelIface: c.FlannelIface,
		Labels: c.NodeLabels, Taints: c.NodeTaints, KubeletArgs: c.KubeletArgs, ProxyArgs: c.KubeProxyArgs,
		Founder:   true,
		Permitted: s.permitted,
		OnReady:   func() { s.Notify.Status("node Ready"); s.ready.Done() },
		OnStatus:  s.Notify.Status,
	}
}

// addons are the system workloads and the operator's manifests.
func (s *Server) addons(client *rest.Config) addons.Options {
	c := s.Settings
	return addons.Options{
		Client:      client,
		ManifestDir: filepath.Join(c.DataDir, "server", "manifests"),
		Values:      addons.Values{ClusterDNS: c.ClusterDNS, ClusterDomain: c.ClusterDomain, StoragePath: filepath.Join(c.DataDir, "storage"), Image: c.PauseImage},
		Disable:     c.Disable,
	}
}
