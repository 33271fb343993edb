package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	validation "k8s.io/kubernetes/pkg/apis/certificates"
)

// An approver decides on the certificates that kubelets of joined nodes ask for: the first one of a client, which a node asks for with the token, and
// all serving ones. The controller manager approves renewals of clients only. It cannot tell the server's own node from others, and whether a
// node may serve under an address needs knowledge of the nodes, which here is their Node objects.
type approver struct {
	client kubernetes.Interface
	server reserved
	said   map[string]bool // requests of which a person was told why they are not approved
}

// reserved is what belongs to the server alone. All that trust the cluster's authority for the API server would trust a node that had a certificate for
// one of the names.
type reserved struct {
	node     string // that of the node beside the control plane, whose certificates package pki makes; empty when there is none
	dns      []string
	ips      []netip.Addr
	services netip.Prefix
}

func (id *identity) reserved() reserved {
	r := reserved{services: netip.MustParsePrefix(id.settings.ServiceCIDR)} // checked by settings
	r.dns, r.ips = id.serverNames()
	if !id.settings.DisableAgent {
		r.node = id.settings.NodeName
	}
	return r
}

// run approves requests until ctx ends.
func (a *approver) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := a.watch(ctx); err != nil && ctx.Err() == nil {
			slog.Debug("watching certificate requests again", "reason", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func (a *approver) watch(ctx context.Context) error {
	c := a.client.CertificatesV1().CertificateSigningRequests()
	list, err := c.List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	pending := false
	for i := range list.Items {
		pending = !a.decide(ctx, &list.Items[i]) || pending
	}
	w, err := c.Watch(ctx, meta.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		// A request that came before its node reported its addresses is looked at again.
		var again <-chan time.Time
		if pending {
			again = time.After(10 * time.Second)
		}
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return errors.New("the watch ended")
			}
			csr, ok := e.Object.(*certificates.CertificateSigningRequest)
			switch {
			case !ok:
			case e.Type == watch.Deleted:
				delete(a.said, csr.Name)
			default:
				pending = !a.decide(ctx, csr) || pending
			}
		case <-again:
			return nil
		}
	}
}

// errTaken says that a request is for what belongs to another machine.
var errTaken = errors.New("it belongs to another machine")

// decide approves a request if that is right. It is false when the request is still without a decision that is ours.
func (a *approver) decide(ctx context.Context, csr *certificates.CertificateSigningRequest) bool {
	if len(csr.Status.Conditions) > 0 || len(csr.Status.Certificate) > 0 {
		return true
	}
	reason, message := "NodeServing", "the names are those of the node that asks"
	var err error
	switch {
	case csr.Spec.SignerName == certificates.KubeAPIServerClientKubeletSignerName && slices.Contains(csr.Spec.Groups, bootstrappers):
		reason, message = "NodeJoin", "the node has shown the token"
		err = checkClient(csr, a.server)
	case csr.Spec.SignerName == certificates.KubeletServingSignerName:
		var nodes *core.NodeList
		if nodes, err = a.client.CoreV1().Nodes().List(ctx, meta.ListOptions{}); err == nil {
			err = checkServing(csr, nodes.Items, a.server)
		}
	default:
		return true // somebody else's
	}
	if err != nil {
		level := slog.LevelDebug
		if errors.Is(err, errTaken) && !a.said[csr.Name] {
			a.said[csr.Name] = true
			level = slog.LevelWarn
		}
		slog.Log(ctx, level, "certificate request left pending", "request", csr.Name, "user", csr.Spec.Username, "reason", err)
		return false
	}
	csr = csr.DeepCopy()
	csr.Status.Conditions = append(csr.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type: certificates.CertificateApproved, Status: core.ConditionTrue, Reason: reason, Message: message,
	})
	if _, err := a.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, meta.UpdateOptions{}); err != nil {
		slog.Warn("cannot approve a node's certificate", "request", csr.Name, "user", csr.Spec.Username, "reason", err)
		return false
	}
	return true
}

const nodeUser = "system:node:"

