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
)

func TestCheckServing(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	node := &core.Node{
		ObjectMeta: meta.ObjectMeta{Name: "n2"},
		Status:     core.NodeStatus{Addresses: []core.NodeAddress{{Type: core.NodeInternalIP, Address: "192.0.2.2"}, {Type: core.NodeHostName, Address: "n2"}}},
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
		{"name of the API server", func(r *x509.CertificateRequest, _ *certificates.CertificateSigningRequestSpec) {
			r.DNSNames = append(r.DNSNames, "kubernetes.default.svc")
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
			if err := checkServing(&certificates.CertificateSigningRequest{Spec: spec}, node); (err == nil) != tt.ok {
				t.Errorf("error %v, want approval %v", err, tt.ok)
			}
		})
	}
	if err := checkServing(&certificates.CertificateSigningRequest{}, node); err == nil {
		t.Error("an empty request was approved")
	}
}
