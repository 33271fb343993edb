package api

import (
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
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// serverValidity is when the device's certificate is valid. Clients know the device by its key and not by its names or dates,
// as with ssh, and the device may have no clock: so that is always.
var serverValidity = [2]time.Time{
	time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
	time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, section 4.1.2.5: no end
}

// networkTLS is how the API is served on the network, or nil when the image names no authority whose clients may use it.
func networkTLS(root string) (*tls.Config, error) {
	text, err := os.ReadFile(filepath.Join(root, v1.ClientsPath))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read whose certificates are accepted: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("cannot read whose certificates are accepted: no certificate in %s", v1.ClientsPath)
	}
	own, err := serverCertificate(filepath.Join(root, v1.ServerCertPath), filepath.Join(root, v1.ServerKeyPath))
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	}, nil
}

// serverCertificate reads the device's certificate and key, or makes them when one is missing or damaged. What cannot be read at
// the moment may be there: a new key would make the device a stranger to all who know it.
func serverCertificate(certFile, keyFile string) (tls.Certificate, error) {
	own, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil {
		return own, nil
	}
	if _, unread := errors.AsType[*fs.PathError](err); unread && !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, fmt.Errorf("cannot read the device's certificate: %w", err)
	}
	cert, key, err := newServerCertificate()
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("cannot make the device's certificate: %w", err)
	}
	// The key first: a power cut between the two leaves a pair that does not fit, which is made anew.
	for _, f := range []struct {
		name string
		text []byte
	}{{keyFile, key}, {certFile, cert}} {
		if err := renameio.WriteFile(f.name, f.text, 0o600); err != nil {
			return tls.Certificate{}, fmt.Errorf("cannot keep the device's certificate: %w", err)
		}
	}
	dir, err := os.Open(filepath.Dir(certFile))
	if err != nil {
		return tls.Certificate{}, err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// newServerCertificate makes a key and a certificate that it has signed itself, as PEM.
func newServerCertificate() (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "skerry device"},
		NotBefore: serverValidity[0], NotAfter: serverValidity[1],
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// Fingerprint is how people compare keys: the SHA-256 of the public key (SubjectPublicKeyInfo), as ssh shows it.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}
