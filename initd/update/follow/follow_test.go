package follow_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/update"
	. "github.com/skerryos/skerry/initd/update/follow"
	. "github.com/skerryos/skerry/initd/update/updatetest"
)

// An origin is a server with a bundle, and with bad habits. It notes what it is asked for.
type origin struct {
	*httptest.Server
	content []byte
	etag    string
	// cuts are after how many bytes of the body the next answers break off; 0 is not at all. statuses are what the next ones
	// are in place of a bundle; 0 is a bundle.
	cuts, statuses []int
	noRanges       bool
	// before is called before an answer, by its number from 1 on.
	before func(answer int)
	mu     sync.Mutex
	asked  []string
}

func newOrigin(t *testing.T, content []byte) *origin {
	o := &origin{content: content, etag: `"one"`}
	o.Server = httptest.NewServer(http.HandlerFunc(o.serve))
	t.Cleanup(o.Close)
	return o
}

func pop(list *[]int) int {
	if len(*list) == 0 {
		return 0
	}
	first := (*list)[0]
	*list = (*list)[1:]
	return first
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	line := r.Method + " " + r.URL.Path
	for _, key := range []string{"Range", "If-Range", "If-None-Match"} {
		if v := r.Header.Get(key); v != "" {
			line += " " + key + ": " + v
		}
	}
	o.asked = append(o.asked, line)
	if o.before != nil {
		o.before(len(o.asked))
	}
	switch r.URL.Path {
	case "/moved":
		http.Redirect(w, r, "/x86-64.skb", http.StatusFound)
		return
	case "/elsewhere":
		http.Redirect(w, r, "ftp://example.com/x86-64.skb", http.StatusFound)
		return
	}
	if status := pop(&o.statuses); status != 0 {
		w.WriteHeader(status)
		return
	}
	if o.noRanges {
		r.Header.Del("Range")
	}
	if o.etag != "" {
		w.Header().Set("ETag", o.etag)
	}
	out := http.ResponseWriter(w)
	if n := pop(&o.cuts); n != 0 {
		out = &cutter{w, n}
	}
	http.ServeContent(out, r, "", time.Unix(1764000000, 0), strings.NewReader(string(o.content)))
}

// A cutter ends the connection after so many bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// A scene is a device that follows an origin, with a clock that passes only while it sleeps.
type scene struct {
	t       *testing.T
	device  *Device
	origin  *origin
	config  Config
	now     time.Time
	told    []string
	written func() error
	tries   int
}

func newScene(t *testing.T, content []byte) *scene {
	t.Helper()
	d := NewDevice("1.0.0")
	if err := d.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if err := d.Updater().Commit(); err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, device: d, origin: newOrigin(t, content), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s.config = Config{
		URL: s.origin.URL + "/x86-64.skb", Interval: 24 * time.Hour, Updater: d.Updater(),
		Now: func() time.Time { return s.now },
		Sleep: func(ctx context.Context, d time.Duration) error {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			s.now = s.now.Add(d)
			return nil
		},
		Random: func() float64 { return 0.5 },
		Written: func(context.Context) error {
			s.tries++
			if s.written != nil {
				return s.written()
			}
			return nil
		},
	}
	return s
}

// onRequest is called in the device before each request, by its number from 1 on.
func (s *scene) onRequest(do func(n int)) {
	s.config.Client = &http.Client{Transport: &requests{do: do}}
}

type requests struct {
	do func(n int)
	n  int
}

func (r *requests) RoundTrip(request *http.Request) (*http.Response, error) {
	r.n++
	r.do(r.n)
	return http.DefaultTransport.RoundTrip(request)
}

var errEnough = errors.New("enough")

