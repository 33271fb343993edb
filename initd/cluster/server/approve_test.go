package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"testing"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestCheckServing(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := newIdentity(t, "")
	// What n2 reports is what it likes: all that a case below asks for.
	nodes := []core.Node{
		aNode("n1", true, "192.0.2.5"),
		aNode("n2", true, "192.0.2.2", "n2", "2001:db8::2", "kubernetes.default.svc", "Kubernetes.default.SVC", "*.default.svc", "kubernetes.default.svc.",
			"cluster.example.com", "n1", "n3", "10.43.0.1", "::ffff:10.43.0.1", "10.43.0.10", "192.0.2.5", "203.0.113.9", "127.0.0.1", "127.0.0.2", "::1", "192.0.2.3", "192.0.2.4"),
		aNode("n3", true, "192.0.2.3", "n3"),
		aNode("n4", false, "192.0.2.4", "n4"), // was renamed, say, to n2
	}
	good := func() (*x509.CertificateRequest, certificates.CertificateSigningRequestSpec) {
		return &x509.CertificateRequest{
				Subject:  pkix.Name{CommonName: "system:node:n2", Organization: []string{"system:nodes"}},
				DNSNames: []string{"n2"}, IPAddresses: []net.IP{net.ParseIP("192.0.2.2")},
			}, certificates.CertificateSigningRequestSpec{
				Username: "system:node:n2", Groups: []string{"system:nodes", "system:authenticated"},
			}
	}
	tests := []struct {
		name   string
		change func(r *x509.CertificateRequest, s *certificates.CertificateSigningRequestSpec)
		ok     bool
	}{
		{"own name and address", func(*x509.CertificateRequest, *certificates.CertificateSigningRequestSpec) {}, true},
		{"address only", func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) { r.DNSNames = nil }, true},
		{"address of another", func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
			r.IPAddresses = append(r.IPAddresses, net.ParseIP("192.0.2.1"))
		}, false},
		{"second address", ip("2001:db8::2"), true},
		{"address of a node that is not ready", ip("192.0.2.4"), true},
		{"reported: address of another node", ip("192.0.2.3"), false},
		{"reported: name of another node", dns("n3"), false},
		{"reported: name of the API server", dns("kubernetes.default.svc"), false},
		{"reported: name of the API server in capitals", dns("Kubernetes.default.SVC"), false},
		{"reported: name of the API server with a dot", dns("kubernetes.default.svc."), false},
		{"reported: wildcard", dns("*.default.svc"), false},
		{"reported: further name of the API server", dns("cluster.example.com"), false},
		{"reported: name of the server", dns("n1"), false},
		{"reported: address as a name", dns("10.43.0.1"), false},
		{"reported: address of the API server's service", ip("10.43.0.1"), false},
		{"reported: the same in IPv6 form", ip("::ffff:10.43.0.1"), false},
		{"reported: address of another service", ip("10.43.0.10"), false},
		{"reported: address of the server", ip("192.0.2.5"), false},
		{"reported: further address of the API server", ip("203.0.113.9"), false},
		{"reported: loopback", ip("127.0.0.1"), false},
		{"reported: other loopback", ip("127.0.0.2"), false},
		{"reported: IPv6 loopback", ip("::1"), false},
		{"sent by the server's own node", func(r *x509.CertificateRequest, s *certificates.CertificateSigningRequestSpec) {
			r.Subject.CommonName, s.Username = "system:node:n1", "system:node:n1"
			r.DNSNames, r.IPAddresses = nil, []net.IP{net.ParseIP("192.0.2.5")}
		}, false},
		{"sent by a node that is gone", func(r *x509.CertificateRequest, s *certificates.CertificateSigningRequestSpec) {
			r.Subject.CommonName, s.Username = "system:node:n9", "system:node:n9"
			r.DNSNames, r.IPAddresses = []string{"n9"}, nil
		}, false},
		{"no names", func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
			r.DNSNames, r.IPAddresses = nil, nil
		}, false},
		{"subject of another", func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
			r.Subject.CommonName = "system:node:n1"
		}, false},
		{"subject with more rights", func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
			r.Subject.Organization = []string{"system:nodes", "system:masters"}
		}, false},
		{"sent by another node", func(_ *x509.CertificateRequest, s *certificates.CertificateSigningRequestSpec) {
			s.Username = "system:node:n1"
		}, false},
		{"sent by no node", func(_ *x509.CertificateRequest, s *certificates.CertificateSigningRequestSpec) {
			s.Groups = []string{"system:authenticated"}
		}, false},
		{"e-mail", func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
			r.EmailAddresses = []string{"a@example.com"}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, spec := good()
			tt.change(req, &spec)
			der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
			if err != nil {
				t.Fatal(err)
			}
			spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
			if err := checkServing(&certificates.CertificateSigningRequest{Spec: spec}, nodes, id.reserved()); (err == nil) != tt.ok {
				t.Errorf("error %v, want approval %v", err, tt.ok)
			}
		})
	}
	if err := checkServing(&certificates.CertificateSigningRequest{}, nodes, id.reserved()); err == nil {
		t.Error("an empty request was approved")
	}
}

