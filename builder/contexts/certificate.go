package contexts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skerryos/skerry/builder/plan"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// A Role is what devices let the holder of a certificate do.
type Role string

// The roles, in the words of the command line. Devices know them by the organization in the certificate.
const (
	Admin  Role = "admin"
	Reader Role = "reader"
)

// Roles are all roles.
var Roles = []Role{Admin, Reader}

func (r Role) organization() (string, error) {
	switch r {
	case Admin:
		return v1.RoleAdmin, nil
	case Reader:
		return v1.RoleReader, nil
	}
	return "", fmt.Errorf("there is no role %q; the roles are admin (may change everything) and reader (may only ask)", r)
}

// validFrom is before every clock: devices have no battery for theirs, and show what a new one shows after power-on.
var validFrom = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// How long certificates are valid. An authority lies in the image of every device, and cannot be renewed without upgrading all.
const (
	authorityYears = 30
	holderYears    = 10
)

// authorityPrefix begins the name in an authority's certificate; the name of its context follows.
const authorityPrefix = "skerry context "

// Fingerprint is what people compare: the SHA-256 of a key's SubjectPublicKeyInfo, as ssh shows those of hosts.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// issue makes a key and its certificate, signed by the parent, or by itself without one. Both are returned as PEM.
func issue(template, parent *x509.Certificate, signer crypto.Signer) (certificate, secret []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, signer = template, key
	}
	template.NotBefore = validFrom
	// RFC 5280, section 4.1.2.2: a serial number is not used twice; without one given, Go takes a random one of 159 bits.
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	secretDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secretDER}), nil
}

// newFiles makes the files of a new context.
func newFiles(name string, now time.Time) ([]file, error) {
	ca, caKey, err := issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: authorityPrefix + name},
		NotAfter:              now.UTC().AddDate(authorityYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}, nil, nil)
	if err != nil {
		return nil, err
	}
	holder, holderKey, err := issueFor(ca, caKey, "admin of "+name, Admin, now)
	if err != nil {
		return nil, err
	}
	return []file{
		{authorityFile, ca, 0o644},
		{secretFile, caKey, 0o600},
		{"admin.crt", holder, 0o644},
		{"admin.key", holderKey, 0o600},
		{devicesFile, []byte(devicesHead), 0o600},
	}, nil
}

// issueFor makes the certificate of a holder, signed by an authority that is given as PEM.
func issueFor(ca, caKey []byte, holder string, role Role, now time.Time) (certificate, secret []byte, err error) {
	organization, err := role.organization()
	if err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair(ca, caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("authority: its key cannot sign")
	}
	until := now.UTC().AddDate(holderYears, 0, 0)
	if until.After(pair.Leaf.NotAfter) {
		until = pair.Leaf.NotAfter
	}
	return issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: holder, Organization: []string{organization}},
		NotAfter:    until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pair.Leaf, signer)
}

// read fills in what the files of the context say.
func (c *Context) read() error {
	authorities, err := readAuthorities(c.AuthorityFile())
	if err != nil {
		return err
	}
	c.Authority = authorities[0].Fingerprint
	if c.Role, err = c.role(); err != nil {
		return err
	}
	pair, err := c.Certificate()
	if err != nil {
		return err
	}
	c.Holder, c.Expires = pair.Leaf.Subject.CommonName, pair.Leaf.NotAfter
	if _, err := os.Stat(filepath.Join(c.Dir, secretFile)); err == nil {
		c.CanIssue = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Certificate is what this workstation proves itself with.
func (c Context) Certificate() (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(c.CertificateFile(), c.KeyFile())
	if err != nil {
		return pair, fmt.Errorf("cannot read the certificate of context %s: %w", c.Name, err)
	}
	return pair, nil
}

// Authorities reads files with certificates of authorities, whose clients an image is to let in.
func Authorities(files []string) ([]plan.Authority, error) {
	var list []plan.Authority
	for _, name := range files {
		more, err := readAuthorities(name)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// readAuthorities reads one file, which has at least one authority. What is returned depends on the certificates alone and
// not on how the file is written, so that the same authorities give the same image.
func readAuthorities(name string) ([]plan.Authority, error) {
	rest, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the authority: %w", err)
	}
	var list []plan.Authority
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, fmt.Errorf("cannot read the authority %s: it has a secret key, which must not come into an image; "+
				"give the file with the certificate alone (ca.crt)", name)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("cannot read the authority %s: %w", name, err)
		}
		if !cert.IsCA {
			return nil, fmt.Errorf("cannot read the authority %s: the certificate of %q is not one of an authority; "+
				"give ca.crt of a context", name, cert.Subject.CommonName)
		}
		list = append(list, plan.Authority{
			Name:        cert.Subject.CommonName,
			Fingerprint: Fingerprint(cert),
			Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("cannot read the authority %s: it has no certificate in PEM form; give ca.crt of a context", name)
	}
	return list, nil
}

// parseOne reads the only certificate of a PEM file.
func parseOne(name string, data []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s is not one certificate in PEM form", name)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return cert, nil
}
