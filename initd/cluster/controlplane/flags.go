package controlplane

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Config is what the control plane's flags are made from. All paths are absolute.
type Config struct {
	TLSDir      string // folder of package pki's store
	CredDir     string // folder of kubeconfigs and of the encryption configuration
	EtcdSocket  string
	BindAddress string
	Port        int
	// Advertise is the address that pods reach the API server at, behind the service "kubernetes".
	Advertise     string
	ClusterCIDR   string
	ServiceCIDR   string
	NodePorts     string
	ClusterDomain string
	// VolumePlugins is a folder that may be written: the default is on a root file system that is read-only.
	VolumePlugins string

	// Extra are an operator's "flag=value", which win over ours.
	APIServerExtra, ControllerExtra, SchedulerExtra []string
}

func (c Config) tls(name string) string { return filepath.Join(c.TLSDir, name) }

// APIServerFlags gives the API server's command line.
func (c Config) APIServerFlags() []string {
	issuer := "https://kubernetes.default.svc." + c.ClusterDomain
	return with(c.APIServerExtra,
		"advertise-address="+c.Advertise,
		"anonymous-auth=true", // the join of a node and health checks; RBAC decides what it may see
		"api-audiences="+issuer,
		"authorization-mode=Node,RBAC",
		"bind-address="+c.BindAddress,
		"client-ca-file="+c.tls("client-ca.crt"),
		"enable-admission-plugins=NodeRestriction",
		"enable-bootstrap-token-auth=true",
		"encryption-provider-config="+filepath.Join(c.CredDir, "encryption-config.json"),
		// One server needs nothing that tells several of them apart, and what there is for it writes every ten seconds: docs/decisions/0016.
		"endpoint-reconciler-type=master-count",
		// The default of two seconds is shorter than some memory cards stall; then the controllers give up, and the process with them.
		"etcd-healthcheck-timeout=20s",
		"etcd-readycheck-timeout=20s",
		"etcd-servers=unix://"+c.EtcdSocket,
		"feature-gates=UnknownVersionInteroperabilityProxy=false",
		"kubelet-certificate-authority="+c.tls("server-ca.crt"),
		"kubelet-client-certificate="+c.tls("client-kube-apiserver.crt"),
		"kubelet-client-key="+c.tls("client-kube-apiserver.key"),
		"kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		"profiling=false",
		"proxy-client-cert-file="+c.tls("client-auth-proxy.crt"),
		"proxy-client-key-file="+c.tls("client-auth-proxy.key"),
		"requestheader-allowed-names=system:auth-proxy",
		"requestheader-client-ca-file="+c.tls("request-header-ca.crt"),
		"requestheader-extra-headers-prefix=X-Remote-Extra-",
		"requestheader-group-headers=X-Remote-Group",
		"requestheader-username-headers=X-Remote-User",
		fmt.Sprint("secure-port=", c.Port),
		"service-account-issuer="+issuer,
		"service-account-key-file="+c.tls("service.key"),
		"service-account-signing-key-file="+c.tls("service.key"),
		"service-cluster-ip-range="+c.ServiceCIDR,
		"service-node-port-range="+c.NodePorts,
		"shutdown-send-retry-after=true", // else a stop waits a minute for whoever watches something
		"tls-cert-file="+c.tls("serving-kube-apiserver.crt"),
		"tls-private-key-file="+c.tls("serving-kube-apiserver.key"),
	)
}

// ControllerFlags gives the controller manager's command line.
//
// It serves nothing of its own (secure-port 0): its metrics are in the API server's, with which it shares a process, and so
// is its health: the process ends with it. That saves a listener, two informers and an RSA key at each start.
func (c Config) ControllerFlags() []string {
	return with(c.ControllerExtra,
		"allocate-node-cidrs=true",
		"cluster-cidr="+c.ClusterCIDR,
		"cluster-signing-kube-apiserver-client-cert-file="+c.tls("client-ca.crt"),
		"cluster-signing-kube-apiserver-client-key-file="+c.tls("client-ca.key"),
		"cluster-signing-kubelet-client-cert-file="+c.tls("client-ca.crt"),
		"cluster-signing-kubelet-client-key-file="+c.tls("client-ca.key"),
		"cluster-signing-kubelet-serving-cert-file="+c.tls("server-ca.crt"),
		"cluster-signing-kubelet-serving-key-file="+c.tls("server-ca.key"),
		"cluster-signing-legacy-unknown-cert-file="+c.tls("server-ca.crt"),
		"cluster-signing-legacy-unknown-key-file="+c.tls("server-ca.key"),
		"controllers=*,bootstrap-signer-controller,token-cleaner-controller",
		"flex-volume-plugin-dir="+c.VolumePlugins,
		// The default of 20 requests a second makes the first pod wait ten seconds for its ServiceAccount.
		"kube-api-qps=300",
		"kube-api-burst=500",
		"kubeconfig="+filepath.Join(c.CredDir, "controller.kubeconfig"),
		"leader-elect=false", // there is one process, and each lease renewal is a write to a flash card
		"profiling=false",
		"root-ca-file="+c.tls("server-ca.crt"),
		"secure-port=0",
		"service-account-private-key-file="+c.tls("service.key"),
		"service-cluster-ip-range="+c.ServiceCIDR,
		"use-service-account-credentials=true",
	)
}

// SchedulerFlags gives the scheduler's command line.
func (c Config) SchedulerFlags() []string {
	return with(c.SchedulerExtra,
		"kube-api-qps=300",
		"kube-api-burst=500",
		"kubeconfig="+filepath.Join(c.CredDir, "scheduler.kubeconfig"),
		"leader-elect=false",
		"profiling=false",
		"secure-port=0",
	)
}

// with prefixes each flag with "--" and lets an operator's flag of the same name replace ours.
func with(extra []string, ours ...string) []string {
	named := map[string]bool{}
	for _, e := range extra {
		name, _, _ := strings.Cut(strings.TrimLeft(e, "-"), "=")
		named[name] = true
	}
	var out []string
	for _, f := range ours {
		if name, _, _ := strings.Cut(f, "="); !named[name] {
			out = append(out, "--"+f)
		}
	}
	for _, e := range extra {
		out = append(out, "--"+strings.TrimLeft(e, "-"))
	}
	return out
}
