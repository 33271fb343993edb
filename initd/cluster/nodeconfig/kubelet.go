// Package nodeconfig writes the configuration of what a node runs: kubelet, kube-proxy, containerd and the pod network. All
// of it is derived anew at each start, nothing is edited in place. The package imports nothing of Kubernetes.
package nodeconfig

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Kubelet is what kubelet's configuration is made from. Paths are absolute.
type Kubelet struct {
	ClientCA string // who may call kubelet
	// TLSCert and TLSKey serve kubelet's own API; empty: kubelet asks the cluster for a certificate.
	TLSCert, TLSKey string
	// RotateCertificates lets kubelet renew its client certificate; false where package pki does so.
	RotateCertificates bool
	Endpoint           string // of containerd, unix:///…
	ClusterDNS         string
	ClusterDomain      string
	ResolvConf         string
	StaticPods         string // folder of manifests
	VolumePlugins      string
	Taints             []string // key=value:effect
}

// Config gives the file for kubelet's --config. JSON is YAML, and keys come out sorted.
func (k Kubelet) Config() ([]byte, error) {
	taints := []map[string]string{}
	for _, t := range k.Taints {
		kv, effect, ok := strings.Cut(t, ":")
		if !ok {
			return nil, fmt.Errorf("cannot use taint %q: it has no effect", t)
		}
		key, value, _ := strings.Cut(kv, "=")
		taints = append(taints, map[string]string{"key": key, "value": value, "effect": effect})
	}
	c := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true, "cacheTTL": "2m"},
			"x509":      map[string]any{"clientCAFile": k.ClientCA},
		},
		"authorization": map[string]any{"mode": "Webhook"},
		"cgroupDriver":  "cgroupfs", // init is no systemd; pods live under /kubepods
		"clusterDNS":    []string{k.ClusterDNS},
		"clusterDomain": k.ClusterDomain,

		"containerRuntimeEndpoint": k.Endpoint,
		// Small machines: what is left must do for the eviction itself, no more.
		"evictionHard": map[string]string{
			"memory.available": "40Mi", "nodefs.available": "5%", "nodefs.inodesFree": "3%", "imagefs.available": "5%",
		},
		"evictionMinimumReclaim": map[string]string{"nodefs.available": "5%", "imagefs.available": "5%"},
		"failSwapOn":             false,
		"healthzBindAddress":     "127.0.0.1",
		// kube-proxy writes nftables; kubelet's own iptables chains would need a binary that is not there.
		"makeIPTablesUtilChains": false,
		"registerWithTaints":     taints,
		"resolvConf":             k.ResolvConf,
		"rotateCertificates":     k.RotateCertificates,
		"seccompDefault":         true,
		"serializeImagePulls":    false,
		"maxParallelImagePulls":  3,
		"serverTLSBootstrap":     k.TLSCert == "",
		"staticPodPath":          k.StaticPods,
		"volumePluginDir":        k.VolumePlugins,
	}
	if k.TLSCert != "" {
		c["tlsCertFile"], c["tlsPrivateKeyFile"] = k.TLSCert, k.TLSKey
	}
	return marshal(c)
}

// KubeProxy is what kube-proxy's configuration is made from.
type KubeProxy struct {
	Kubeconfig  string
	ClusterCIDR string
	NodeName    string
}

// Config gives the file for kube-proxy's --config.
func (k KubeProxy) Config() ([]byte, error) {
	return marshal(map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clientConnection":   map[string]any{"kubeconfig": k.Kubeconfig},
		"clusterCIDR":        k.ClusterCIDR,
		"hostnameOverride":   k.NodeName,
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		// The kernel scales its connection table with memory; kube-proxy's figure for each core takes too much of a small one.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
	})
}

func marshal(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot encode a node's configuration: %w", err)
	}
	return append(b, '\n'), nil
}
