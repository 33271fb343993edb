package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// remedy is the last line of every message about a mirror.
const remedy = "name another mirror with --mirror URL or in SKERRY_MIRROR"

// attempts is how often one mirror is asked for one file before it counts as down: a connection that breaks in the
// middle is common, and each attempt goes on where the last one ended.
const attempts = 3

// errAbsent is what a mirror's 404 or 410 becomes: the mirror is up, but has dropped the version.
var errAbsent = errors.New("the mirror does not have it")

// download brings f to final. What arrived is in final.part, so that a later call can go on from there.
func (c *Cache) download(ctx context.Context, f File, final string) error {
	if len(c.Mirrors) == 0 {
		return fmt.Errorf("cannot fetch %s: no mirror is known; %s", f.Name, remedy)
	}
	var failures []string
	for _, m := range c.Mirrors {
		if m.OnlyMissing && len(failures) > 0 && !strings.HasSuffix(failures[len(failures)-1], errAbsent.Error()) {
			// The archive of old versions stands in for mirrors that dropped one, not for mirrors that are down: a person who
			// names a mirror wants to know that it is down.
			continue
		}
		url := m.URL + "/" + f.Path
		err := c.fromMirror(ctx, f, url, final)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("cannot fetch %s: %w; what arrived is kept, the next run goes on from there", f.Name, context.Cause(ctx))
		}
		failures = append(failures, fmt.Sprintf("%s (from %s): %v", url, m.From, err))
	}
	return fmt.Errorf("cannot fetch %s:\n\t%s\nnothing was stored under its final name; %s", f.Name, strings.Join(failures, "\n\t"), remedy)
}

// fromMirror asks one mirror until it has delivered, has said that it lacks the file, or has failed too often.
func (c *Cache) fromMirror(ctx context.Context, f File, url, final string) error {
	part := final + ".part"
	var last error
	for range attempts {
		resumed, err := c.transfer(ctx, f, url, part)
		if errors.Is(err, errAbsent) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			last = err
			var refused *net.OpError
			if errors.As(err, &refused) && refused.Op == "dial" {
				return err // it will refuse the next attempt too
			}
			continue
		}
		sum, err := digest(part)
		if err != nil {
			return err
		}
		if sum == f.SHA256 {
			return commit(part, final)
		}
		if err := os.Remove(part); err != nil {
			return fmt.Errorf("cannot remove a download with a wrong digest: %w", err)
		}
		last = fmt.Errorf("wrong digest: expected sha256 %s, got %s; the download was deleted", f.SHA256, sum)
		if !resumed {
			return last // the mirror's own copy is wrong
		}
		// The earlier part may have been what was wrong: once more from the start.
	}
	return last
}

// transfer appends what is missing of f to part. It says whether part held something before.
func (c *Cache) transfer(ctx context.Context, f File, url, part string) (resumed bool, err error) {
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, fmt.Errorf("cannot store the download: %w", err)
	}
	defer func() {
		if e := out.Close(); err == nil && e != nil {
			err = fmt.Errorf("cannot store the download: %w", e)
		}
	}()
	have, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return false, fmt.Errorf("cannot store the download: %w", err)
	}
	if have > f.Size {
		have = 0
	}
	if have == f.Size {
		return true, nil
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := c.Patience
	if patience == 0 {
		patience = 30 * time.Second
	}
	stalled := time.AfterFunc(patience, func() { cancel(fmt.Errorf("the mirror sent nothing for %v", patience)) })
	defer stalled.Stop()

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, fmt.Errorf("cannot ask for it: %w", err)
	}
	if have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	response, err := c.client().Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return have > 0, cause
		}
		return have > 0, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusPartialContent:
		// RFC 9110 section 14.4; the check keeps a proxy that answers another range from making a bad file.
		if want := fmt.Sprintf("bytes %d-%d/%d", have, f.Size-1, f.Size); response.Header.Get("Content-Range") != want {
			return true, errors.Join(fmt.Errorf("asked for %s, the mirror sent %q", want, response.Header.Get("Content-Range")), out.Truncate(0))
		}
	case http.StatusOK:
		have = 0 // the mirror knows no ranges and starts over
	case http.StatusNotFound, http.StatusGone:
		return have > 0, errAbsent
	default:
		return have > 0, fmt.Errorf("the mirror answered %s", response.Status)
	}
	resumed = have > 0
	if err := out.Truncate(have); err != nil {
		return resumed, fmt.Errorf("cannot store the download: %w", err)
	}
	if _, err := out.Seek(have, io.SeekStart); err != nil {
		return resumed, fmt.Errorf("cannot store the download: %w", err)
	}
	counted := &meter{r: response.Body, done: have, step: func(done int64) {
		stalled.Reset(patience)
		if c.Progress != nil {
			c.Progress(f.Name, min(done, f.Size), f.Size)
		}
	}}
	// One byte more than expected is enough to know that the file is not the one.
	n, err := io.Copy(out, io.LimitReader(counted, f.Size-have+1))
	have += n
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	switch {
	case err != nil:
		return resumed, fmt.Errorf("the transfer broke after %d of %d bytes: %w", have, f.Size, err)
	case have < f.Size:
		return resumed, fmt.Errorf("the transfer ended after %d of %d bytes", have, f.Size)
	case have > f.Size:
		return resumed, errors.Join(fmt.Errorf("the mirror's file is larger than the expected %d bytes", f.Size), out.Truncate(0))
	}
	if err := out.Sync(); err != nil {
		return resumed, fmt.Errorf("cannot store the download: %w", err)
	}
	return resumed, nil
}

// commit gives a verified download its final name.
func commit(part, final string) error {
	if err := os.Rename(part, final); err != nil {
		return fmt.Errorf("cannot put the download into the cache: %w", err)
	}
	return nil
}

// small reads a file whose digest is not known beforehand from the first mirror that has it; limit is in bytes. What it
// reads is the current state of an archive, for which the archive of old versions cannot stand in.
func (c *Cache) small(ctx context.Context, path string, limit int64) ([]byte, Mirror, error) {
	var failures []string
	for _, m := range c.Mirrors {
		if m.OnlyMissing {
			continue
		}
		data, err := c.get(ctx, m.URL+"/"+path, limit)
		if err == nil {
			return data, m, nil
		}
		failures = append(failures, fmt.Sprintf("%s/%s (from %s): %v", m.URL, path, m.From, err))
	}
	return nil, Mirror{}, fmt.Errorf("cannot fetch %s:\n\t%s\n%s", path, strings.Join(failures, "\n\t"), remedy)
}

func (c *Cache) get(ctx context.Context, url string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.client().Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the mirror answered %s", response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("the file is larger than %d bytes", limit)
	}
	return data, nil
}

func (c *Cache) client() *http.Client {
	if c.Client != nil {
		return c.Client
	}
	return defaultClient
}

// defaultClient limits how long a mirror may take to answer at all; how long it may stall later is [Cache.Patience].
var defaultClient = &http.Client{Transport: &http.Transport{
	Proxy:                 http.ProxyFromEnvironment,
	DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
	TLSHandshakeTimeout:   15 * time.Second,
	ResponseHeaderTimeout: 30 * time.Second,
	MaxIdleConnsPerHost:   4,
	// Packages are compressed already, and a transparently decompressed answer has no usable length.
	DisableCompression: true,
}}

// A meter tells how far a reader has come.
type meter struct {
	r    io.Reader
	done int64
	step func(done int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.done += int64(n)
	if n > 0 {
		m.step(m.done)
	}
	return n, err
}
