// Package agent joins a machine to a cluster and runs it as a node.
package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bootstrap "k8s.io/cluster-bootstrap/token/jws"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skerryos/skerry/initd/cluster/durable"
	"github.com/skerryos/skerry/initd/cluster/kubeconfig"
	"github.com/skerryos/skerry/initd/cluster/node"
	"github.com/skerryos/skerry/initd/cluster/server"
	"github.com/skerryos/skerry/initd/cluster/token"
)

// membership is what a joined node keeps on disk, so that it starts again while its server is away.
type membership struct {
	dir   string // the agent's folder
	name  string // the node's
	url   string
	token token.Token
}

func (m membership) path(name string) string { return filepath.Join(m.dir, name) }

// join makes sure that the node knows its cluster: the server's authority, what all nodes agree on, and a token to ask for
// a certificate with. What is known from an earlier start is used when the server does not answer.
func (m membership) join(ctx context.Context, status func(string, ...any)) (node.Cluster, error) {
	ca, err := m.authority(ctx, status)
	if err != nil {
		return node.Cluster{}, err
	}
	if err := m.writeBootstrap(ca); err != nil {
		return node.Cluster{}, err
	}
	if err := m.settleIdentity(ca, time.Now()); err != nil {
		return node.Cluster{}, err
	}
	cluster, err := m.cluster(ctx, status)
	if err != nil {
		// The server may have begun anew between the two questions.
		if moved, _, _ := m.serverMoved(ctx); moved {
			err = errors.Join(errNewCluster, m.leave())
		}
		return node.Cluster{}, err
	}
	return cluster, durable.WriteFile(m.path("client-ca.crt"), []byte(cluster.ClientCA), 0o644)
}

