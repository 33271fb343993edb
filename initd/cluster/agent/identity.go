package agent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"k8s.io/client-go/util/certificate"

	"github.com/skerryos/skerry/initd/cluster/durable"
	"github.com/skerryos/skerry/initd/cluster/kubeconfig"
)

// clientPair is the prefix of the files in folder pki in which kubelet keeps its client certificate.
const clientPair = "kubelet-client"

// pairPath is a link to the present certificate with its key, in one file.
func (m membership) pairPath() string { return m.path("pki/" + clientPair + "-current.pem") }

// identity returns the certificate that kubelet has for itself, and fs.ErrNotExist when it has none yet.
func (m membership) identity() (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(m.pairPath(), m.pairPath())
	if err != nil {
		return pair, fmt.Errorf("cannot read the node's certificate: %w", err)
	}
	return pair, nil
}

// settleIdentity leaves kubelet, which must not run yet, either an identity that fits, with a kubeconfig for the server as it is configured now, or none,
// so that it asks for one with the token. Left alone, kubelet would keep what it has until that expires: the server's address of the first
// join, and the name that the node had then.
func (m membership) settleIdentity(ca []byte, now time.Time) error {
	pki := m.path("pki")
	// Finishes an exchange of certificates in which the power went, as kubelet does.
	_, err := certificate.NewFileStore(clientPair, pki, pki, "", "")
	var pair tls.Certificate
	if err == nil {
		pair, err = m.identity()
	}
	user := "system:node:" + m.name
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m.forget("kubelet.kubeconfig")
	case errors.As(err, new(*fs.PathError)): // the disk does not answer; what is there may be good
		return err
	case err != nil:
		slog.Warn("asking for a new certificate", "reason", err)
		return m.forget(credentials...)
	case pair.Leaf.Subject.CommonName != user:
		slog.Warn("asking for a new certificate: the node has another name now", "was", pair.Leaf.Subject.CommonName, "is", user)
		// Another node has another part of the pod network.
		return m.forget(append([]string{"pod-cidr"}, credentials...)...)
	case now.After(pair.Leaf.NotAfter):
		// It stays: the clock may be wrong, and the token of no use any more. kubelet puts a new one in its place.
		slog.Warn("asking for a new certificate: the node's is expired", "since", pair.Leaf.NotAfter, "now", now)
		return m.forget("kubelet.kubeconfig")
	}
	own := kubeconfig.Config{Server: m.url, CAData: ca, CertFile: m.pairPath(), KeyFile: m.pairPath()}
	return durable.WriteFile(m.path("kubelet.kubeconfig"), own.Marshal(), 0o600)
}

// credentials are the files and folders of a node's identity. The folder is last: for as long as the certificate is there, a start after a power
// cut finds what is wrong with it again.
var credentials = []string{"kubelet.kubeconfig", "pki"}

// forget removes files and folders of the agent, in this order.
func (m membership) forget(names ...string) error {
	for _, name := range names {
		if err := os.RemoveAll(m.path(name)); err != nil {
			return fmt.Errorf("cannot remove what no longer fits the node: %w", err)
		}
	}
	return durable.SyncDir(m.dir)
}
