package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/keys"
	"github.com/skerryos/skerry/builder/plan"
	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/bundle"
)

// newBundleBuild is a build with a key that its image trusts.
func newBundleBuild(t *testing.T) (*build, *keys.Signer, bundle.PublicKey) {
	t.Helper()
	return withKey(t, newBuild(t))
}

// withKey gives a build a key that its image trusts.
func withKey(t *testing.T, b *build) (*build, *keys.Signer, bundle.PublicKey) {
	t.Helper()
	k, err := keys.Store{Dir: t.TempDir()}.New("fleet", "")
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.Open(k.Secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	public, err := bundle.ParsePublicKey(k.Public)
	if err != nil {
		t.Fatal(err)
	}
	b.plan.Keys = []plan.TrustedKey{k.Trusted()}
	return b, s, public
}

// artefactsOf reads a bundle as a device does.
func artefactsOf(t *testing.T, file string, key bundle.PublicKey) (*bundle.Manifest, map[string][]byte) {
	t.Helper()
	r, err := bundle.Open(bytes.NewReader(read(t, file)), []bundle.PublicKey{key})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for {
		i, plain, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Manifest(), out
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Manifest().Places(i) {
			if p.Offset != int64(len(out[p.Artefact])) {
				t.Errorf("chunk %d of %s is at %d, %d bytes are there", i, p.Artefact, p.Offset, len(out[p.Artefact]))
			}
			out[p.Artefact] = append(out[p.Artefact], plain...)
		}
	}
}

func TestBundleHasTheBytesOfTheDisk(t *testing.T) {
	b, s, key := newBundleBuild(t)
	disk := b.run(t)
	options := BundleOptions{Floor: 3, Sign: s.Sign, Keys: bundle.KeyChange{Retire: []string{"0123456789ABCDEF"}}}
	r, err := Bundle(t.Context(), b.fresh(), b.plan, b.out, options)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(b.out, "skerry-test-1.2.3.skb"); r.Bundle != want {
		t.Errorf("the bundle is %s, want %s", r.Bundle, want)
	}
	m, artefacts := artefactsOf(t, r.Bundle, key)
	if m.Board != "test" || m.Architecture != "amd64" || m.Version != "1.2.3" || m.Floor != 3 || m.Created != b.plan.SourceDate || len(m.Keys.Retire) != 1 {
		t.Errorf("manifest is %+v", m)
	}
	if r.Bytes != m.Size() || r.Plain != m.Artefact("root").Size+m.Artefact("boot-a").Size {
		t.Errorf("result is %+v", r)
	}

	image := read(t, disk.Image)
	if root := artefacts["root"]; !bytes.Equal(image[1<<20+b.plan.Disk.BootBytes:][:len(root)], root) {
		t.Error("root differs from slot a of the disk")
	}
	if !bytes.Contains(image[1<<20:][:b.plan.Disk.BootBytes], artefacts["boot-a"]) {
		t.Error("boot-a is not on the boot partition of the disk")
	}
	swapped := bytes.Replace(artefacts["boot-a"], []byte("skerry.slot=a"), []byte("skerry.slot=b"), 1)
	if !bytes.Equal(swapped, artefacts["boot-b"]) {
		t.Error("boot-b differs from boot-a in more than the slot's letter")
	}

	// Made anew, elsewhere: the same bytes.
	options.File = filepath.Join(t.TempDir(), "again.skb")
	if _, err := Bundle(t.Context(), b.fresh(), b.plan, b.out, options); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, r.Bundle), read(t, options.File)) {
		t.Error("the same plan and key gave another bundle")
	}
}

func TestBundleFailureLeavesTheFormerOne(t *testing.T) {
	b, s, _ := newBundleBuild(t)
	former := filepath.Join(b.out, "former.skb")
	if err := os.WriteFile(former, []byte("former"), 0o600); err != nil {
		t.Fatal(err)
	}
	noKey := errors.New("no key today")
	for _, tt := range []struct {
		name    string
		options BundleOptions
		want    string
	}{
		{"signature", BundleOptions{Sign: func([]byte, string) ([]byte, error) { return nil, noKey }}, noKey.Error()},
		{"floor", BundleOptions{Sign: s.Sign, Floor: 1 << 60}, "floor"},
		{"key to retire", BundleOptions{Sign: s.Sign, Keys: bundle.KeyChange{Retire: []string{"all"}}}, "to retire"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.options.File = former
			if _, err := Bundle(t.Context(), b.fresh(), b.plan, b.out, tt.options); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error does not say %q: %v", tt.want, err)
			}
			if got := string(read(t, former)); got != "former" {
				t.Errorf("the former bundle is now %q", got)
			}
			if left, _ := filepath.Glob(filepath.Join(b.out, "*former*")); len(left) != 1 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

// The image's file of authorities is the plan's, byte for byte; without an authority there is none, and the device API stays
// off the network.
func TestImageLetsItsClientsIn(t *testing.T) {
	b := newBuild(t)
	tree, err := b.fresh().RootTree(t.Context(), b.plan)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := tree.Lookup(v1.ClientsPath); ok {
		t.Error("an image without authorities has a file of them")
	}
	b.plan.Clients = []plan.Authority{{Name: "one", Certificate: "A\n"}, {Name: "two", Certificate: "B\n"}}
	if tree, err = b.fresh().RootTree(t.Context(), b.plan); err != nil {
		t.Fatal(err)
	}
	e, ok := tree.Lookup(v1.ClientsPath)
	if !ok || e.Mode != 0o644 {
		t.Fatalf("the file is not in the image: %+v", e)
	}
	if text, err := e.Content.ReadAll(); err != nil || string(text) != "A\nB\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

// Images trust the keys of their plan, each in a file that the device's own code reads.
func TestImageTrustsItsKeys(t *testing.T) {
	b, _, key := newBundleBuild(t)
	development := plan.TrustedKey{ID: "00000000000000AA", Line: b.plan.Keys[0].Line, Development: true}
	b.plan.Keys = append(b.plan.Keys, development)
	tree, err := b.fresh().RootTree(t.Context(), b.plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range b.plan.Keys {
		e, ok := tree.Lookup("/usr/lib/skerry/keys/" + k.ID + ".pub")
		if !ok || e.Mode != 0o644 {
			t.Fatalf("key %s is not in the image: %+v", k.ID, e)
		}
		text, err := e.Content.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		got, err := bundle.ParsePublicKey(string(text))
		if err != nil || !got.Equal(key) {
			t.Errorf("key %s came back as another: %v", k.ID, err)
		}
		if named := strings.Contains(string(text), "development"); named != k.Development {
			t.Errorf("key %s: %s", k.ID, text)
		}
	}
}
