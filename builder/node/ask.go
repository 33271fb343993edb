package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// requestTime bounds a request that the device answers from memory, snapshotTime one that makes it copy its datastore.
const (
	requestTime  = time.Minute
	snapshotTime = 10 * time.Minute
)

// mostAnswer is more than any answer that is read as a whole has.
const mostAnswer = 64 << 20

// A request is what a device is asked.
type request struct {
	// doing says it in words, as in "cannot DOING".
	doing        string
	method, path string
	query        url.Values
	header       http.Header
	body         io.Reader
	// length is the body's.
	length int64
}

// do sends a request. An answer with a status of 400 or more is a [RefusedError]; the body of any other one must be closed.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	// The connection goes to the client's address whatever the URL says, and the device does not look at the name.
	target := url.URL{Scheme: "https", Host: "device", Path: r.path, RawQuery: r.query.Encode()}
	q, err := http.NewRequestWithContext(ctx, r.method, target.String(), r.body)
	if err != nil {
		return nil, fmt.Errorf("cannot %s: %w", r.doing, err)
	}
	q.ContentLength = r.length
	for name, values := range r.header {
		q.Header[name] = values
	}
	answer, err := c.http.Do(q)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the method and the URL around it
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("cannot %s: %w", r.doing, context.Cause(ctx))
		}
		return nil, c.explain(r.doing, err)
	}
	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err != nil {
		return nil, c.explain(r.doing, err)
	}
	refusal := &RefusedError{Doing: r.doing, Status: answer.StatusCode}
	if err := json.Unmarshal(text, &refusal.Said); err != nil || refusal.Said.Message == "" {
		refusal.Said.Message = fmt.Sprintf("it answers %s: %q", answer.Status, text)
	}
	return nil, refusal
}

// read asks for a whole body.
func (c *Client) read(ctx context.Context, limit time.Duration, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it gave no answer in %v", limit))
	defer cancel()
	answer, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err != nil {
		return nil, c.explain(r.doing, err)
	}
	return text, nil
}

// ask asks for JSON.
func ask[T any](ctx context.Context, c *Client, limit time.Duration, r request) (T, error) {
	var answer T
	text, err := c.read(ctx, limit, r)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, fmt.Errorf("cannot %s: its answer is not what version 1 of the device API says: %w", r.doing, err)
	}
	return answer, nil
}

func (c *Client) get(what, path string) request {
	return request{doing: "ask device " + c.Address() + " for " + what, method: http.MethodGet, path: path}
}

func (c *Client) post(what, path string, query url.Values) request {
	return request{doing: what + " device " + c.Address(), method: http.MethodPost, path: path, query: query}
}

// Status asks how the machine is.
func (c *Client) Status(ctx context.Context) (v1.State, error) {
	return ask[v1.State](ctx, c, requestTime, c.get("its state", "/v1/status"))
}

// Timeline asks what the boot spent its time on.
func (c *Client) Timeline(ctx context.Context) (v1.Timeline, error) {
	return ask[v1.Timeline](ctx, c, requestTime, c.get("its timeline", "/v1/timeline"))
}

// Memory asks who uses the memory.
func (c *Client) Memory(ctx context.Context) (v1.Memory, error) {
	return ask[v1.Memory](ctx, c, requestTime, c.get("its memory", "/v1/memory"))
}

// Disk asks what went through the disks.
func (c *Client) Disk(ctx context.Context) (v1.Disk, error) {
	return ask[v1.Disk](ctx, c, requestTime, c.get("its disks", "/v1/disk"))
}

// LogOptions choose a part of a log.
type LogOptions struct {
	// Follow goes on with what is added, until the context is done or the device restarts.
	Follow bool
	// Previous is the older part, which was full; PreviousBoot is of the boot before, as far as that could keep it. Neither grows.
	Previous, PreviousBoot bool
}