// authority returns the server's authority in PEM, and learns it at the first start. A token of another cluster makes
// the node leave the one that it was in.
func (m membership) authority(ctx context.Context, status func(string, ...any)) ([]byte, error) {
	path := m.path("server-ca.crt")
	ca, err := os.ReadFile(path)
	if err == nil && (m.token.CAHash == "" || m.token.CAHash == token.Hash(ca)) {
		return ca, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the server's authority: %w", err)
	}
	status("joining %s", m.url)
	err = retry(ctx, "cannot learn the server's authority", func() error {
		ca, err = m.learnAuthority(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := m.leave(); err != nil {
		return nil, err
	}
	return ca, durable.WriteFile(path, ca, 0o644)
}

// leave removes the credentials of an earlier cluster.
func (m membership) leave() error {
	for _, name := range append(slices.Clone(credentials), "cluster.json", "pod-cidr", "server-ca.crt") {
		if err := os.RemoveAll(m.path(name)); err != nil {
			return fmt.Errorf("cannot leave the earlier cluster: %w", err)
		}
	}
	return nil
}

// learnAuthority asks the server, which is not trusted yet, for its public cluster-info, and believes it only by the token:
// by the hash of the authority in it, or by the signature that the cluster makes with the shared secret.
func (m membership) learnAuthority(ctx context.Context) ([]byte, error) {
	// What comes back is checked below; nothing secret is sent.
	info, err := m.clusterInfo(ctx, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	return verifyInfo(info, m.token)
}

// clusterInfo reads the server's public cluster-info.
func (m membership) clusterInfo(ctx context.Context, security *tls.Config) (map[string]string, error) {
	status, body, err := m.ask(ctx, "/api/v1/namespaces/kube-public/configmaps/cluster-info", "", security)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("the server answers %d %s: it may still be starting", status, http.StatusText(status))
	}
	var info core.ConfigMap
	if err := json.Unmarshal(body, &info); err != nil {
		return nil, fmt.Errorf("the server's cluster-info is not JSON: %w", err)
	}
	return info.Data, nil
}

// ask reads a path of the server over a connection of its own, and returns the status of the answer, too. The token may be empty.
func (m membership) ask(ctx context.Context, path, token string, security *tls.Config) (int, []byte, error) {
	client := &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: security, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, body, err
}

// errUntrusted ends the attempts to join: trying again gives the same answer.
var errUntrusted = errors.New("the server is not the one that the token is for")

// verifyInfo returns the authority that a cluster-info names, when the token vouches for it.
func verifyInfo(data map[string]string, t token.Token) ([]byte, error) {
	content := data["kubeconfig"]
	config, err := clientcmd.Load([]byte(content))
	if err != nil {
		return nil, fmt.Errorf("the server's cluster-info holds no kubeconfig: %w", err)
	}
	var ca []byte
	for _, c := range config.Clusters {
		ca = c.CertificateAuthorityData
	}
	if len(config.Clusters) != 1 || len(ca) == 0 {
		return nil, errors.New("the server's cluster-info names no authority")
	}
	if t.CAHash != "" {
		if got := token.Hash(ca); got != t.CAHash {
			return nil, fmt.Errorf("%w: its authority is %.12s…, the token names %.12s…; nothing was changed: give the token that skerry node token shows, or the server's node-token file", errUntrusted, got, t.CAHash)
		}
		return ca, nil
	}
	id, secret := t.Bootstrap()
	signature, ok := data["jws-kubeconfig-"+id]
	if !ok {
		return nil, errors.New("the server has not signed its cluster-info with this token: it may still be starting, or the token is another cluster's")
	}
	if !bootstrap.DetachedTokenIsValid(signature, content, id, secret) {
		return nil, fmt.Errorf("%w: its signature is wrong; nothing was changed", errUntrusted)
	}
	return ca, nil
}

func (m membership) writeBootstrap(ca []byte) error {
	id, secret := m.token.Bootstrap()
	b := kubeconfig.Config{Server: m.url, CAData: ca, Token: id + "." + secret}.Marshal()
	return durable.WriteFile(m.path("bootstrap.kubeconfig"), b, 0o600)
}

// cluster reads what all nodes agree on, from the server if it answers within ten seconds, else from the last start.
func (m membership) cluster(ctx context.Context, status func(string, ...any)) (node.Cluster, error) {
	path := m.path("cluster.json")
	read := func() (node.Cluster, error) {
		var c node.Cluster
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &c)
		}
		return c, err
	}
	_, known := read()
	limit := ctx
	if known == nil {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		limit = short
	}
	status("reading the cluster's settings from %s", m.url)
	err := retry(limit, "cannot read the cluster's settings", func() error { return m.fetchCluster(limit, path) })
	if err != nil && known != nil {
		return node.Cluster{}, err
	}
	if err != nil {
		slog.Warn("the server does not answer; starting with the settings of the last time", "server", m.url)
	}
	return read()
}

func (m membership) fetchCluster(ctx context.Context, path string) error {
	c, err := m.clientConfig()
	if err != nil {
		return err
	}
	c.Timeout = 5 * time.Second
	k, err := kubernetes.NewForConfig(c)
	if err != nil {
		return err
	}
	cm, err := k.CoreV1().ConfigMaps(meta.NamespaceSystem).Get(ctx, server.NodeSettings, meta.GetOptions{})
	if err != nil {
		return err
	}
	var check node.Cluster
	if err := json.Unmarshal([]byte(cm.Data[server.NodeSettingsKey]), &check); err != nil {
		return fmt.Errorf("the cluster's settings are not JSON: %w", err)
	}
	return durable.WriteFile(path, []byte(cm.Data[server.NodeSettingsKey]), 0o600)
}

// clientConfig is the node's own identity if it has one, else the token's. Kubelet writes its kubeconfig before it has the certificate that
// this names, and the power may go in between.
func (m membership) clientConfig() (*rest.Config, error) {
	if own, err := clientcmd.BuildConfigFromFlags("", m.path("kubelet.kubeconfig")); err == nil {
		return own, nil
	}
	return clientcmd.BuildConfigFromFlags("", m.path("bootstrap.kubeconfig"))
}

// retry calls f until it succeeds, ctx ends, or there is no point in it; each new reason is logged once.
func retry(ctx context.Context, what string, f func() error) error {
	pause, last := 500*time.Millisecond, ""
	for {
		err := f()
		if err == nil {
			return nil
		}
		if errors.Is(err, errUntrusted) || strings.Contains(err.Error(), "x509:") {
			return fmt.Errorf("%s: %w", what, err)
		}
		if msg := err.Error(); msg != last {
			slog.Warn(what+"; trying again", "reason", msg)
			last = msg
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(pause):
		}
		pause = min(pause*2, 5*time.Second)
	}
}
