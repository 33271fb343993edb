package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// followInterval is how often a node looks whether its server is still the one of its cluster.
const followInterval = time.Minute

// errNewCluster says that only a new start can help.
var errNewCluster = errors.New("the server has begun a new cluster: starting again to join it")

// follow returns errNewCluster when the server has begun a new cluster, as one does that was reset, and the token vouches for it: the
// node has left the old cluster then. For as long as the server is another one that the token does not vouch for, status says so, and the node
// keeps what it has. It returns nil when ctx ends.
func (m membership) follow(ctx context.Context, status func(string, ...any)) error {
	strange := false
	for {
		moved, err := m.serverMoved(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case moved:
			return errors.Join(errNewCluster, m.leave())
		case err != nil:
			slog.Error("the server is not the one of this node's cluster; the node keeps what it has", "server", m.url, "reason", err)
			status("not in the server's cluster: %v", err)
			strange = true
		case strange:
			status("in the server's cluster again")
			strange = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followInterval):
		}
	}
}

// serverMoved says whether the server has an authority that is not the node's, and the token vouches for that one. An error says why it does
// not. A server that does not answer, or is known, has not moved.
func (m membership) serverMoved(ctx context.Context) (bool, error) {
	path := m.path("server-ca.crt")
	known, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("cannot read the server's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(known) {
		return false, fmt.Errorf("cannot read the server's authority: %s holds no certificate", path)
	}
	_, err = m.clusterInfo(ctx, &tls.Config{RootCAs: roots})
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		return false, nil
	}
	_, err = m.learnAuthority(ctx)
	return err == nil, err
}