// turns lets a follower ask so many times, or until it hands a bundle over.
func (s *scene) turns(n int) {
	s.t.Helper()
	ctx, cancel := context.WithCancelCause(s.t.Context())
	defer cancel(nil)
	asked := 0
	s.config.Report = func(status Status) {
		line := status.Activity
		if line == "" {
			line = "next: " + status.Next.UTC().Format("2 15:04")
			if asked++; asked > n {
				cancel(errEnough)
			}
		}
		if status.Problem != "" {
			line += " | " + status.Problem
		}
		line = strings.ReplaceAll(line, s.origin.URL, "http://HOST")
		line = strings.ReplaceAll(line, s.origin.Listener.Addr().String(), "HOST")
		if len(s.told) == 0 || s.told[len(s.told)-1] != line {
			s.told = append(s.told, line)
		}
	}
	err := New(s.config).Run(ctx)
	if err != nil && !errors.Is(err, errEnough) {
		s.t.Errorf("it ends with %v", err)
	}
}

// compare holds what was asked and told, and what became of the device, against what is wanted, line by line. Lines of
// progress are left out.
func (s *scene) compare(want string) {
	s.t.Helper()
	var lines []string
	s.origin.mu.Lock()
	defer s.origin.mu.Unlock()
	for _, l := range s.origin.asked {
		lines = append(lines, "< "+l)
	}
	for _, l := range s.told {
		if !strings.HasPrefix(l, "fetching") || !strings.HasSuffix(l, "chunks") {
			lines = append(lines, "> "+l)
		}
	}
	rec, err := s.device.Updater().Status()
	if err != nil {
		s.t.Fatal(err)
	}
	lines = append(lines, rec.Upgrade.String()+", handed over "+strconv.Itoa(s.tries)+" times")
	if got := strings.Join(lines, "\n"); got != strings.TrimSpace(want) {
		s.t.Errorf("got\n%s\nwant\n%s", got, strings.TrimSpace(want))
	}
	if err := s.device.Check(); err != nil {
		s.t.Error(err)
	}
	if rec.Upgrade.State != update.Written {
		return
	}
	if got := string(s.device.Roots[slot.B].Now[:RootSize]); got != string(RootFS(rec.Upgrade.Version)) {
		s.t.Error("the root partition is not what was published")
	}
}

// offset is where a chunk begins in a bundle.
func offset(t *testing.T, skb []byte, chunk int) int {
	t.Helper()
	b, err := bundle.OpenUnverified(strings.NewReader(string(skb)))
	if err != nil {
		t.Fatal(err)
	}
	return int(b.Manifest().Offset(chunk))
}

