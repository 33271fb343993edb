// Package pki makes and keeps the certificates of a cluster, in the layout of K3s (server/tls), all with P-256 keys.
//
// The certificate authorities are made once and live for decades; everything else is a leaf that is issued anew whenever it
// no longer fits: expired, a third of its life left, other names, another authority. So a device that lay in a drawer
// for years heals at its next start, and one whose clock was wrong heals when the clock is set.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/skerryos/skerry/initd/cluster/durable"
)

const (
	// AuthorityLife is how long a certificate authority is valid. Replacing one means visiting every node and every
	// copied kubeconfig, so it outlives the hardware.
	AuthorityLife = 30 * 365 * 24 * time.Hour
	// LeafLife is how long any other certificate is valid.
	LeafLife = 365 * 24 * time.Hour
)

// Authority names a certificate authority; its files are <name>.crt and <name>.key.
type Authority string

// The authorities of a cluster. They are separate because each answers another question: who is the server, who is a
// client, which proxy may speak for somebody else. One for all would let any node's certificate pass as a proxy's.
const (
	ServerCA        Authority = "server-ca"
	ClientCA        Authority = "client-ca"
	RequestHeaderCA Authority = "request-header-ca"
)

// Authorities are all of them, in the order they are made.
var Authorities = []Authority{ServerCA, ClientCA, RequestHeaderCA}

// Leaf describes a certificate that an authority issues. Its files are <Name>.crt and <Name>.key.
type Leaf struct {
	Name   string
	CA     Authority
	CN     string
	Groups []string // organizations: Kubernetes reads them as groups
	Usage  []x509.ExtKeyUsage
	DNS    []string
	IPs    []netip.Addr
	// Dir is where the files go, the store's own folder when empty.
	Dir string
}

// Store is the folder of a cluster's certificates. Its methods must not run at the same time as each other.
type Store struct {
	// Dir is made when missing, mode 0700.
	Dir string
	// Now is the clock, time.Now outside of tests.
	Now func() time.Time
	// Floor is a moment that has certainly passed, the build time of the program. Certificates are valid from it on: a device
	// without a battery-backed clock starts near it, and what it signs then must hold before and after the
	// clock is set.
	Floor time.Time
}

// Path gives the certificate and key file of an authority.
func (s Store) Path(a Authority) (crt, key string) {
	return s.file(s.Dir, string(a))
}

// Files gives the certificate and key file of a leaf.
func (s Store) Files(l Leaf) (crt, key string) {
	dir := l.Dir
	if dir == "" {
		dir = s.Dir
	}
	return s.file(dir, l.Name)
}

func (Store) file(dir, name string) (crt, key string) {
	return filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
}

// Init makes the authorities and the service account key that do not exist yet. An authority of which only the
// certificate is there is an error: making another one would lock out every node and kubeconfig that trusts it.
func (s Store) Init() error {
	for _, a := range Authorities {
		if err := s.initAuthority(a); err != nil {
			return err
		}
	}
	return s.initServiceKey()
}

// ServiceKey is the file of the key that signs service account tokens.
func (s Store) ServiceKey() string { return filepath.Join(s.Dir, "service.key") }

func (s Store) initServiceKey() error {
	path := s.ServiceKey()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, pemKey, err := newKey()
	if err != nil {
		return err
	}
	return durable.WriteFile(path, pemKey, 0o600)
}

func (s Store) initAuthority(a Authority) error {
	crt, key := s.Path(a)
	_, errCrt := os.Stat(crt)
	switch {
	case errCrt == nil:
		_, _, err := s.authority(a)
		return err
	case !errors.Is(errCrt, fs.ErrNotExist):
		return fmt.Errorf("cannot look at the authority %s: %w", a, errCrt)
	}
	// No certificate: nothing trusts this authority yet, a lone key is what a power cut left.
	signer, pemKey, err := newKey()
	if err != nil {
		return err
	}
	from := s.notBefore()
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("skerry-%s@%d", a, s.Now().Unix())},
		NotBefore:             from,
		NotAfter:              s.later().Add(AuthorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, signer.Public(), signer)
	if err != nil {
		return fmt.Errorf("cannot make the authority %s: %w", a, err)
	}
	if err := durable.WriteFile(key, pemKey, 0o600); err != nil {
		return err
	}
	// Last: from here on the authority exists.
	return durable.WriteFile(crt, certPEM(der), 0o644)
}

