package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// approveServingCertificates approves the serving certificates that kubelets of joined nodes ask for, until ctx ends. The
// controller manager approves client certificates only: whether a node may serve under an address needs knowledge
// of the node, which here is its Node object.
func approveServingCertificates(ctx context.Context, k kubernetes.Interface) {
	for ctx.Err() == nil {
		if err := watchRequests(ctx, k); err != nil && ctx.Err() == nil {
			slog.Debug("watching certificate requests again", "reason", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func watchRequests(ctx context.Context, k kubernetes.Interface) error {
	c := k.CertificatesV1().CertificateSigningRequests()
	only := fields.OneTermEqualSelector("spec.signerName", certificates.KubeletServingSignerName).String()
	list, err := c.List(ctx, meta.ListOptions{FieldSelector: only})
	if err != nil {
		return err
	}
	pending := false
	for i := range list.Items {
		pending = !decide(ctx, k, &list.Items[i]) || pending
	}
	w, err := c.Watch(ctx, meta.ListOptions{FieldSelector: only, ResourceVersion: list.ResourceVersion})
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
			if csr, ok := e.Object.(*certificates.CertificateSigningRequest); ok {
				pending = !decide(ctx, k, csr) || pending
			}
		case <-again:
			return nil
		}
	}
}

// decide approves a request if that is right. It is false when the request is still without a decision.
func decide(ctx context.Context, k kubernetes.Interface, csr *certificates.CertificateSigningRequest) bool {
	if len(csr.Status.Conditions) > 0 || len(csr.Status.Certificate) > 0 {
		return true
	}
	node, err := k.CoreV1().Nodes().Get(ctx, strings.TrimPrefix(csr.Spec.Username, nodeUser), meta.GetOptions{})
	if err == nil {
		err = checkServing(csr, node)
	}
	if err != nil {
		slog.Debug("certificate request left pending", "request", csr.Name, "reason", err)
		return false
	}
	csr.Status.Conditions = append(csr.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type: certificates.CertificateApproved, Status: core.ConditionTrue,
		Reason: "NodeServing", Message: "the names are those of the node that asks",
	})
	if _, err := k.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, meta.UpdateOptions{}); err != nil {
		slog.Warn("cannot approve a node's serving certificate", "node", node.Name, "reason", err)
		return false
	}
	return true
}

const nodeUser = "system:node:"

// checkServing holds a request against the node that sent it: a node may serve under its own name and the addresses
// that it has reported, and under nothing else.
func checkServing(csr *certificates.CertificateSigningRequest, node *core.Node) error {
	block, _ := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("it holds no PEM block CERTIFICATE REQUEST")
	}
	req, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	if csr.Spec.Username != nodeUser+node.Name || !slices.Contains(csr.Spec.Groups, "system:nodes") {
		return fmt.Errorf("%s is not node %s", csr.Spec.Username, node.Name)
	}
	if req.Subject.CommonName != csr.Spec.Username || !slices.Equal(req.Subject.Organization, []string{"system:nodes"}) {
		return fmt.Errorf("its subject is %s", req.Subject)
	}
	if len(req.EmailAddresses)+len(req.URIs) > 0 {
		return errors.New("it has names of other kinds")
	}
	names := []string{node.Name}
	for _, a := range node.Status.Addresses {
		names = append(names, a.Address)
	}
	for _, n := range req.DNSNames {
		if !slices.Contains(names, n) {
			return fmt.Errorf("%s is not a name of the node", n)
		}
	}
	for _, ip := range req.IPAddresses {
		if !slices.ContainsFunc(names, func(n string) bool { return ip.Equal(net.ParseIP(n)) }) {
			return fmt.Errorf("%s is not an address of the node", ip)
		}
	}
	if len(req.DNSNames)+len(req.IPAddresses) == 0 {
		return errors.New("it has no names")
	}
	return nil
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