func aNode(name string, ready bool, addresses ...string) core.Node {
	n := core.Node{ObjectMeta: meta.ObjectMeta{Name: name}}
	n.Status.Conditions = []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionUnknown}}
	if ready {
		n.Status.Conditions[0].Status = core.ConditionTrue
	}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, core.NodeAddress{Type: core.NodeInternalIP, Address: a})
	}
	return n
}

func ip(a string) func(*x509.CertificateRequest, *certificates.CertificateSigningRequestSpec) {
	return func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
		r.IPAddresses = append(r.IPAddresses, net.ParseIP(a))
	}
}

func dns(n string) func(*x509.CertificateRequest, *certificates.CertificateSigningRequestSpec) {
	return func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
		r.DNSNames = append(r.DNSNames, n)
	}
}

// Who has the token gets a certificate as any node but the server's own.
func TestApproveClient(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	joining := []string{bootstrappers, "system:authenticated"}
	usages := []certificates.KeyUsage{certificates.UsageDigitalSignature, certificates.UsageClientAuth}
	tests := []struct {
		name, cn     string
		groups       []string
		usages       []certificates.KeyUsage
		disableAgent bool
		approved     bool
		decided      bool // or none of the approver's business
	}{
		{"a node that joins", "system:node:n2", joining, usages, false, true, true},
		{"with RSA's usage", "system:node:n2", joining, append(usages, certificates.UsageKeyEncipherment), false, true, true},
		{"under the name of the server's own node", "system:node:n1", joining, usages, false, false, false},
		{"under the name of a server without a node", "system:node:n1", joining, usages, true, true, true},
		{"to serve", "system:node:n2", joining, append(usages, certificates.UsageServerAuth), false, false, false},
		{"as no node", "system:admin", joining, usages, false, false, false},
		{"renewal, which the controller manager approves", "system:node:n2", []string{"system:nodes"}, usages, false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := newIdentity(t, "")
			id.settings.DisableAgent = tt.disableAgent
			req := &x509.CertificateRequest{Subject: pkix.Name{CommonName: tt.cn, Organization: []string{"system:nodes"}}}
			der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
			if err != nil {
				t.Fatal(err)
			}
			csr := &certificates.CertificateSigningRequest{ObjectMeta: meta.ObjectMeta{Name: "csr"}, Spec: certificates.CertificateSigningRequestSpec{
				Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: certificates.KubeAPIServerClientKubeletSignerName,
				Usages: tt.usages, Username: "system:bootstrap:abcdef", Groups: tt.groups,
			}}
			k := fake.NewClientset(csr)
			a := &approver{client: k, server: id.reserved(), said: map[string]bool{}}
			if got := a.decide(t.Context(), csr); got != tt.decided {
				t.Errorf("decided %v, want %v", got, tt.decided)
			}
			after, err := k.CertificatesV1().CertificateSigningRequests().Get(t.Context(), "csr", meta.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := len(after.Status.Conditions) == 1 && after.Status.Conditions[0].Type == certificates.CertificateApproved; got != tt.approved {
				t.Errorf("conditions %v, want approval %v", after.Status.Conditions, tt.approved)
			}
		})
	}
}