func TestFollow(t *testing.T) {
	same, newer, newest := Bundle(t, "1.0.0", Owner, nil), Bundle(t, "2.0.0", Owner, nil), Bundle(t, "3.0.0", Owner, nil)
	other := Bundle(t, "2.0.0", Owner, func(m *bundle.Manifest) { m.Board = "pi4" })
	foreign := Bundle(t, "2.0.0", Next, nil)
	at3, at9 := offset(t, newer, 3), offset(t, newer, 9)
	damaged := append([]byte(nil), newer...)
	damaged[at3+5] ^= 1
	range3, range9 := fmt.Sprintf("Range: bytes=%d-", at3), fmt.Sprintf("Range: bytes=%d-", at9)
	for _, test := range []struct {
		name    string
		content []byte
		prepare func(*scene)
		turns   int
		want    string
	}{
		{"a new version", newer, nil, 1, `
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"the version that runs", same, nil, 3, `
< GET /x86-64.skb
< GET /x86-64.skb If-None-Match: "one"
< GET /x86-64.skb If-None-Match: "one"
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00
> asking for an upgrade
> next: 4 00:00
> asking for an upgrade
> next: 5 00:00
no upgrade is under way, handed over 0 times`},
		{"a version that has failed", newer, func(s *scene) {
			s.device.Store.Now = []byte(`{"upgrade": {"state": "idle"}, "failed": [{"version": "2.0.0", "reason": "containerd did not start"}]}`)
		}, 2, `
< GET /x86-64.skb
< GET /x86-64.skb If-None-Match: "one"
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00 | the bundle at http://HOST/x86-64.skb is not fetched: version 2.0.0 has failed here before (containerd did not start); put another version there, or force this one by hand
> asking for an upgrade | the bundle at http://HOST/x86-64.skb is not fetched: version 2.0.0 has failed here before (containerd did not start); put another version there, or force this one by hand
> next: 4 00:00 | the bundle at http://HOST/x86-64.skb is not fetched: version 2.0.0 has failed here before (containerd did not start); put another version there, or force this one by hand
no upgrade is under way, handed over 0 times`},
		{"no file, then one", newer, func(s *scene) { s.origin.statuses = []int{404} }, 2, `
< GET /x86-64.skb
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00 | there is no upgrade from http://HOST/x86-64.skb: the server answers HTTP 404 (Not Found); it is asked for again by itself
> asking for an upgrade | there is no upgrade from http://HOST/x86-64.skb: the server answers HTTP 404 (Not Found); it is asked for again by itself
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"a server in trouble", newer, func(s *scene) { s.origin.statuses = []int{503, 500} }, 1, `
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> waiting to go on: the server answers HTTP 503 (Service Unavailable)
> asking for an upgrade
> waiting to go on: the server answers HTTP 500 (Internal Server Error)
> asking for an upgrade
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"cut in the header, then twice in the middle", newer, func(s *scene) { s.origin.cuts = []int{100, at3 + 10, at9 - at3 + 1} }, 1, `
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
< GET /x86-64.skb ` + range9 + ` If-Range: "one"
> next: 1 12:30
> asking for an upgrade
> waiting to go on: cannot read bundle: manifest: unexpected EOF
> asking for an upgrade
> fetching version 2.0.0: 3 of 18 chunks; connecting again: cannot read chunk 3 of 18 of bundle, at byte AT3: unexpected EOF
> fetching version 2.0.0: 9 of 18 chunks; connecting again: cannot read chunk 9 of 18 of bundle, at byte AT9: unexpected EOF
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"cut, and no ranges", newer, func(s *scene) { s.origin.noRanges, s.origin.cuts = true, []int{at3} }, 1, `
< GET /x86-64.skb
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
> next: 1 12:30
> asking for an upgrade
> fetching version 2.0.0: 3 of 18 chunks; connecting again: cannot read chunk 3 of 18 of bundle, at byte AT3: unexpected EOF
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"cut, and a weak ETag", newer, func(s *scene) { s.origin.etag, s.origin.cuts = `W/"one"`, []int{at3} }, 1, `
< GET /x86-64.skb
< GET /x86-64.skb ` + range3 + ` If-Range: Mon, 24 Nov 2025 16:00:00 GMT
> next: 1 12:30
> asking for an upgrade
> fetching version 2.0.0: 3 of 18 chunks; connecting again: cannot read chunk 3 of 18 of bundle, at byte AT3: unexpected EOF
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"changes in between", newer, func(s *scene) {
			s.origin.cuts = []int{at3}
			s.origin.before = func(n int) {
				if n == 2 {
					s.origin.content, s.origin.etag = newest, `"two"`
				}
			}
		}, 1, `
< GET /x86-64.skb
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> fetching version 2.0.0: 3 of 18 chunks; connecting again: cannot read chunk 3 of 18 of bundle, at byte AT3: unexpected EOF
> asking for an upgrade
> trying version 3.0.0
upgrade to version 3.0.0 in slot b: written, handed over 1 times`},
		{"the server goes away, and comes back the next day", newer, func(s *scene) {
			s.origin.cuts, s.origin.statuses = []int{at3}, append([]int{0}, repeat(503, 10)...)
		}, 2, `
< GET /x86-64.skb
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
> next: 1 12:30
> asking for an upgrade
> fetching version 2.0.0: 3 of 18 chunks; connecting again: cannot read chunk 3 of 18 of bundle, at byte AT3: unexpected EOF
> fetching version 2.0.0: 3 of 18 chunks; connecting again: the server answers HTTP 503 (Service Unavailable)
> waiting to go on: the server answers HTTP 503 (Service Unavailable)
> asking for an upgrade
> waiting to go on: the server answers HTTP 503 (Service Unavailable)
> asking for an upgrade
> waiting to go on: the server answers HTTP 503 (Service Unavailable)
> asking for an upgrade
> waiting to go on: the server answers HTTP 503 (Service Unavailable)
> asking for an upgrade
> waiting to go on: the server answers HTTP 503 (Service Unavailable)
> asking for an upgrade
> waiting to go on: the server answers HTTP 503 (Service Unavailable)
> asking for an upgrade
> next: 3 00:00 | there is no upgrade from http://HOST/x86-64.skb: the server answers HTTP 503 (Service Unavailable); it is asked for again by itself
> asking for an upgrade | there is no upgrade from http://HOST/x86-64.skb: the server answers HTTP 503 (Service Unavailable); it is asked for again by itself
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"another board", other, nil, 1, `
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00 | there is no upgrade from http://HOST/x86-64.skb: bundle refused, nothing was written: it is for board pi4, and this is x86-64; it is asked for again by itself
no upgrade is under way, handed over 0 times`},
		{"another's key", foreign, nil, 1, `
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00 | there is no upgrade from http://HOST/x86-64.skb: bundle refused, nothing was written: it is signed with key ` + bundle.KeyID(Next.Public) + `, which is not trusted; trusted are: ` + bundle.KeyID(Owner.Public) + `; it is asked for again by itself
no upgrade is under way, handed over 0 times`},
		{"no bundle", []byte("<html>Welcome</html>"), nil, 1, `
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00 | there is no upgrade from http://HOST/x86-64.skb: cannot read bundle: it is not a bundle (.skb); it is asked for again by itself
no upgrade is under way, handed over 0 times`},
		{"damaged on its way, and whole the next day", damaged, func(s *scene) {
			s.origin.before = func(n int) {
				if n == 2 {
					s.origin.content = newer
				}
			}
		}, 2, `
< GET /x86-64.skb
< GET /x86-64.skb
< GET /x86-64.skb ` + range3 + ` If-Range: "one"
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00 | there is no upgrade from http://HOST/x86-64.skb: chunk 3 of bundle, at byte AT3, refused: its sum is not that of the signed manifest; it was damaged or tampered with; nothing of it was written; fetch the bundle again; it is asked for again by itself
> asking for an upgrade | there is no upgrade from http://HOST/x86-64.skb: chunk 3 of bundle, at byte AT3, refused: its sum is not that of the signed manifest; it was damaged or tampered with; nothing of it was written; fetch the bundle again; it is asked for again by itself
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"somebody else is at it, and has ended the next day", newer, func(s *scene) {
			s.onRequest(func(n int) { s.device.Locked = n == 1 })
		}, 2, `
< GET /x86-64.skb
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00
> asking for an upgrade
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"a redirect", newer, func(s *scene) { s.config.URL = s.origin.URL + "/moved" }, 1, `
< GET /moved
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"a redirect to another protocol", newer, func(s *scene) { s.config.URL = s.origin.URL + "/elsewhere?token=secret" }, 1, `
< GET /elsewhere
> next: 1 12:30
> asking for an upgrade
> next: 3 00:00 | there is no upgrade from http://HOST/elsewhere?…: a redirect is not followed: it leads to ftp://example.com/x86-64.skb, which is neither http nor https; it is asked for again by itself
no upgrade is under way, handed over 0 times`},
		{"it cannot be tried", newer, func(s *scene) {
			s.written = func() error {
				if s.tries == 1 {
					return errors.New("the boot partition is full")
				}
				return nil
			}
		}, 2, `
< GET /x86-64.skb
< GET /x86-64.skb
> next: 1 12:30
> asking for an upgrade
> trying version 2.0.0
> next: 3 00:00 | version 2.0.0 from http://HOST/x86-64.skb is written and cannot be tried: the boot partition is full; try it by hand, or wait: it is tried again by itself
> asking for an upgrade | version 2.0.0 from http://HOST/x86-64.skb is written and cannot be tried: the boot partition is full; try it by hand, or wait: it is tried again by itself
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 2 times`},
		{"a window that closes while it is fetched", newer, func(s *scene) {
			s.config.Window = &Window{Start: 2 * time.Hour, End: 4 * time.Hour, Zone: time.UTC}
			s.onRequest(func(int) { s.now = time.Date(2026, 3, 2, 4, 0, 0, 0, time.UTC) })
		}, 1, `
< GET /x86-64.skb
> next: 2 03:00
> asking for an upgrade
> version 2.0.0 is written and waits for the time of day when it may be tried
> trying version 2.0.0
upgrade to version 2.0.0 in slot b: written, handed over 1 times`},
		{"somebody rolls back while it waits for the window", newer, func(s *scene) {
			s.config.Window = &Window{Start: 2 * time.Hour, End: 4 * time.Hour, Zone: time.UTC}
			s.onRequest(func(int) { s.now = time.Date(2026, 3, 2, 4, 0, 0, 0, time.UTC) })
			wait := s.config.Sleep
			s.config.Sleep = func(ctx context.Context, d time.Duration) error {
				if rec, err := s.device.Updater().Status(); err == nil && rec.Upgrade.State == update.Written {
					s.device.Store.Now = []byte(`{"upgrade": {"state": "idle"}, "floor": 0, "keys": {}}`)
				}
				return wait(ctx, d)
			}
		}, 1, `
< GET /x86-64.skb
> next: 2 03:00
> asking for an upgrade
> version 2.0.0 is written and waits for the time of day when it may be tried
> next: 3 03:00
no upgrade is under way, handed over 0 times`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t, test.content)
			if test.prepare != nil {
				test.prepare(s)
			}
			s.turns(test.turns)
			s.compare(strings.NewReplacer("AT3", strconv.Itoa(at3), "AT9", strconv.Itoa(at9)).Replace(test.want))
		})
	}
}

