package images

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// fakeImages is containerd's table of images, in memory.
type fakeImages struct {
	images.Store
	table map[string]images.Image
}

func (f *fakeImages) Get(_ context.Context, name string) (images.Image, error) {
	i, ok := f.table[name]
	if !ok {
		return images.Image{}, errdefs.ErrNotFound
	}
	return i, nil
}

func (f *fakeImages) List(context.Context, ...string) ([]images.Image, error) {
	return slices.Collect(maps.Values(f.table)), nil
}

func (f *fakeImages) Create(_ context.Context, i images.Image) (images.Image, error) {
	f.table[i.Name] = i
	return i, nil
}

func (f *fakeImages) Update(_ context.Context, i images.Image, _ ...string) (images.Image, error) {
	f.table[i.Name] = i
	return i, nil
}

func (f *fakeImages) Delete(_ context.Context, name string, _ ...images.DeleteOpt) error {
	delete(f.table, name)
	return nil
}

// memoryLabels keeps the labels of blobs, which containerd has in its database.
type memoryLabels struct {
	mu sync.Mutex
	m  map[digest.Digest]map[string]string
}

func (l *memoryLabels) Get(d digest.Digest) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.m[d]), nil
}

func (l *memoryLabels) Set(d digest.Digest, labels map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m[d] = maps.Clone(labels)
	return nil
}

func (l *memoryLabels) Update(d digest.Digest, update map[string]string) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m[d] == nil {
		l.m[d] = map[string]string{}
	}
	maps.Copy(l.m[d], update)
	return maps.Clone(l.m[d]), nil
}

// world is a layout on disk and a store to import it into: containerd's own content store over a temporary folder.
type world struct {
	Store
	images   *fakeImages
	labels   *memoryLabels
	root     string // of the content store
	layout   string
	unpacked []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		images: &fakeImages{table: map[string]images.Image{}}, labels: &memoryLabels{m: map[digest.Digest]map[string]string{}},
		root: t.TempDir(), layout: filepath.Join(t.TempDir(), "layout"),
	}
	cs, err := local.NewLabeledStore(w.root, w.labels)
	if err != nil {
		t.Fatal(err)
	}
	w.Store = Store{Content: cs, Images: w.images, Unpack: func(_ context.Context, i images.Image) error {
		w.unpacked = append(w.unpacked, i.Name)
		return nil
	}}
	return w
}

