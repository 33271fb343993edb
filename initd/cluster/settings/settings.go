// Package settings is the configuration of skerryd: flags, environment and files, with the names of K3s wherever K3s
// has the same thing, so that its documentation and its config.yaml go on working.
package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/skerryos/skerry/initd/cluster/token"
)

// Role says which of a cluster's parts a machine runs.
type Role string

const (
	Server Role = "server" // control plane, and a node unless disabled
	Agent  Role = "agent"  // a node only
)

// Settings is what an operator can choose. After Load every field is valid and defaults are filled in.
type Settings struct {
	Role Role

	// Both roles.
	ConfigFile               string
	DataDir                  string
	Token                    string
	TokenFile                string
	NodeName                 string
	NodeIP                   []string
	NodeExternalIP           []string
	NodeLabels               []string
	NodeTaints               []string
	ContainerRuntimeEndpoint string
	PauseImage               string
	ResolvConf               string
	FlannelIface             string
	KubeletArgs              []string
	KubeProxyArgs            []string
	Verbosity                int
	Debug                    bool

	// Agent.
	ServerURL string

	// Server.
	ClusterCIDR          string
	ServiceCIDR          string
	ServiceNodePortRange string
	ClusterDNS           string
	ClusterDomain        string
	FlannelBackend       string
	BindAddress          string
	HTTPSListenPort      int
	AdvertiseAddress     string
	TLSSAN               []string
	Disable              []string
	DisableAgent         bool
	DisableKubeProxy     bool
	WriteKubeconfig      string
	WriteKubeconfigMode  string
	APIServerArgs        []string
	ControllerArgs       []string
	SchedulerArgs        []string
	DatastoreSync        string
}

// Defaults that other programs of the device rely on.
const (
	DefaultDataDir    = "/var/lib/skerry"
	DefaultConfigFile = "/etc/skerry/config.yaml"
	DefaultPauseImage = "skerry.internal/pause:1"
	DefaultKubeconfig = "/etc/skerry/kubeconfig"
)

// Flags declares the flags of a role on fs, bound to the returned settings.
func Flags(fs *pflag.FlagSet, role Role) *Settings {
	s := &Settings{Role: role}
	fs.StringVarP(&s.ConfigFile, "config", "c", DefaultConfigFile, "YAML file whose keys are these flags' names; FILE.d/*.yaml is read after it")
	fs.StringVarP(&s.DataDir, "data-dir", "d", DefaultDataDir, "folder of all state")
	fs.StringVarP(&s.Token, "token", "t", "", "secret that joins nodes to the cluster (environment: SKERRY_TOKEN)")
	fs.StringVar(&s.TokenFile, "token-file", "", "file that holds the token (environment: SKERRY_TOKEN_FILE)")
	fs.StringVar(&s.NodeName, "node-name", "", "name of the node (default: the host name)")
	fs.StringSliceVarP(&s.NodeIP, "node-ip", "i", nil, "address of the node (default: the one that the default route uses)")
	fs.StringSliceVar(&s.NodeLabels, "node-label", nil, "label key=value that the node registers with")
	fs.StringSliceVar(&s.NodeTaints, "node-taint", nil, "taint key=value:effect that the node registers with")
	fs.StringVar(&s.ContainerRuntimeEndpoint, "container-runtime-endpoint", "", "socket of a running containerd (default: start one)")
	fs.StringVar(&s.PauseImage, "pause-image", DefaultPauseImage, "image that holds a pod's namespaces")
	fs.StringVar(&s.ResolvConf, "resolv-conf", "", "resolv.conf for pods that use the node's DNS (default: found)")
	fs.StringVar(&s.FlannelIface, "flannel-iface", "", "link that carries pod traffic between nodes (default: that of the node's address)")
	fs.StringArrayVar(&s.KubeletArgs, "kubelet-arg", nil, "flag=value for kubelet")
	fs.StringArrayVar(&s.KubeProxyArgs, "kube-proxy-arg", nil, "flag=value for kube-proxy")
	fs.IntVarP(&s.Verbosity, "v", "v", 0, "log verbosity of Kubernetes")
	fs.BoolVar(&s.Debug, "debug", false, "log what skerryd does in detail")
	switch role {
	case Agent:
		fs.StringVarP(&s.ServerURL, "server", "s", "", "URL of the server to join (environment: SKERRY_URL)")
	case Server:
		s.serverFlags(fs)
	}
	return s
}

