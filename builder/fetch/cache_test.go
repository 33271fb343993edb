package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/plan"
)

// content is what the tests fetch: large enough to be cut in the middle.
var content = []byte(strings.Repeat("0123456789abcdef", 1<<12))

// file is content as a lock has it.
func file() File {
	sum := sha256.Sum256(content)
	return File{Name: "hello 1.0 (amd64)", Path: "pool/hello.deb", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content))}
}

// A mirror answers requests by a list of answers, one after the other; the last one is repeated. It notes what ranges
// were asked for.
type mirror struct {
	*httptest.Server
	mu      sync.Mutex
	answers []http.HandlerFunc
	ranges  []string
}

func newMirror(t *testing.T, answers ...http.HandlerFunc) *mirror {
	m := &mirror{answers: answers}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		answer := m.answers[min(len(m.ranges), len(m.answers)-1)]
		m.ranges = append(m.ranges, r.Header.Get("Range"))
		m.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) asked() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.ranges, ",")
}

// whole serves body with ranges, as any web server does.
func whole(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(body)))
	}
}

// noRanges serves body and ignores what part was asked for.
func noRanges(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
}

// cut promises the whole content and breaks the connection after n bytes.
func cut(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// stall sends n bytes and then nothing until the client gives up.
func stall(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:n])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// wrongRange answers a request for a part with another part.
func wrongRange(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-9/%d", len(content)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(content[:10])
}

// changed is of the right size and has another content.
func changed() []byte {
	b := append([]byte(nil), content...)
	b[len(b)/2] ^= 1
	return b
}

func TestFile(t *testing.T) {
	half := len(content) / 2
	resume := fmt.Sprintf("bytes=%d-", half)
	for _, c := range []struct {
		name    string
		part    []byte // what an earlier run left
		answers []http.HandlerFunc
		ranges  string   // what must have been asked for, in order
		want    []string // parts of the error; none: it must succeed
		left    int      // bytes that must be left in the part after an error
	}{
		{name: "plain", answers: []http.HandlerFunc{whole(content)}, ranges: ""},
		{name: "earlier run is resumed", part: content[:half], answers: []http.HandlerFunc{whole(content)}, ranges: resume},
		{name: "broken connection is resumed", answers: []http.HandlerFunc{cut(half), whole(content)}, ranges: "," + resume},
		{name: "mirror without ranges", part: content[:half], answers: []http.HandlerFunc{noRanges(content)}, ranges: resume},
		{name: "earlier run complete", part: content, answers: []http.HandlerFunc{status(http.StatusTeapot)}, ranges: ""},
		{name: "earlier run damaged", part: changed()[:half+1], answers: []http.HandlerFunc{whole(content)}, ranges: fmt.Sprintf("bytes=%d-,", half+1)},
		{name: "earlier run too long", part: append(changed(), 1, 2), answers: []http.HandlerFunc{whole(content)}, ranges: ""},
		{name: "wrong range once", part: content[:half], answers: []http.HandlerFunc{wrongRange, whole(content)}, ranges: resume + ","},
		{name: "server error once", answers: []http.HandlerFunc{status(http.StatusBadGateway), whole(content)}, ranges: ","},
		{
			name: "wrong digest", answers: []http.HandlerFunc{whole(changed())}, ranges: "",
			want: []string{"wrong digest", "expected sha256 " + file().SHA256, "got ", "deleted"},
		},
		{
			name: "larger than expected", answers: []http.HandlerFunc{noRanges(append(changed(), 1))}, ranges: ",,",
			want: []string{"larger than the expected"},
		},
		{
			name: "breaks each time", answers: []http.HandlerFunc{cut(10), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }}, ranges: ",bytes=10-,bytes=10-",
			want: []string{"EOF", "--mirror URL"}, left: 10,
		},
		{
			name: "server error each time", answers: []http.HandlerFunc{status(http.StatusBadGateway)}, ranges: ",,",
			want: []string{"502 Bad Gateway", "--mirror URL", "SKERRY_MIRROR"},
		},
		{
			name: "absent", answers: []http.HandlerFunc{status(http.StatusNotFound)}, ranges: "",
			want: []string{"does not have it"},
		},
		{
			name: "stalls", answers: []http.HandlerFunc{stall(10)}, ranges: ",bytes=10-,bytes=10-",
			want: []string{"the mirror sent nothing for 50ms"}, left: 10,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMirror(t, c.answers...)
			f := file()
			cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{{URL: m.URL, From: "the test"}}, Patience: 50 * time.Millisecond}
			if c.want == nil {
				cache.Patience = 0 // a busy machine must not make a good download fail
			}
			name := cache.path(f)
			if c.part != nil {
				if err := os.MkdirAll(strings.TrimSuffix(name, "/"+f.SHA256), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name+".part", c.part, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := cache.File(t.Context(), f)
			if m.asked() != c.ranges {
				t.Errorf("asked for ranges %q, want %q", m.asked(), c.ranges)
			}
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if data, err := os.ReadFile(got); err != nil || string(data) != string(content) {
					t.Errorf("the file has %d bytes of something else, error %v", len(data), err)
				}
				if _, err := os.Stat(name + ".part"); !os.IsNotExist(err) {
					t.Errorf("the part is still there: %v", err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range append(c.want, f.Name, m.URL+"/"+f.Path, "from the test") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q:\n%v", part, err)
				}
			}
			if _, err := os.Stat(name); !os.IsNotExist(err) {
				t.Errorf("something is under the final name: %v", err)
			}
			if data, err := os.ReadFile(name + ".part"); len(data) != c.left {
				t.Errorf("%d bytes were left (%v), want %d", len(data), err, c.left)
			}
		})
	}
}

