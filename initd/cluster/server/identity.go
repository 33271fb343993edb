package server

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/skerryos/skerry/initd/cluster/durable"
	"github.com/skerryos/skerry/initd/cluster/kubeconfig"
	"github.com/skerryos/skerry/initd/cluster/pki"
	"github.com/skerryos/skerry/initd/cluster/settings"
	"github.com/skerryos/skerry/initd/cluster/token"
)

// Links that scripts written for K3s look at.
const (
	k3sKubeconfig = "/etc/rancher/k3s/k3s.yaml"
	k3sNodeToken  = "/var/lib/rancher/k3s/server/node-token"
	k3sManifests  = "/var/lib/rancher/k3s/server/manifests"
)

// identity is what makes this server this cluster: keys, certificates, token, and the files that tell others of them.
type identity struct {
	settings *settings.Settings
	paths    paths
	store    pki.Store
	nodeIPs  []netip.Addr
	token    token.Token
}

// paths are the files and folders of a server under its data folder, named as in K3s.
type paths struct {
	tls, cred, db, token, rules, agent string
}

func pathsOf(s *settings.Settings) paths {
	srv := filepath.Join(s.DataDir, "server")
	return paths{
		tls:   filepath.Join(srv, "tls"),
		cred:  filepath.Join(srv, "cred"),
		db:    filepath.Join(srv, "db"),
		token: filepath.Join(srv, "node-token"),
		rules: filepath.Join(srv, "rules-version"), // not K3s'
		agent: filepath.Join(s.DataDir, "agent"),
	}
}

// components are the clients inside this machine: name of the certificate, user, groups.
var components = []struct {
	name, user string
	groups     []string
}{
	{"admin", "system:admin", []string{"system:masters"}},
	{"supervisor", "system:skerry-supervisor", []string{"system:masters"}},
	{"controller", "system:kube-controller-manager", nil},
	{"scheduler", "system:kube-scheduler", nil},
}

// leaves are all certificates of this server, for its present names and addresses.
func (id *identity) leaves() []pki.Leaf {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	serve := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	dns, ips := id.serverNames()
	out := []pki.Leaf{
		{Name: "serving-kube-apiserver", CA: pki.ServerCA, CN: "kube-apiserver", Usage: serve, DNS: dns, IPs: ips},
		{Name: "client-kube-apiserver", CA: pki.ClientCA, CN: "system:apiserver", Groups: []string{"system:masters"}, Usage: client},
		{Name: "client-auth-proxy", CA: pki.RequestHeaderCA, CN: "system:auth-proxy", Usage: client},
	}
	for _, c := range components {
		out = append(out, pki.Leaf{Name: "client-" + c.name, CA: pki.ClientCA, CN: c.user, Groups: c.groups, Usage: client})
	}
	if !id.settings.DisableAgent {
		name := id.settings.NodeName
		out = append(out,
			pki.Leaf{Dir: id.paths.agent, Name: "client-kubelet", CA: pki.ClientCA, CN: "system:node:" + name, Groups: []string{"system:nodes"}, Usage: client},
			pki.Leaf{
				Dir: id.paths.agent, Name: "serving-kubelet", CA: pki.ServerCA, CN: "system:node:" + name, Groups: []string{"system:nodes"}, Usage: serve,
				DNS: []string{name, "localhost"}, IPs: unique(append([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, id.nodeIPs...)),
			})
	}
	return out
}

// serverNames are the names and addresses under which the API server may be reached.
func (id *identity) serverNames() ([]string, []netip.Addr) {
	s := id.settings
	dns := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.ClusterDomain, "localhost", s.NodeName}
	ips := []netip.Addr{
		netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(),
		settings.ServiceAddress(netip.MustParsePrefix(s.ServiceCIDR), 1),
	}
	ips = append(ips, id.nodeIPs...)
	for _, san := range append(append([]string{s.AdvertiseAddress, s.BindAddress}, s.NodeExternalIP...), s.TLSSAN...) {
		if a, err := netip.ParseAddr(san); err == nil {
			if !a.IsUnspecified() {
				ips = append(ips, a)
			}
		} else if san != "" {
			dns = append(dns, san)
		}
	}
	return unique(dns), unique(ips)
}

