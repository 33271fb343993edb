package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/initd/bundle"
)

// releases is a path in the folder of what the tests of upgrades make: the program skerry, an image, bundles, and the
// configuration of a workstation that has never made an image before.
func releases(path ...string) string {
	return filepath.Join(append([]string{*build, "upgrade"}, path...)...)
}

// repository is the root of the repository.
const repository = "../.."

// profileFile is the profile of a release, by its name.
func profileFile(name string) string { return "ci/e2e/testdata/upgrade/" + name + ".yaml" }

// skerryProgram is the command line as this source has it, built once.
var skerryProgram = sync.OnceValues(func() (string, error) {
	path := releases("bin", "skerry")
	cmd := exec.Command("go", "build", "-o", path, "./builder/cmd/skerry")
	cmd.Dir = repository
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build skerry: %w\n%s", err, out)
	}
	return path, nil
})

// skerry runs the command line on a workstation whose configuration is in that folder. complaints is what it wrote to its standard
// error, and part of the error, too.
func skerry(ctx context.Context, config string, args ...string) (out, complaints string, err error) {
	program, err := skerryProgram()
	if err != nil {
		return "", "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = repository
	// Nothing of the person who runs the tests has a say, but for how Go downloads modules.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SKERRY_CONTEXT=") || strings.HasPrefix(v, "SKERRY_SIGNING_KEY=")
	})
	if own, err := os.UserConfigDir(); err == nil && os.Getenv("GOENV") == "" {
		cmd.Env = append(cmd.Env, "GOENV="+filepath.Join(own, "go", "env"))
	}
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+config)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("skerry %s: %w\n%s", strings.Join(args, " "), errors.Join(err, context.Cause(ctx)), stderr.String())
	}
	return stdout.String(), stderr.String(), err
}

// firstImage is the image of the release that devices begin with.
var firstImage = sync.OnceValues(func() (string, error) {
	_, _, err := skerry(contextWithoutTest, releases("config"), "build", profileFile("first"), "--output", releases())
	return releases(imageName), err
})

// made are the bundles that were built already, by name. The lock is held while one is built.
var (
	made     = map[string]bool{}
	madeLock sync.Mutex
)

// release is the bundle of a release. It is built when it is asked for first, and after the image: that makes the key and the context.
func release(t *testing.T, name string) string {
	t.Helper()
	_, err := firstImage()
	must(t, err)
	file := releases(name + ".skb")
	madeLock.Lock()
	defer madeLock.Unlock()
	if !made[name] {
		_, _, err := skerry(t.Context(), releases("config"), "bundle", "create", profileFile(name), "--output", releases(), "--file", file)
		must(t, err)
		made[name] = true
	}
	return file
}

// releaseKeys are the workstation's.
func releaseKeys() keys.Store { return keys.Store{Dir: releases("config", "skerry", "keys")} }

// developmentKey is the one that the image trusts.
func developmentKey(t *testing.T) *keys.Signer {
	t.Helper()
	k, err := releaseKeys().Get(keys.Development)
	must(t, err)
	return openKey(t, k)
}

// newKey makes a key that no device has heard of.
func newKey(t *testing.T, name string) (keys.Key, *keys.Signer) {
	t.Helper()
	k, err := keys.Store{Dir: t.TempDir()}.New(name, "")
	must(t, err)
	return k, openKey(t, k)
}

func openKey(t *testing.T, k keys.Key) *keys.Signer {
	t.Helper()
	s, err := keys.Open(k.Secret, nil)
	must(t, err)
	return s
}

// manageContext is the workstation's context, in a copy of its configuration.
func manageContext(t *testing.T, config string) contexts.Context {
	t.Helper()
	c, err := contexts.Store{Dir: filepath.Join(config, "skerry", "contexts")}.Get(contexts.DefaultName)
	must(t, err)
	return c
}

// reseal makes a bundle with the chunks of another one and a changed manifest. Without a signer it keeps the signature of the
// old manifest, as somebody would who has no key.
func reseal(t *testing.T, from string, s *keys.Signer, change func(*bundle.Manifest)) string {
	t.Helper()
	in, err := os.Open(from)
	must(t, err)
	defer in.Close()
	r, err := bundle.OpenUnverified(in)
	must(t, err)
	m := *r.Manifest()
	change(&m)
	manifest := encodeManifest(t, m)
	_, signature := r.Signed()
	if s != nil {
		signature, err = s.Sign(manifest, "of the end-to-end tests")
		must(t, err)
	}
	header := bytes.Clone(r.Header()[:8]) // the magic
	for _, part := range [][]byte{manifest, signature} {
		header = append(binary.BigEndian.AppendUint32(header, uint32(len(part))), part...)
	}
	out, err := os.CreateTemp(t.TempDir(), "*.skb")
	must(t, err)
	defer out.Close()
	_, err = io.Copy(out, io.MultiReader(bytes.NewReader(header), in)) // in is at its first chunk
	must(t, err)
	return out.Name()
}

// encodeManifest writes a manifest in its one form.
func encodeManifest(t *testing.T, m bundle.Manifest) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	must(t, enc.Encode(m))
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// zeros is an artefact without content.
type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

// hollow makes a bundle of zeros whose root artefact has that size.
func hollow(t *testing.T, s *keys.Signer, size int64) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "*.skb")
	must(t, err)
	defer out.Close()
	_, err = bundle.Create(out, bundle.Manifest{Board: "x86-64", Architecture: "amd64", Version: "0.9.0"}, []bundle.Source{
		{Name: bundle.RootArtefact, Size: size, Content: zeros{}},
		{Name: bundle.BootArtefact("a"), Size: 1, Content: zeros{}},
		{Name: bundle.BootArtefact("b"), Size: 1, Content: zeros{}},
	}, func(manifest []byte) ([]byte, error) { return s.Sign(manifest, "of the end-to-end tests") })
	must(t, err)
	return out.Name()
}

// header reads the head of a bundle.
func header(t *testing.T, file string) *bundle.Reader {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	r, err := bundle.OpenUnverified(f)
	must(t, err)
	return r
}