// authority loads an authority and checks that its two files belong together.
func (s Store) authority(a Authority) (*x509.Certificate, crypto.Signer, error) {
	crt, key := s.Path(a)
	cert, err := readCert(crt)
	if err != nil {
		return nil, nil, err
	}
	signer, err := readKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use the authority %s: %w; nothing was changed: restore %s from a backup, or remove both files to found a new cluster", a, err, key)
	}
	if !samePublic(cert, signer) {
		return nil, nil, fmt.Errorf("cannot use the authority %s: %s and %s do not belong together; nothing was changed: restore them from a backup", a, crt, key)
	}
	return cert, signer, nil
}

// Renewed is one certificate that was issued by Ensure.
type Renewed struct {
	Leaf   Leaf
	Reason string
}

// Ensure issues those leaves that no longer fit and reports them. Init must have succeeded before. Files are written only
// for what is reported.
func (s Store) Ensure(leaves ...Leaf) ([]Renewed, error) {
	var done []Renewed
	for _, l := range leaves {
		ca, signer, err := s.authority(l.CA)
		if err != nil {
			return done, err
		}
		reason := s.unfit(l, ca)
		if reason == "" {
			continue
		}
		if err := s.issue(l, ca, signer); err != nil {
			return done, fmt.Errorf("cannot issue certificate %s (%s): %w", l.Name, reason, err)
		}
		done = append(done, Renewed{l, reason})
	}
	return done, nil
}

// unfit says why a leaf must be issued anew, or nothing when it is good.
func (s Store) unfit(l Leaf, ca *x509.Certificate) string {
	crt, key := s.Files(l)
	cert, err := readCert(crt)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing"
	}
	if err != nil {
		return "unreadable"
	}
	signer, err := readKey(key)
	if err != nil || !samePublic(cert, signer) {
		return "its key does not fit"
	}
	if cert.CheckSignatureFrom(ca) != nil {
		return "signed by another authority"
	}
	if cert.Subject.CommonName != l.CN || !sameSet(cert.Subject.Organization, l.Groups) || !slices.Equal(cert.ExtKeyUsage, l.Usage) {
		return "identity changed"
	}
	if !sameSet(cert.DNSNames, l.DNS) || !sameSet(certIPs(cert), l.IPs) {
		return "names changed"
	}
	now := s.Now()
	life := cert.NotAfter.Sub(cert.NotBefore)
	switch {
	case now.After(cert.NotAfter):
		return "expired"
	case now.Before(cert.NotBefore) && !now.Before(ca.NotBefore):
		// Before the authority's own time nothing that it issues could be valid.
		return "not yet valid"
	case cert.NotAfter.Sub(now) < min(life, LeafLife)/3:
		return "less than a third of its life left"
	}
	return ""
}

func (s Store) issue(l Leaf, ca *x509.Certificate, signer crypto.Signer) error {
	leafKey, pemKey, err := newKey()
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: l.CN, Organization: l.Groups},
		NotBefore:    maxTime(s.notBefore(), ca.NotBefore),
		NotAfter:     minTime(s.later().Add(LeafLife), ca.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  l.Usage,
		DNSNames:     l.DNS,
	}
	for _, ip := range l.IPs {
		tmpl.IPAddresses = append(tmpl.IPAddresses, ip.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, leafKey.Public(), signer)
	if err != nil {
		return err
	}
	crt, key := s.Files(l)
	// A power cut between the two leaves a pair that does not fit; unfit finds that and issues again.
	if err := durable.WriteFile(key, pemKey, 0o600); err != nil {
		return err
	}
	return durable.WriteFile(crt, certPEM(der), 0o644)
}

func (s Store) notBefore() time.Time { return minTime(s.Now(), s.Floor).Add(-time.Hour).UTC() }

// later is the best guess at the present that cannot lie before the build.
func (s Store) later() time.Time { return maxTime(s.Now(), s.Floor).UTC() }

func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot encode a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func serial() *big.Int {
	// 127 bits: RFC 5280 section 4.1.2.2 wants a positive number of at most 20 octets, and that never repeats.
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n.Add(n, big.NewInt(1))
}

func readCert(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read certificate: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("cannot read certificate %s: it holds no PEM block CERTIFICATE", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read certificate %s: %w", path, err)
	}
	return cert, nil
}

// readKey reads SEC 1, PKCS #8 and PKCS #1 keys: the authorities may have been brought by the operator.
func readKey(path string) (crypto.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("cannot read key %s: it holds no PEM block", path)
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("cannot read key %s: it cannot sign", path)
	}
	return signer, nil
}

func samePublic(cert *x509.Certificate, key crypto.Signer) bool {
	a, errA := x509.MarshalPKIXPublicKey(cert.PublicKey)
	b, errB := x509.MarshalPKIXPublicKey(key.Public())
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func certIPs(cert *x509.Certificate) []netip.Addr {
	var out []netip.Addr
	for _, ip := range cert.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func sameSet[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