func (s *Settings) serverFlags(fs *pflag.FlagSet) {
	fs.StringVar(&s.ClusterCIDR, "cluster-cidr", "10.42.0.0/16", "network of pods")
	fs.StringVar(&s.ServiceCIDR, "service-cidr", "10.43.0.0/16", "network of services")
	fs.StringVar(&s.ServiceNodePortRange, "service-node-port-range", "30000-32767", "ports of services of type NodePort")
	fs.StringVar(&s.ClusterDNS, "cluster-dns", "", "address of the DNS service (default: the tenth of service-cidr)")
	fs.StringVar(&s.ClusterDomain, "cluster-domain", "cluster.local", "DNS domain of the cluster")
	fs.StringVar(&s.FlannelBackend, "flannel-backend", "vxlan", "how pod traffic travels between nodes: vxlan, host-gw, or none to bring an own network")
	fs.StringVar(&s.BindAddress, "bind-address", "0.0.0.0", "address that the API server listens on")
	fs.IntVar(&s.HTTPSListenPort, "https-listen-port", 6443, "port that the API server listens on")
	fs.StringVar(&s.AdvertiseAddress, "advertise-address", "", "address at which nodes and pods reach the API server (default: the node's)")
	fs.StringSliceVar(&s.NodeExternalIP, "node-external-ip", nil, "address at which this server is reached from outside, for its certificate")
	fs.StringSliceVar(&s.TLSSAN, "tls-san", nil, "further name or address in the API server's certificate")
	fs.StringSliceVar(&s.Disable, "disable", nil, "system workloads not to run: coredns, local-storage, metrics-server")
	fs.BoolVar(&s.DisableAgent, "disable-agent", false, "run the control plane only, no node")
	fs.BoolVar(&s.DisableKubeProxy, "disable-kube-proxy", false, "do not run kube-proxy")
	fs.StringVarP(&s.WriteKubeconfig, "write-kubeconfig", "o", DefaultKubeconfig, "where to write the administrator's kubeconfig")
	fs.StringVar(&s.WriteKubeconfigMode, "write-kubeconfig-mode", "0600", "its mode, octal")
	fs.StringArrayVar(&s.APIServerArgs, "kube-apiserver-arg", nil, "flag=value for the API server")
	fs.StringArrayVar(&s.ControllerArgs, "kube-controller-manager-arg", nil, "flag=value for the controller manager")
	fs.StringArrayVar(&s.SchedulerArgs, "kube-scheduler-arg", nil, "flag=value for the scheduler")
	fs.StringVar(&s.DatastoreSync, "datastore-sync", "full", "full: every change is on disk before it is confirmed; normal: a power cut may lose the last seconds (fewer writes)")
}

// environment names the flags that can also come from the environment, weaker than the command line, stronger than files.
var environment = []struct{ variable, flag string }{
	{"SKERRY_TOKEN", "token"},
	{"SKERRY_TOKEN_FILE", "token-file"},
	{"SKERRY_URL", "server"},
}

// Load completes settings whose flags were parsed from the command line on fs: environment, configuration files, token
// file, defaults, checks. getenv is os.Getenv outside of tests.
func (s *Settings) Load(fs *pflag.FlagSet, getenv func(string) string) error {
	if v := getenv("SKERRY_CONFIG_FILE"); v != "" && !fs.Changed("config") {
		s.ConfigFile = v
	}
	for _, e := range environment {
		f := fs.Lookup(e.flag)
		if v := getenv(e.variable); v != "" && f != nil && !f.Changed {
			if err := fs.Set(e.flag, v); err != nil {
				return fmt.Errorf("cannot use %s from the environment: %w", e.variable, err)
			}
		}
	}
	required := fs.Changed("config") || getenv("SKERRY_CONFIG_FILE") != ""
	if err := readFiles(fs, s.ConfigFile, s.Role, required); err != nil {
		return err
	}
	if err := s.readToken(); err != nil {
		return err
	}
	if err := s.nameNode(); err != nil {
		return err
	}
	return s.check()
}

func (s *Settings) readToken() error {
	if s.Token == "" && s.TokenFile != "" {
		b, err := os.ReadFile(s.TokenFile)
		if err != nil {
			return fmt.Errorf("cannot read the token file: %w", err)
		}
		s.Token = strings.TrimSpace(string(b))
	}
	if s.Token == "" {
		return nil
	}
	_, err := token.Parse(s.Token)
	return err
}

func (s *Settings) nameNode() error {
	if s.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("cannot find the host name: %w; give the node a name with --node-name", err)
		}
		s.NodeName = host
	}
	s.NodeName = strings.ToLower(s.NodeName)
	return nil
}