func parseRequest(csr *certificates.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("it holds no PEM block CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// checkClient holds the request of a node that has shown the token against the server: a node may have any name but that of the server's own, which
// never asks. Its certificate could read the Secrets of the server's pods.
func checkClient(csr *certificates.CertificateSigningRequest, server reserved) error {
	req, err := parseRequest(csr)
	if err != nil {
		return err
	}
	usages := sets.NewString()
	for _, u := range csr.Spec.Usages {
		usages.Insert(string(u))
	}
	if err := validation.ValidateKubeletClientCSR(req, usages); err != nil {
		return err
	}
	name := strings.TrimPrefix(req.Subject.CommonName, nodeUser)
	if server.node != "" && name == server.node {
		return fmt.Errorf("%s is the name of the server's own node: %w; give the joining machine another hostname", name, errTaken)
	}
	return nil
}

// checkServing holds a request against the node that sent it: a node may serve under its own name and the addresses
// that it has reported, and under nothing else. It reports what it likes, so what belongs to the server or to another node is refused.
func checkServing(csr *certificates.CertificateSigningRequest, nodes []core.Node, server reserved) error {
	req, err := parseRequest(csr)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(csr.Spec.Username, nodeUser)
	i := slices.IndexFunc(nodes, func(n core.Node) bool { return n.Name == name })
	if i < 0 || csr.Spec.Username != nodeUser+name || !slices.Contains(csr.Spec.Groups, "system:nodes") {
		return fmt.Errorf("%s is not a node", csr.Spec.Username)
	}
	if server.node != "" && name == server.node {
		return fmt.Errorf("%s is the server's own node, which never asks: %w", name, errTaken)
	}
	if req.Subject.CommonName != csr.Spec.Username || !slices.Equal(req.Subject.Organization, []string{"system:nodes"}) {
		return fmt.Errorf("its subject is %s", req.Subject)
	}
	if len(req.EmailAddresses)+len(req.URIs) > 0 {
		return errors.New("it has names of other kinds")
	}
	if len(req.DNSNames)+len(req.IPAddresses) == 0 {
		return errors.New("it has no names")
	}
	own := namesOf(nodes[i])
	for _, n := range req.DNSNames {
		switch {
		case !slices.Contains(own, n):
			return fmt.Errorf("%s is not a name of the node", n)
		case !dnsName.MatchString(n) || net.ParseIP(n) != nil:
			return fmt.Errorf("%s is not a plain DNS name", n) // a wildcard, for instance, would stand for names of others
		case slices.ContainsFunc(server.dns, func(s string) bool { return strings.EqualFold(s, n) }):
			return fmt.Errorf("%s is a name of the API server: %w", n, errTaken)
		}
		if other := holder(nodes, name, func(s string) bool { return strings.EqualFold(s, n) }); other != "" {
			return fmt.Errorf("%s is a name of node %s, too: %w", n, other, errTaken)
		}
	}
	for _, ip := range req.IPAddresses {
		same := func(s string) bool { return ip.Equal(net.ParseIP(s)) }
		a, ok := netip.AddrFromSlice(ip)
		a = a.Unmap()
		switch {
		case !ok || !slices.ContainsFunc(own, same):
			return fmt.Errorf("%s is not an address of the node", ip)
		case a.IsLoopback() || a.IsUnspecified():
			return fmt.Errorf("%s is an address of every machine: %w", ip, errTaken)
		case slices.Contains(server.ips, a):
			return fmt.Errorf("%s is an address of the API server: %w", ip, errTaken)
		case server.services.Contains(a):
			return fmt.Errorf("%s is an address of a service: %w", ip, errTaken)
		}
		if other := holder(nodes, name, same); other != "" {
			return fmt.Errorf("%s is an address of node %s, too: %w", ip, other, errTaken)
		}
	}
	return nil
}

// dnsName has no wildcard and no dot at its end.
var dnsName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$`)

func namesOf(n core.Node) []string {
	names := []string{n.Name}
	for _, a := range n.Status.Addresses {
		names = append(names, a.Address)
	}
	return names
}

// holder returns the node, other than the one that asks, that has a name or address. One that is not ready does not count: it may be gone or renamed, and
// its address given to another machine.
func holder(nodes []core.Node, asks string, same func(string) bool) string {
	for _, n := range nodes {
		ready := slices.ContainsFunc(n.Status.Conditions, func(c core.NodeCondition) bool {
			return c.Type == core.NodeReady && c.Status == core.ConditionTrue
		})
		if n.Name != asks && ready && slices.ContainsFunc(namesOf(n), same) {
			return n.Name
		}
	}
	return ""
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
