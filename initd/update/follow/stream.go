package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// idle is how long a connection may be silent before it counts as lost.
const idle = time.Minute

// errSilent says so.
var errSilent = fmt.Errorf("nothing has come for %v", idle)

// errUnchanged is about a URL that has what it had when its bundle was judged the last time.
var errUnchanged = fmt.Errorf("%w: the URL has what it had", errNothingNew)

// newClient makes a client that follows redirects from http and https to these two: the bundle is signed, whoever sends it.
func newClient() *http.Client {
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 30 * time.Second, ResponseHeaderTimeout: idle,
			ForceAttemptHTTP2: true, DisableCompression: true, IdleConnTimeout: idle,
		},
		CheckRedirect: checkRedirect,
	}
}

// errRedirect is about redirects that are not followed.
var errRedirect = errors.New("a redirect is not followed")

func checkRedirect(to *http.Request, via []*http.Request) error {
	if to.URL.Scheme != "http" && to.URL.Scheme != "https" {
		return fmt.Errorf("%w: it leads to %s, which is neither http nor https", errRedirect, shown(to.URL))
	}
	if len(via) >= 10 {
		return fmt.Errorf("%w: there were %d before it", errRedirect, len(via))
	}
	return nil
}

// shown is a URL for people: what follows the question mark may be as good as a password.
func shown(u *url.URL) string {
	copied := *u
	if copied.RawQuery != "" {
		copied.RawQuery = "…"
	}
	return copied.Redacted()
}

// A stream is the body of an answer. It is read at the rate that is allowed, and not for ever.
type stream struct {
	io.ReadCloser
	etag, modified, contentRange string

	pace   func(n int) error // nil: as fast as it goes
	idle   time.Duration
	cancel context.CancelCauseFunc
	ctx    context.Context
	// broken is what ended it too early.
	broken error
}

// largestRead is the largest piece that is read at once, and so the most that comes faster than the rate.
const largestRead = 64 << 10

// Read implements [io.Reader].
func (s *stream) Read(p []byte) (int, error) {
	if s.pace != nil {
		p = p[:min(len(p), largestRead)]
	}
	timer := time.AfterFunc(s.idle, func() { s.cancel(errSilent) })
	n, err := s.ReadCloser.Read(p)
	timer.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		s.broken = err
		return n, err
	}
	if n > 0 && s.pace != nil {
		if err := s.pace(n); err != nil {
			return n, err
		}
	}
	return n, err
}

// Close ends the connection: what nobody wants is not sent.
func (s *stream) Close() error {
	if s.cancel != nil {
		s.cancel(context.Canceled)
	}
	return s.ReadCloser.Close()
}

// validator names the file in an If-Range: RFC 9110, section 13.1.5, allows strong ones only. Empty if there is none; then
// the sums of the bundle's chunks tell, later.
func (s *stream) validator() string {
	if s.etag != "" && !strings.HasPrefix(s.etag, "W/") {
		return s.etag
	}
	return s.modified
}

// judge says of an error of whoever read the stream whether the stream is to blame.
func (s *stream) judge(err error) error {
	if err != nil && (s.broken != nil || errors.Is(err, io.ErrUnexpectedEOF)) {
		return &lostError{err: err}
	}
	return err
}

// get sends a request. The caller closes the stream.
func (f *Follower) get(ctx context.Context, header http.Header) (*stream, int, error) {
	own, cancel := context.WithCancelCause(ctx)
	request, err := http.NewRequestWithContext(own, http.MethodGet, f.URL, nil)
	if err != nil {
		cancel(err)
		return nil, 0, err
	}
	request.Header = header
	request.Header.Set("User-Agent", "skerry/"+f.Updater.Running.Version)
	response, err := f.Client.Do(request)
	if err != nil {
		cancel(err)
		if of, ok := errors.AsType[*url.Error](err); ok {
			err = of.Err // its text has a URL, with what may be a secret of whoever redirected to it
		}
		if errors.Is(err, errRedirect) {
			return nil, 0, err
		}
		return nil, 0, &lostError{err: err}
	}
	s := &stream{
		ReadCloser: response.Body, etag: response.Header.Get("ETag"), modified: response.Header.Get("Last-Modified"),
		contentRange: response.Header.Get("Content-Range"), idle: f.idle, ctx: own, cancel: cancel,
	}
	if f.Rate > 0 {
		limit := rate.NewLimiter(rate.Limit(f.Rate), largestRead)
		limit.AllowN(f.Now(), largestRead) // a reconnection is no reason to be faster
		s.pace = func(n int) error { return f.Sleep(ctx, f.delay(limit, n)) }
	}
	return s, response.StatusCode, nil
}

func (f *Follower) delay(limit *rate.Limiter, n int) time.Duration {
	now := f.Now()
	return limit.ReserveN(now, n).DelayFrom(now)
}

// ask asks for the whole bundle, unless it is the one that was judged the last time.
func (f *Follower) ask(ctx context.Context) (*stream, error) {
	header := http.Header{}
	if f.etag != "" {
		header.Set("If-None-Match", f.etag)
	}
	s, status, err := f.get(ctx, header)
	if err != nil {
		return nil, err
	}
	if status == http.StatusOK {
		return s, nil
	}
	s.Close()
	switch {
	case status == http.StatusNotModified && f.etag != "":
		return nil, errUnchanged
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return nil, &lostError{err: statusError(status)}
	}
	return nil, statusError(status)
}