func (s *Settings) check() error {
	if !nodeName.MatchString(s.NodeName) || len(s.NodeName) > 253 {
		return fmt.Errorf("cannot use node name %q: a name has lower-case letters, digits, '-' and '.', and starts and ends with a letter or digit; choose one with --node-name", s.NodeName)
	}
	if !filepath.IsAbs(s.DataDir) {
		return fmt.Errorf("cannot use data-dir %q: it must be an absolute path", s.DataDir)
	}
	for _, list := range []struct {
		flag   string
		values []string
	}{{"node-ip", s.NodeIP}, {"node-external-ip", s.NodeExternalIP}} {
		for _, v := range list.values {
			if _, err := netip.ParseAddr(v); err != nil {
				return fmt.Errorf("cannot use %s %q: it is not an IP address", list.flag, v)
			}
		}
	}
	if len(s.NodeIP) > 0 && !netip.MustParseAddr(s.NodeIP[0]).Is4() {
		return fmt.Errorf("cannot use node-ip %q first: pod networks are IPv4; put an IPv4 address of the machine before it, or leave node-ip out", s.NodeIP[0])
	}
	for _, l := range s.NodeLabels {
		if k, _, ok := strings.Cut(l, "="); !ok || k == "" {
			return fmt.Errorf("cannot use node-label %q: write key=value", l)
		}
	}
	for _, t := range s.NodeTaints {
		k, effect, ok := strings.Cut(t, ":")
		if !ok || k == "" || !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) {
			return fmt.Errorf("cannot use node-taint %q: write key=value:effect with effect NoSchedule, PreferNoSchedule or NoExecute", t)
		}
	}
	if s.Role == Agent {
		return s.checkAgent()
	}
	return s.checkServer()
}

func (s *Settings) checkAgent() error {
	if !strings.HasPrefix(s.ServerURL, "https://") {
		return fmt.Errorf("cannot join server %q: give its URL with --server https://HOST:6443", s.ServerURL)
	}
	if s.Token == "" {
		return errors.New("cannot join a server without a token: it is in /var/lib/skerry/server/node-token on the server; give it with --token or --token-file")
	}
	return nil
}

func (s *Settings) checkServer() error {
	pods, err := netip.ParsePrefix(s.ClusterCIDR)
	if err != nil {
		return fmt.Errorf("cannot use cluster-cidr %q: it is not a network like 10.42.0.0/16", s.ClusterCIDR)
	}
	services, err := netip.ParsePrefix(s.ServiceCIDR)
	if err != nil {
		return fmt.Errorf("cannot use service-cidr %q: it is not a network like 10.43.0.0/16", s.ServiceCIDR)
	}
	if pods.Overlaps(services) {
		return fmt.Errorf("cannot use cluster-cidr %s and service-cidr %s: they overlap", pods, services)
	}
	if pods.Addr().Is6() || services.Addr().Is6() {
		return fmt.Errorf("cannot use cluster-cidr %s and service-cidr %s: pod and service networks are IPv4", pods, services)
	}
	if pods.Bits() > 23 {
		return fmt.Errorf("cannot use cluster-cidr %s: each node takes a /24 of it, so it must be a /23 or larger", pods)
	}
	if s.ClusterDNS == "" {
		s.ClusterDNS = ServiceAddress(services, 10).String()
	}
	if a, err := netip.ParseAddr(s.ClusterDNS); err != nil || !services.Contains(a) {
		return fmt.Errorf("cannot use cluster-dns %q: it is not an address in service-cidr %s", s.ClusterDNS, services)
	}
	if !slices.Contains([]string{"vxlan", "host-gw", "none"}, s.FlannelBackend) {
		return fmt.Errorf("cannot use flannel-backend %q: it is vxlan, host-gw or none", s.FlannelBackend)
	}
	if !slices.Contains([]string{"full", "normal"}, s.DatastoreSync) {
		return fmt.Errorf("cannot use datastore-sync %q: it is full or normal", s.DatastoreSync)
	}
	if s.HTTPSListenPort < 1 || s.HTTPSListenPort > 65535 {
		return fmt.Errorf("cannot use https-listen-port %d: it is 1 to 65535", s.HTTPSListenPort)
	}
	if s.AdvertiseAddress != "" {
		if _, err := netip.ParseAddr(s.AdvertiseAddress); err != nil {
			return fmt.Errorf("cannot use advertise-address %q: it is not an IP address", s.AdvertiseAddress)
		}
	}
	if _, err := s.KubeconfigMode(); err != nil {
		return err
	}
	return nil
}

// KubeconfigMode is write-kubeconfig-mode as a file mode.
func (s *Settings) KubeconfigMode() (os.FileMode, error) {
	var m uint32
	if _, err := fmt.Sscanf(s.WriteKubeconfigMode, "%o", &m); err != nil || m > 0o777 {
		return 0, fmt.Errorf("cannot use write-kubeconfig-mode %q: it is an octal mode like 0600", s.WriteKubeconfigMode)
	}
	return os.FileMode(m), nil
}

// Endpoint is the URL at which this machine's own components reach the API server.
func (s *Settings) Endpoint() string {
	if s.Role == Agent {
		return strings.TrimRight(s.ServerURL, "/")
	}
	return fmt.Sprintf("https://127.0.0.1:%d", s.HTTPSListenPort)
}

// ServiceAddress is the n-th address of a service network: 1 is the API server's, 10 the DNS'.
func ServiceAddress(network netip.Prefix, n int) netip.Addr {
	a := network.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}
