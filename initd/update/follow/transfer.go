package follow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/update"
)

// A lostError is about a connection, or a server, that may be better later.
type lostError struct {
	err error
	// progress: something was written before.
	progress bool
}

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// Within an attempt the connection is made anew so often without another chunk, with a pause from the first on, twice as long
// each time. Others are kept from an upgrade meanwhile, so that this is short.
const (
	reconnects     = 4
	firstReconnect = 2 * time.Second
)

// attempt asks the URL, and writes the bundle there if it is new.
func (f *Follower) attempt(ctx context.Context) (err error) {
	first, err := f.ask(ctx)
	if err != nil {
		return err
	}
	defer first.Close()
	b, err := f.Updater.Open(first)
	if err != nil {
		return first.judge(err)
	}
	if err := f.known(b.Manifest()); err != nil {
		if _, failed := errors.AsType[*failedError](err); failed || errors.Is(err, errNothingNew) {
			f.etag = first.etag // it need not be sent again
		}
		return err
	}
	w, err := f.Updater.Begin(b, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	f.problem = ""
	version := b.Manifest().Version
	w.Progress = func(done, of int) { f.doing(fmt.Sprintf("fetching version %s: %d of %d chunks", version, done, of)) }
	return f.write(ctx, w, b, first)
}

// write writes what is left of the bundle, from the answer that its header came with or from the middle.
func (f *Follower) write(ctx context.Context, w *update.Writer, b *bundle.Reader, first *stream) error {
	from, s := w.Chunk(), first
	var err error
	if from > 0 {
		first.Close()
		s, err = f.rest(ctx, b, from, first)
	}
	for failed := 0; ; {
		if err == nil {
			before := w.Chunk()
			err = s.judge(w.Run(ctx))
			s.Close()
			if w.Chunk() > before {
				failed = 0
			}
		}
		lost, isLost := errors.AsType[*lostError](err)
		switch {
		case !isLost:
			return err
		case failed == reconnects:
			lost.progress = w.Chunk() > from
			return err
		}
		f.doing(fmt.Sprintf("fetching version %s: %d of %d chunks; connecting again: %v", b.Manifest().Version, w.Chunk(), len(b.Manifest().Chunks), err))
		if err := f.Sleep(ctx, f.jitter(firstReconnect<<failed)); err != nil {
			return err
		}
		failed++
		s, err = f.rest(ctx, b, w.Chunk(), first)
	}
}

// rest asks for the bundle from a chunk on, and lets b go on from there. What the URL has must be what first is of.
func (f *Follower) rest(ctx context.Context, b *bundle.Reader, chunk int, first *stream) (*stream, error) {
	m := b.Manifest()
	if chunk == len(m.Chunks) {
		return &stream{ReadCloser: http.NoBody}, b.Resume(chunk, http.NoBody)
	}
	at, size := m.Offset(chunk), m.Size()
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-", at)}}
	if validator := first.validator(); validator != "" {
		header.Set("If-Range", validator)
	}
	s, status, err := f.get(ctx, header)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*stream, error) { s.Close(); return nil, err }
	switch status {
	case http.StatusPartialContent:
		// RFC 9110, section 14.4.
		if s.contentRange != fmt.Sprintf("bytes %d-%d/%d", at, size-1, size) {
			return fail(errChanged)
		}
		return s, b.Resume(chunk, s)
	case http.StatusOK:
		// The server knows no ranges, or the file has changed: then the header is another one.
		header := make([]byte, len(b.Header()))
		if _, err := io.ReadFull(s, header); err != nil {
			return fail(s.judge(err))
		}
		if !bytes.Equal(header, b.Header()) {
			return fail(errChanged)
		}
		return s, b.Resume(0, s)
	case http.StatusRequestedRangeNotSatisfiable:
		return fail(errChanged)
	default:
		// It was there a moment ago.
		return fail(&lostError{err: statusError(status)})
	}
}

func statusError(status int) error {
	return fmt.Errorf("the server answers HTTP %d (%s)", status, http.StatusText(status))
}
