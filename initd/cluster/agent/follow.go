package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skerryos/skerry/initd/cluster/server"
)

// followInterval is how often a node looks whether its server is still the one of its cluster, and takes it for a node.
const followInterval = time.Minute

// errStartAgain says that only a new start can help: kubelet does not notice by itself.
var errStartAgain = errors.New("starting again")

var (
	errNewCluster = fmt.Errorf("the server has begun a new cluster: %w to join it", errStartAgain)
	errExpired    = fmt.Errorf("the node's certificate is expired: %w to get a new one", errStartAgain)
	errRefused    = fmt.Errorf("the server no longer takes the node's certificate: %w to get a new one", errStartAgain)
)

// refusals is how many looks in a row a server must refuse the node's certificate: one whose own clock is not set yet does so for a while.
const refusals = 3

// follower looks at server and certificate again and again.
type follower struct {
	membership
	status func(string, ...any)
	now    func() time.Time

	strange   bool      // the server is another cluster's
	valid     time.Time // until when the certificate holds that was last seen to hold
	refused   int       // looks in a row
	unwelcome bool      // the server takes neither certificate nor token
}

// follow returns an error when a new start is needed: errNewCluster when the server has begun a new cluster, as one does that was reset, and the token
// vouches for it (the node has left the old cluster then), errExpired and errRefused when the node's certificate is of no more use. For
// as long as the server is another one that the token does not vouch for, status says so, and the node keeps what it has. It returns nil when ctx
// ends.
func (m membership) follow(ctx context.Context, status func(string, ...any)) error {
	f := &follower{membership: m, status: status, now: time.Now}
	for {
		if err := f.look(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followInterval):
		}
	}
}

// look looks once.
func (f *follower) look(ctx context.Context) error {
	// First of all, without the server: kubelet, which is being started, takes a certificate that is expired by then for none.
	if f.expired() {
		return errExpired
	}
	moved, answer, err := f.serverMoved(ctx)
	if ctx.Err() != nil {
		return nil
	}
	switch {
	case moved:
		return errors.Join(errNewCluster, f.leave())
	case err != nil:
		slog.Error("the server is not the one of this node's cluster; the node keeps what it has", "server", f.url, "reason", err)
		f.status("not in the server's cluster: %v", err)
		f.strange = true
	case f.strange:
		f.status("in the server's cluster again")
		f.strange = false
	}
	return f.welcome(ctx, answer)
}

// welcome counts the server's answers to the certificate: 0 is none.
func (f *follower) welcome(ctx context.Context, answer int) error {
	if answer != http.StatusUnauthorized {
		f.refused = 0
		if f.unwelcome && answer != 0 && answer < http.StatusInternalServerError {
			f.status("the server takes the node's certificate again")
			f.unwelcome = false
		}
		return nil
	}
	if f.refused++; f.refused < refusals {
		return nil
	}
	// A certificate that is taken again when the server is mended is worth more than a token that joins nobody.
	if err := f.tokenTaken(ctx); err != nil {
		if ctx.Err() == nil {
			slog.Error("the server takes neither the node's certificate nor its token; the node keeps what it has: give it the token that skerry node token shows", "server", f.url, "reason", err)
			f.status("the server takes neither the node's certificate nor its token: %v", err)
			f.unwelcome = true
		}
		return nil
	}
	return errors.Join(errRefused, f.forget(credentials...))
}

// expired says whether the certificate that held when it was last looked at is expired by the clock now. That kubelet renews it long before depends on a
// timer, to which it means nothing that the clock was set. One that was expired from the start is none: kubelet has begun with the token.
func (f *follower) expired() bool {
	pair, err := f.identity()
	if err != nil {
		return false // kubelet is about to get one
	}
	if f.now().After(pair.Leaf.NotAfter) {
		return pair.Leaf.NotAfter.Equal(f.valid)
	}
	f.valid = pair.Leaf.NotAfter
	return false
}

// serverMoved says whether the server has an authority that is not the node's, and the token vouches for that one. An error says why it does
// not. A server that does not answer, or is known, has not moved. answer is the status with which a known server answers the node's own
// certificate, 0 when there is no answer or no certificate.
func (m membership) serverMoved(ctx context.Context) (moved bool, answer int, err error) {
	security, err := m.knownServer()
	if err != nil {
		return false, 0, err
	}
	pair, none := m.identity()
	if none == nil {
		// Field Certificates would send none to a server that does not name the issuer.
		security.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	// Everybody may ask for the version, and it costs the server little; a certificate that it does not believe is refused all the same.
	answer, _, err = m.ask(ctx, "/version", "", security)
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		_, err = m.learnAuthority(ctx)
		return err == nil, 0, err
	}
	if err != nil || none != nil {
		answer = 0
	}
	return false, answer, nil
}

// knownServer believes a server only by the authority of the node's cluster.
func (m membership) knownServer() (*tls.Config, error) {
	path := m.path("server-ca.crt")
	known, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the server's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(known) {
		return nil, fmt.Errorf("cannot read the server's authority: %s holds no certificate", path)
	}
	return &tls.Config{RootCAs: roots}, nil
}

// tokenTaken returns nil when the server takes the token now, from a node that has nothing else.
func (m membership) tokenTaken(ctx context.Context) error {
	security, err := m.knownServer()
	if err != nil {
		return err
	}
	id, secret := m.token.Bootstrap()
	status, _, err := m.ask(ctx, "/api/v1/namespaces/"+meta.NamespaceSystem+"/configmaps/"+server.NodeSettings, id+"."+secret, security)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the server answers the token with %d %s", status, http.StatusText(status))
	}
	return err
}