func repeat(n, times int) []int {
	var list []int
	for range times {
		list = append(list, n)
	}
	return list
}

// A transfer takes as long as its rate says, whatever the server can do; at most one piece comes at once.
func TestRate(t *testing.T) {
	newer := Bundle(t, "2.0.0", Owner, nil)
	s := newScene(t, newer)
	s.config.Rate = 512
	asked := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	s.turns(1)
	if s.tries != 1 {
		t.Fatal(s.told)
	}
	if took, want := s.now.Sub(asked), time.Duration(len(newer))*time.Second/512; took < want-time.Second || took > want+time.Second {
		t.Errorf("%d bytes took %v, want about %v", len(newer), took, want)
	}
}

// A clock that is set while the follower waits for its window makes it choose again: all devices that had waited for the time
// server would ask at once.
func TestClockJumpsIntoTheWindow(t *testing.T) {
	s := newScene(t, Bundle(t, "2.0.0", Owner, nil))
	s.config.Window = &Window{Start: 2 * time.Hour, End: 4 * time.Hour, Zone: time.UTC}
	wait, jumped := s.config.Sleep, false
	s.config.Sleep = func(ctx context.Context, d time.Duration) error {
		if !jumped {
			jumped = true
			s.now = time.Date(2027, 1, 1, 2, 0, 1, 0, time.UTC)
			return nil
		}
		return wait(ctx, d)
	}
	s.turns(2)
	if want := time.Date(2027, 1, 1, 2, 30, 1, 0, time.UTC); s.tries != 1 || !s.now.Equal(want) {
		t.Errorf("it asked at %v: %q", s.now, s.told)
	}
}

// Whoever asks does not wait for the interval.
func TestAsked(t *testing.T) {
	s := newScene(t, Bundle(t, "2.0.0", Owner, nil))
	asked := make(chan struct{}, 1)
	asked <- struct{}{}
	s.config.Asked = asked
	wait := s.config.Sleep
	s.config.Sleep = func(ctx context.Context, _ time.Duration) error {
		<-ctx.Done() // it is woken
		return wait(ctx, 0)
	}
	began := s.now
	s.turns(2)
	if s.tries != 1 || !s.now.Equal(began) {
		t.Errorf("handed over %d times, at %v: %q", s.tries, s.now, s.told)
	}
}