func TestFileIsFetchedOnce(t *testing.T) {
	m := newMirror(t, whole(content))
	cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{{URL: m.URL}}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := cache.File(t.Context(), file()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(m.ranges); n != 1 {
		t.Errorf("the mirror was asked %d times, want once", n)
	}
}

func TestDamagedCacheIsMended(t *testing.T) {
	m := newMirror(t, whole(content))
	cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{{URL: m.URL}}}
	name, err := cache.File(t.Context(), file())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{changed(), content[:5]} {
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.File(t.Context(), file()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != string(content) {
			t.Errorf("the damaged file was not mended: %v", err)
		}
	}
}

func TestMirrorsInOrder(t *testing.T) {
	good, absent := newMirror(t, whole(content)), newMirror(t, status(http.StatusNotFound))
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	archive := func(m *mirror) Mirror { return Mirror{URL: m.URL, From: "the locked date", OnlyMissing: true} }
	for _, c := range []struct {
		name    string
		mirrors []Mirror
		want    []string // parts of the error; none: it must succeed
		not     string   // what the error must not speak of
	}{
		{"the next one has it", []Mirror{{URL: absent.URL}, {URL: good.URL}}, nil, ""},
		{"the first one is down", []Mirror{{URL: down.URL}, {URL: good.URL}}, nil, ""},
		{"dropped version", []Mirror{{URL: absent.URL}, archive(good)}, nil, ""},
		{"one down, one has dropped it", []Mirror{{URL: down.URL}, {URL: absent.URL}, archive(good)}, nil, ""},
		{"only the archive", []Mirror{archive(good)}, nil, ""},
		{"down is not dropped", []Mirror{{URL: down.URL, From: "--mirror"}, archive(good)}, []string{down.URL, "connection refused", "--mirror URL", "SKERRY_MIRROR"}, "locked date"},
		{"none", nil, []string{"no mirror is known", "--mirror URL"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := &Cache{Dir: t.TempDir(), Mirrors: c.mirrors}
			_, err := cache.File(t.Context(), file())
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q:\n%v", part, err)
				}
			}
			if c.not != "" && strings.Contains(err.Error(), c.not) {
				t.Errorf("the error speaks of %q:\n%v", c.not, err)
			}
		})
	}
}

func TestInterruptKeepsWhatArrived(t *testing.T) {
	arrived := make(chan struct{})
	once := sync.OnceFunc(func() { close(arrived) })
	m := newMirror(t, stall(1000), whole(content))
	cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{{URL: m.URL}}, Progress: func(_ string, done, total int64) {
		if done == 1000 && total == int64(len(content)) {
			once()
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := cache.File(ctx, file()); err == nil || !strings.Contains(err.Error(), "goes on from there") {
		t.Fatalf("got %v, want an error that says that what arrived is kept", err)
	}
	if _, err := cache.File(t.Context(), file()); err != nil {
		t.Fatal(err)
	}
	if want := ",bytes=1000-"; m.asked() != want {
		t.Errorf("asked for ranges %q, want %q", m.asked(), want)
	}
}

func TestPackages(t *testing.T) {
	m := newMirror(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.TrimPrefix(r.URL.Path, "/"))
	})
	var list []plan.Package
	for i := range 9 {
		path := fmt.Sprintf("pool/%d.deb", i)
		sum := sha256.Sum256([]byte(path))
		list = append(list, plan.Package{Name: fmt.Sprint(i), Path: path, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(path))})
	}
	cache := &Cache{Dir: t.TempDir(), Mirrors: []Mirror{{URL: m.URL}}}
	files, err := cache.Packages(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		if got, err := os.ReadFile(f); err != nil || string(got) != list[i].Path {
			t.Errorf("file %d is %q, error %v", i, got, err)
		}
	}
	list[3].SHA256 = strings.Repeat("0", 64)
	if _, err := cache.Packages(t.Context(), list); err == nil || !strings.Contains(err.Error(), "wrong digest") {
		t.Errorf("one wrong package: got %v", err)
	}
}