// Log writes the log of a unit to w: "init", "kernel", "api", "containerd", "skerryd", or "crash", the last crash that was kept.
func (c *Client) Log(ctx context.Context, w io.Writer, unit string, o LogOptions) error {
	r := c.get("the log of "+unit, "/v1/logs/"+unit)
	r.query = url.Values{}
	if o.Follow {
		r.query.Set("follow", "true")
	}
	if o.Previous {
		r.query.Set("previous", "true")
	}
	if o.PreviousBoot {
		r.query.Set("boot", "previous")
	}
	if !o.Follow {
		limited, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		ctx = limited
	}
	answer, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(w, answer.Body); err != nil {
		return c.explain(r.doing, err)
	}
	return nil
}

// Kubeconfig returns the administrator's kubeconfig, which only an admin gets and only a server has.
func (c *Client) Kubeconfig(ctx context.Context) ([]byte, error) {
	return c.read(ctx, requestTime, c.get("its kubeconfig", "/v1/kubeconfig"))
}

// Token returns the token that agents join the server's cluster with, which only an admin gets and only a server has.
func (c *Client) Token(ctx context.Context) (string, error) {
	b, err := c.read(ctx, requestTime, c.get("its token", "/v1/token"))
	return strings.TrimSpace(string(b)), err
}

// Commit keeps the running slot now, without waiting until it is healthy.
func (c *Client) Commit(ctx context.Context) (v1.Update, error) {
	return ask[v1.Update](ctx, c, requestTime, c.post("commit", "/v1/commit", nil))
}

// act asks for something that takes effect by a restart or by switching off. It returns as soon as the device agrees.
func (c *Client) act(ctx context.Context, what, path string, query url.Values) (v1.Accepted, error) {
	return ask[v1.Accepted](ctx, c, requestTime, c.post(what, path, query))
}

// Try makes the device restart into the slot that was written.
func (c *Client) Try(ctx context.Context) (v1.Accepted, error) {
	return c.act(ctx, "try the new version on", "/v1/try", nil)
}

// Fetch makes the device ask the URL of its configuration for an upgrade.
func (c *Client) Fetch(ctx context.Context) (v1.Accepted, error) {
	return c.act(ctx, "fetch an upgrade", "/v1/fetch", nil)
}

// Rollback makes the device go back to the other slot. The reason is kept.
func (c *Client) Rollback(ctx context.Context, reason string) (v1.Accepted, error) {
	return c.act(ctx, "roll back", "/v1/rollback", url.Values{v1.ParamReason: {reason}})
}

// Reboot asks for an orderly restart, PowerOff to switch off.
func (c *Client) Reboot(ctx context.Context) (v1.Accepted, error) {
	return c.act(ctx, "restart", "/v1/reboot", nil)
}

// PowerOff asks to switch off.
func (c *Client) PowerOff(ctx context.Context) (v1.Accepted, error) {
	return c.act(ctx, "switch off", "/v1/poweroff", nil)
}

// Reset deletes what the scope says, [v1.ResetData] or [v1.ResetEverything], and restarts.
func (c *Client) Reset(ctx context.Context, scope string) (v1.Accepted, error) {
	return c.act(ctx, "reset", "/v1/reset", url.Values{v1.ParamScope: {scope}})
}

// Snapshots lists the copies of the datastore, newest first.
func (c *Client) Snapshots(ctx context.Context) (v1.Snapshots, error) {
	return ask[v1.Snapshots](ctx, c, requestTime, c.get("its snapshots", "/v1/snapshots"))
}

// CreateSnapshot copies the datastore.
func (c *Client) CreateSnapshot(ctx context.Context) (v1.Snapshot, error) {
	return ask[v1.Snapshot](ctx, c, snapshotTime, c.post("make a snapshot on", "/v1/snapshots", nil))
}

// RestoreSnapshot puts a copy in the place of the datastore, and restarts.
func (c *Client) RestoreSnapshot(ctx context.Context, name string) (v1.Accepted, error) {
	return c.act(ctx, "restore snapshot "+name+" on", "/v1/snapshots/"+name+"/restore", nil)
}
