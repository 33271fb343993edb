// Package contexts keeps what a workstation proves itself with to devices. A context is a folder of the user,
//
//	$XDG_CONFIG_HOME/skerry/contexts/NAME/
//		ca.crt         the authority: images that carry it let its certificates in
//		ca.key         its secret key, mode 0600; only where certificates are issued
//		admin.crt      the certificate that this workstation shows (reader.crt in a context of a reader)
//		admin.key      its secret key, mode 0600
//		known-devices  addresses of devices and the fingerprints of their keys
//
// and the file contexts/current names the one that is used when none is named. A context is made as a whole or not at all,
// and never replaced: devices whose image trusts only its authority could not be asked any more.
package contexts

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// DefaultName is the context that is used, and made by the first build, where none is named.
const DefaultName = "default"

// Variable is the environment variable that names the context, and wins over the current one.
const Variable = "SKERRY_CONTEXT"

const (
	authorityFile = "ca.crt"
	secretFile    = "ca.key"
	devicesFile   = "known-devices"
	currentFile   = "current"
)

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func checkName(what, name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of a %s: a name has small letters, digits, dots, underscores and hyphens, 64 at most, "+
			"and begins with a letter or digit", name, what)
	}
	return nil
}

// A Store is the folder of all contexts.
type Store struct {
	Dir string
}

// Default is the user's own store: $XDG_CONFIG_HOME/skerry/contexts, or what the system has in its place.
func Default() (Store, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return Store{}, fmt.Errorf("cannot find the folder of contexts: %w", err)
	}
	return Store{filepath.Join(dir, "skerry", "contexts")}, nil
}

// A Context is one of the store.
type Context struct {
	Name string `json:"name"`
	// Dir is its folder.
	Dir string `json:"folder"`
	// Current tells that it is used when none is named.
	Current bool `json:"current"`
	// Role is what devices let this workstation do, and Holder the name in its certificate.
	Role   Role   `json:"role"`
	Holder string `json:"holder"`
	// Expires is when the certificate is no longer accepted.
	Expires time.Time `json:"expires"`
	// Authority is the fingerprint of the authority's key.
	Authority string `json:"authority"`
	// CanIssue tells that the authority's secret key is here.
	CanIssue bool `json:"canIssue"`
}

// AuthorityFile is the certificate of the authority, which images carry.
func (c Context) AuthorityFile() string { return filepath.Join(c.Dir, authorityFile) }

// CertificateFile and KeyFile are what this workstation shows to devices.
func (c Context) CertificateFile() string { return filepath.Join(c.Dir, string(c.Role)+".crt") }

// KeyFile is the secret key of the certificate.
func (c Context) KeyFile() string { return filepath.Join(c.Dir, string(c.Role)+".key") }

// New makes a context with a new authority and an admin's certificate. The first one of a store becomes the current one.
func (s Store) New(name string, now time.Time) (Context, error) {
	files, err := newFiles(name, now)
	if err == nil {
		err = s.create(name, files)
	}
	if err != nil {
		return Context{}, fmt.Errorf("cannot make context %s: %w", name, err)
	}
	return s.Get(name)
}

// A file is one of a context that is made.
type file struct {
	name string
	data []byte
	mode fs.FileMode
}

// create writes the folder of a context, and makes it the current one if it is the first.
func (s Store) create(name string, files []file) error {
	if err := checkName("context", name); err != nil {
		return err
	}
	before, err := s.names()
	if err != nil {
		return err
	}
	if err := writeFolder(filepath.Join(s.Dir, name), files); err != nil {
		return err
	}
	if len(before) == 0 {
		return s.Use(name)
	}
	return nil
}

// writeFolder makes a folder with files as a whole: it appears under its name when everything in it is on the medium.
func writeFolder(dir string, files []file) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	// An empty folder would be replaced by the rename below.
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s: %w; nothing was replaced; take another name", dir, fs.ErrExist)
	}
	temporary, err := os.MkdirTemp(parent, ".new-") // with mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	for _, f := range files {
		if err := writeNew(filepath.Join(temporary, f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	if err := errors.Join(syncFolder(temporary), os.Rename(temporary, dir)); err != nil {
		return fmt.Errorf("%w; nothing was replaced", err)
	}
	return syncFolder(parent)
}

// writeNew writes a file that must not be there, and makes it durable.
func writeNew(name string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// names lists the contexts, without looking into them.
func (s Store) names() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list the contexts: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && nameForm.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// List lists the contexts by name.
func (s Store) List() ([]Context, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	list := []Context{}
	for _, name := range names {
		c, err := s.Get(name)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// Get finds a context by its name. The error is an [fs.ErrNotExist] if there is none.
func (s Store) Get(name string) (Context, error) {
	if err := checkName("context", name); err != nil {
		return Context{}, err
	}
	c := Context{Name: name, Dir: filepath.Join(s.Dir, name)}
	if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
		return Context{}, fmt.Errorf("there is no context %q in %s; `skerry context list` shows those that are there, "+
			"`skerry context new %s` makes it: %w", name, s.Dir, name, fs.ErrNotExist)
	}
	current, err := s.Current()
	if err != nil {
		return Context{}, err
	}
	c.Current = name == current
	if err := c.read(); err != nil {
		return Context{}, fmt.Errorf("cannot read context %s: %w", name, err)
	}
	return c, nil
}

// Current is the name of the context that is used when none is named, whether it exists or not.
func (s Store) Current() (string, error) {
	data, err := os.ReadFile(filepath.Join(s.Dir, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultName, nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot find the current context: %w", err)
	}
	name := strings.TrimSpace(string(data))
	if err := checkName("context", name); err != nil {
		return "", fmt.Errorf("cannot read %s: %w; choose one with: skerry context use NAME", filepath.Join(s.Dir, currentFile), err)
	}
	return name, nil
}

// Use makes a context the current one.
func (s Store) Use(name string) error {
	if _, err := s.Get(name); err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(s.Dir, currentFile), []byte(name+"\n"), 0o600); err != nil {
		return fmt.Errorf("cannot make context %s the current one: %w; the former one still is", name, err)
	}
	return syncFolder(s.Dir)
}

// Select finds the context to use: the one that is named, else the one in $SKERRY_CONTEXT, else the current one.
func (s Store) Select(name string) (Context, error) {
	if name = cmp.Or(name, os.Getenv(Variable)); name != "" {
		return s.Get(name)
	}
	name, err := s.Current()
	if err != nil {
		return Context{}, err
	}
	return s.Get(name)
}

// Empty tells that there is no context at all.
func (s Store) Empty() (bool, error) {
	names, err := s.names()
	return len(names) == 0, err
}

// role finds out whose certificate a context has, by its files.
func (c Context) role() (Role, error) {
	i := slices.IndexFunc(Roles, func(r Role) bool {
		_, err := os.Stat(filepath.Join(c.Dir, string(r)+".crt"))
		return err == nil
	})
	if i < 0 {
		return "", fmt.Errorf("%s has no certificate (admin.crt or reader.crt)", c.Dir)
	}
	return Roles[i], nil
}