func unique[T comparable](in []T) []T {
	var out []T
	for _, x := range in {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// init makes what does not exist yet and writes the files that are derived from it.
func (id *identity) init() error {
	if err := id.store.Init(); err != nil {
		return err
	}
	if err := id.renew(); err != nil {
		return err
	}
	if err := encryptionConfig(filepath.Join(id.paths.cred, "encryption-config.json")); err != nil {
		return err
	}
	if err := id.writeKubeconfigs(); err != nil {
		return err
	}
	return id.initToken()
}

// renew issues what no longer fits. The API server, kubelet and client-go read changed files by themselves; only
// the administrator's kubeconfig carries its certificate and is written again.
func (id *identity) renew() error {
	done, err := id.store.Ensure(id.leaves()...)
	for _, r := range done {
		if r.Reason != "missing" {
			slog.Info("certificate issued anew", "name", r.Leaf.Name, "reason", r.Reason)
		}
	}
	if err != nil {
		return err
	}
	for _, r := range done {
		if r.Leaf.Name == "client-admin" {
			return id.writeAdmin()
		}
	}
	return nil
}

func (id *identity) writeKubeconfigs() error {
	ca, _ := id.store.Path(pki.ServerCA)
	for _, c := range components {
		crt, key := id.store.Files(pki.Leaf{Name: "client-" + c.name})
		cfg := kubeconfig.Config{Server: id.settings.Endpoint(), CAFile: ca, CertFile: crt, KeyFile: key}
		if err := durable.WriteFile(filepath.Join(id.paths.cred, c.name+".kubeconfig"), cfg.Marshal(), 0o600); err != nil {
			return err
		}
	}
	if !id.settings.DisableAgent {
		crt, key := id.store.Files(pki.Leaf{Dir: id.paths.agent, Name: "client-kubelet"})
		cfg := kubeconfig.Config{Server: id.settings.Endpoint(), CAFile: ca, CertFile: crt, KeyFile: key}
		if err := durable.WriteFile(id.nodeKubeconfig(), cfg.Marshal(), 0o600); err != nil {
			return err
		}
	}
	return id.writeAdmin()
}

func (id *identity) nodeKubeconfig() string {
	return filepath.Join(id.paths.agent, "kubelet.kubeconfig")
}

// writeAdmin writes the kubeconfig that people copy, and the link where K3s has it.
func (id *identity) writeAdmin() error {
	ca, _ := id.store.Path(pki.ServerCA)
	crt, key := id.store.Files(pki.Leaf{Name: "client-admin"})
	cfg := kubeconfig.Config{Server: id.settings.Endpoint()}
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{ca, &cfg.CAData}, {crt, &cfg.CertData}, {key, &cfg.KeyData}} {
		b, err := os.ReadFile(f.path)
		if err != nil {
			return fmt.Errorf("cannot write the administrator's kubeconfig: %w", err)
		}
		*f.to = b
	}
	mode, err := id.settings.KubeconfigMode()
	if err != nil {
		return err
	}
	path := id.settings.WriteKubeconfig
	if err := durable.WriteFile(path, cfg.Marshal(), mode); err != nil {
		return err
	}
	if path == settings.DefaultKubeconfig {
		link(path, k3sKubeconfig)
	}
	return nil
}

// link makes a convenience link; a host that already has something there keeps it.
func link(target, path string) {
	if err := durable.Link(target, path); err != nil {
		slog.Warn(err.Error())
	}
}

// initToken decides the token: the configured one, else the one of earlier starts, else a new one. A configured token
// replaces an older one, which then no longer joins nodes.
func (id *identity) initToken() error {
	caFile, _ := id.store.Path(pki.ServerCA)
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("cannot name the authority in the token: %w", err)
	}
	old, err := os.ReadFile(id.paths.token)
	switch {
	case id.settings.Token != "":
		id.token, err = token.Parse(id.settings.Token)
	case err == nil:
		id.token, err = token.Parse(string(old))
	case errors.Is(err, fs.ErrNotExist):
		id.token, err = token.Generate(), nil
	}
	if err != nil {
		return fmt.Errorf("cannot decide the cluster's token: %w; nothing was changed", err)
	}
	if id.token.CAHash != "" && id.token.CAHash != token.Hash(ca) {
		return fmt.Errorf("cannot use the token: it was made for another cluster (its authority is %.12s…, this one's %.12s…); nothing was changed: give the secret alone, or remove %s", id.token.CAHash, token.Hash(ca), id.paths.token)
	}
	id.token = id.token.Full(ca)
	if err := durable.WriteFile(id.paths.token, []byte(id.token.String()+"\n"), 0o600); err != nil {
		return err
	}
	if id.settings.DataDir == settings.DefaultDataDir {
		link(id.paths.token, k3sNodeToken)
		link(filepath.Join(id.settings.DataDir, "server", "manifests"), k3sManifests)
	}
	return nil
}

// encryptionConfig writes, once, with which key Secrets are encrypted at rest. XSalsa20 and Poly1305 ("secretbox") is
// fast on processors without AES instructions, such as those of a Raspberry Pi 4. "identity" lets data be read that
// was written before.
func encryptionConfig(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var key [32]byte
	rand.Read(key[:])
	type secretKey struct {
		Name   string `json:"name"`
		Secret string `json:"secret"`
	}
	b, err := json.MarshalIndent(map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "EncryptionConfiguration",
		"resources": []any{map[string]any{
			"resources": []string{"secrets"},
			"providers": []any{
				map[string]any{"secretbox": map[string]any{"keys": []secretKey{{"key1", base64.StdEncoding.EncodeToString(key[:])}}}},
				map[string]any{"identity": struct{}{}},
			},
		}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode the encryption configuration: %w", err)
	}
	return durable.WriteFile(path, b, 0o600)
}