// add puts an image with one layer into the layout.
func (w *world) add(t *testing.T, name, layer string) {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer([]byte(layer), types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	path, err := layout.FromPath(w.layout)
	if err != nil {
		if path, err = layout.Write(w.layout, empty.Index); err != nil {
			t.Fatal(err)
		}
	}
	annotations := map[string]string{"org.opencontainers.image.ref.name": name}
	if name == "" {
		annotations = nil
	}
	if err := path.AppendImage(img, layout.WithAnnotations(annotations), layout.WithPlatform(v1.Platform{})); err != nil {
		t.Fatal(err)
	}
}

func (w *world) run(t *testing.T, verify bool) []Result {
	t.Helper()
	got, err := w.Layout(t.Context(), w.layout, verify)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// blob is the file of the blob with the given content.
func (w *world) blob(data string) string {
	return filepath.Join(w.root, "blobs", "sha256", digest.FromString(data).Encoded())
}

func damage(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	// As after a power cut: the length is right, the bytes are not.
	info, _ := os.Stat(path)
	if err := os.WriteFile(path, make([]byte, info.Size()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLayout(t *testing.T) {
	w := newWorld(t)
	w.add(t, "skerry.internal/a:1", "layer a")
	w.add(t, "skerry.internal/b:1", "layer b")

	if got := w.run(t, false); !slices.Equal(got, []Result{{"skerry.internal/a:1", 3}, {"skerry.internal/b:1", 3}}) {
		t.Errorf("first import: %v, want three blobs of each image", got)
	}
	if got := w.run(t, false); !slices.Equal(got, []Result{{"skerry.internal/a:1", 0}, {"skerry.internal/b:1", 0}}) {
		t.Errorf("second import: %v, want nothing copied", got)
	}
	a := w.images.table["skerry.internal/a:1"]
	if a.Labels["io.cri-containerd.pinned"] != "pinned" || a.Labels["io.cri-containerd.image"] != "managed" {
		t.Errorf("labels %v: kubelet would collect it", a.Labels)
	}
	if n := len(w.labels.m[a.Target.Digest]); n != 2 {
		t.Errorf("the manifest has %d labels for its configuration and layer, want 2: containerd would collect them", n)
	}
	if want := []string{"skerry.internal/a:1", "skerry.internal/b:1"}; !slices.Equal(w.unpacked[:2], want) {
		t.Errorf("unpacked %v, want %v", w.unpacked, want)
	}
}

func TestLayoutMendsDamage(t *testing.T) {
	w := newWorld(t)
	w.add(t, "a:1", "layer a")
	w.run(t, false)
	damage(t, w.blob("layer a"))
	if got := w.run(t, false); got[0].Copied != 0 {
		t.Errorf("%v: after a clean stop nothing is read", got)
	}
	if got := w.run(t, true); got[0].Copied != 1 {
		t.Errorf("%v: want the damaged layer copied anew", got)
	}
	if b, err := os.ReadFile(w.blob("layer a")); err != nil || string(b) != "layer a" {
		t.Errorf("layer is %q, %v", b, err)
	}
}

func TestLayoutCopiesWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	w.add(t, "a:1", "layer a")
	w.run(t, false)
	if err := os.Remove(w.blob("layer a")); err != nil {
		t.Fatal(err)
	}
	if got := w.run(t, false); got[0].Copied != 1 {
		t.Errorf("%v: want the missing layer copied", got)
	}
}

func TestLayoutTakesBackAName(t *testing.T) {
	w := newWorld(t)
	w.add(t, "a:1", "new system's layer")
	w.images.table["a:1"] = images.Image{Name: "a:1", Labels: map[string]string{"theirs": "x"}}
	w.run(t, false)
	i := w.images.table["a:1"]
	if i.Target.Digest == "" || !hasLabels(i.Labels) || i.Labels["theirs"] != "x" {
		t.Errorf("image is %+v", i)
	}
}

func TestLayoutMistakes(t *testing.T) {
	t.Run("no layout", func(t *testing.T) {
		w := newWorld(t)
		if got, err := w.Layout(t.Context(), w.layout, false); err != nil || len(got) != 0 {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("image without a name", func(t *testing.T) {
		w := newWorld(t)
		w.add(t, "", "x")
		if _, err := w.Layout(t.Context(), w.layout, false); err == nil || !strings.Contains(err.Error(), "no name") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("damaged layout", func(t *testing.T) {
		w := newWorld(t)
		w.add(t, "a:1", "layer a")
		damage(t, filepath.Join(w.layout, "blobs", "sha256", digest.FromString("layer a").Encoded()))
		if _, err := w.Layout(t.Context(), w.layout, false); err == nil {
			t.Error("a damaged blob was taken in")
		}
		if len(w.images.table) != 0 {
			t.Error("the image was recorded all the same")
		}
	})
	t.Run("unpacking fails", func(t *testing.T) {
		w := newWorld(t)
		w.add(t, "a:1", "layer a")
		full := errors.New("no space left on device")
		w.Unpack = func(context.Context, images.Image) error { return full }
		if _, err := w.Layout(t.Context(), w.layout, false); !errors.Is(err, full) {
			t.Errorf("error %v", err)
		}
	})
}

func TestPause(t *testing.T) {
	w := newWorld(t)
	program := filepath.Join(t.TempDir(), "skerry-cri")
	if err := os.WriteFile(program, []byte("ELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	if made, err := w.Pause(t.Context(), "pause:1", program); err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
	i := w.images.table["pause:1"]
	config, err := i.Config(t.Context(), w.Content, platforms.Default())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := content.ReadBlob(t.Context(), w.Content, config); err != nil || !strings.Contains(string(b), `"Entrypoint":["/pause"]`) {
		t.Errorf("configuration %s, %v", b, err)
	}
	if !hasLabels(i.Labels) {
		t.Error("kubelet would collect it")
	}
	if made, err := w.Pause(t.Context(), "pause:1", "/nowhere"); err != nil || made {
		t.Errorf("an image that is there was made again: %v, %v", made, err)
	}
	if _, err := w.Pause(t.Context(), "pause:2", "/nowhere"); err == nil {
		t.Error("an image was made from nothing")
	}
}

func TestHeal(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"good:1", "bad:1", "pinned:1", "dropped:1"} {
		w.add(t, n, "layer of "+n)
	}
	w.run(t, false)
	for _, n := range []string{"good:1", "bad:1", "dropped:1"} {
		i := w.images.table[n]
		i.Labels = nil // pulled, not preloaded
		w.images.table[n] = i
	}
	damage(t, w.blob("layer of bad:1"))
	damage(t, w.blob("layer of pinned:1"))
	if err := os.Remove(w.blob("layer of dropped:1")); err != nil {
		t.Fatal(err)
	}
	removed, err := w.Heal(t.Context())
	if err != nil || !slices.Equal(removed, []string{"bad:1"}) {
		t.Errorf("removed %v, %v; want bad:1 alone", removed, err)
	}
	if _, err := os.Stat(w.blob("layer of bad:1")); !os.IsNotExist(err) {
		t.Error("the damaged blob stays: the next pull would take it for good")
	}
	if _, ok := w.images.table["pinned:1"]; !ok {
		t.Error("a preloaded image was removed, which no registry has")
	}
}
