package contexts

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Issue makes a certificate for another person and writes what a workstation needs to use it into a folder that must not
// be there: the authority's certificate, the new certificate with its secret key, and the devices that are known here, so that
// the other one need not take their fingerprints on trust.
func (c Context) Issue(dir, holder string, role Role, now time.Time) error {
	if err := checkName("holder", holder); err != nil {
		return err
	}
	ca, err := os.ReadFile(c.AuthorityFile())
	if err != nil {
		return fmt.Errorf("cannot issue a certificate: %w", err)
	}
	caKey, err := os.ReadFile(filepath.Join(c.Dir, secretFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot issue a certificate in context %s: its authority's secret key is not here; ask whoever made the context; "+
			"nothing was written", c.Name)
	}
	if err != nil {
		return fmt.Errorf("cannot issue a certificate: %w", err)
	}
	certificate, secret, err := issueFor(ca, caKey, holder, role, now)
	if err != nil {
		return fmt.Errorf("cannot issue a certificate: %w; nothing was written", err)
	}
	devices, err := os.ReadFile(filepath.Join(c.Dir, devicesFile))
	if errors.Is(err, fs.ErrNotExist) {
		devices, err = []byte(devicesHead), nil
	}
	if err != nil {
		return fmt.Errorf("cannot hand on the known devices: %w", err)
	}
	err = writeFolder(dir, []file{
		{authorityFile, ca, 0o644},
		{string(role) + ".crt", certificate, 0o644},
		{string(role) + ".key", secret, 0o600},
		{devicesFile, devices, 0o600},
	})
	if err != nil {
		return fmt.Errorf("cannot write the certificate of %s: %w", holder, err)
	}
	return nil
}

// Import makes a context of a folder that Issue has written. An empty name is that of the context which it was issued in.
func (s Store) Import(dir, name string) (Context, error) {
	from := Context{Dir: dir}
	ca, err := os.ReadFile(from.AuthorityFile())
	if err != nil {
		return Context{}, fmt.Errorf("cannot import %s: %w; give a folder that `skerry context issue` has written", dir, err)
	}
	authority, err := parseOne(from.AuthorityFile(), ca)
	if err != nil {
		return Context{}, fmt.Errorf("cannot import %s: %w", dir, err)
	}
	if from.Role, err = from.role(); err != nil {
		return Context{}, fmt.Errorf("cannot import %s: %w", dir, err)
	}
	if name == "" {
		name = strings.TrimPrefix(authority.Subject.CommonName, authorityPrefix)
	}
	files := []file{{authorityFile, ca, 0o644}}
	for _, f := range []file{
		{name: string(from.Role) + ".crt", mode: 0o644},
		{name: string(from.Role) + ".key", mode: 0o600},
		{name: devicesFile, mode: 0o600},
	} {
		if f.data, err = os.ReadFile(filepath.Join(dir, f.name)); err != nil {
			return Context{}, fmt.Errorf("cannot import %s: %w; nothing was imported", dir, err)
		}
		files = append(files, f)
	}
	if err := check(authority, files[1].data, files[2].data, from.Role); err != nil {
		return Context{}, fmt.Errorf("cannot import %s: %w; nothing was imported", dir, err)
	}
	if _, err := parseDevices(filepath.Join(dir, devicesFile), files[3].data); err != nil {
		return Context{}, fmt.Errorf("cannot import %s: %w; nothing was imported", dir, err)
	}
	if err := s.create(name, files); err != nil {
		return Context{}, fmt.Errorf("cannot import %s as context %s: %w", dir, name, err)
	}
	return s.Get(name)
}

// check holds a certificate against the authority and the role that its file is named for.
func check(authority *x509.Certificate, certificate, secret []byte, role Role) error {
	pair, err := tls.X509KeyPair(certificate, secret)
	if err != nil {
		return err
	}
	if err := pair.Leaf.CheckSignatureFrom(authority); err != nil {
		return fmt.Errorf("the certificate was not issued by the authority beside it: %w", err)
	}
	want, err := role.organization()
	if err != nil {
		return err
	}
	if got := pair.Leaf.Subject.Organization; len(got) != 1 || got[0] != want {
		return fmt.Errorf("the certificate is for role %q, its file is named for %q", got, want)
	}
	return nil
}
