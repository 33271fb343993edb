package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/bundle"
)

// A Phase is how far an upgrade is, as a person follows it.
type Phase string

// The phases, in the order of an upgrade that goes well. Waiting may come between any two.
const (
	// Sending: the bundle is on its way. A connection that is lost begins it again, from the chunk that the device asks for.
	Sending Phase = "sending"
	// Waiting: the device cannot be reached, or is not ready to answer; it is asked again.
	Waiting Phase = "waiting"
	// Written: the other slot has the new version.
	Written Phase = "written"
	// Draining: the pods leave the node.
	Draining Phase = "draining"
	// Restarting: into the new version, or back to the old one.
	Restarting Phase = "restarting"
	// Trial: the new version runs and is to become healthy.
	Trial Phase = "trial"
	// Committed: the new version is kept.
	Committed Phase = "committed"
	// RolledBack: the old version runs again.
	RolledBack Phase = "rolled back"
)

// An Event says what an upgrade is doing. The same one does not come twice in a row.
type Event struct {
	Phase  Phase
	Detail string
	// Sent of Total bytes are on their way, of this connection. Only Sending has them.
	Sent, Total int64
}

// DefaultTimeout is for how long nothing may move on before an upgrade is given up: a node may take ten minutes to be drained,
// and a new version is tried three times.
const DefaultTimeout = 30 * time.Minute

// UpgradeOptions are how to upgrade.
type UpgradeOptions struct {
	// Force overrides what the device lets an operator decide.
	Force bool
	// NoTry leaves the new version written and does not restart.
	NoTry bool
	// Timeout is DefaultTimeout if it is 0.
	Timeout time.Duration
	// Report is told about each event, by one goroutine at a time.
	Report func(Event)
}

// An Outcome is how an upgrade ended.
type Outcome struct {
	// Version runs now; From ran before.
	Version string `json:"version"`
	From    string `json:"from"`
	// State is that of the device's update: "written" or "committed".
	State string `json:"state"`
	// Unchanged: the device ran this bundle already, and nothing was done.
	Unchanged bool `json:"unchanged,omitempty"`
	// Sent is how many bytes were sent in all.
	Sent int64 `json:"bytesSent"`
}

// A RolledBackError says that a device has given a new version up and runs the old one.
type RolledBackError struct {
	Address          string
	Version, Running string
	Reason           string
}

func (e *RolledBackError) Error() string {
	return fmt.Sprintf("device %s has rolled version %s back and runs version %s again: %s; "+
		"`skerry node logs init --previous-boot --node %s` may show more; the device tries this version again only with --force",
		e.Address, e.Version, e.Running, e.Reason, e.Address)
}

// An upgrade is one that is under way.
type upgrade struct {
	follower
	options  UpgradeOptions
	content  io.ReaderAt
	size     int64
	header   []byte
	manifest *bundle.Manifest
	// before is what the device remembered of this bundle when it began: an end that it came to before is not ours.
	before *v1.Update
	// furthest is the last byte that was ever sent.
	furthest  int64
	conflicts int
	outcome   Outcome
}

// mostConflicts is how often a bundle is sent anew at once when a device asks for another chunk than it got.
const mostConflicts = 3

// Upgrade sends a bundle and follows what the device makes of it, until the new version is kept or given up. It goes on after lost
// connections, here and there: from the chunk that the device asks for.
func (c *Client) Upgrade(ctx context.Context, content io.ReaderAt, size int64, o UpgradeOptions) (Outcome, error) {
	r, err := bundle.OpenUnverified(io.NewSectionReader(content, 0, size)) // the device verifies
	if err != nil {
		return Outcome{}, fmt.Errorf("%w; nothing was sent", err)
	}
	if want := r.Manifest().Size(); size != want {
		return Outcome{}, fmt.Errorf("cannot send the bundle: it has %d bytes, its header says %d; nothing was sent; "+
			"copy it again from where it was made", size, want)
	}
	sum := sha256.Sum256(r.Header())
	u := &upgrade{
		follower: c.follow(hex.EncodeToString(sum[:]), r.Manifest().Version, o),
		options:  o, content: content, size: size, header: r.Header(), manifest: r.Manifest(),
	}
	if err := u.run(ctx); err != nil {
		return Outcome{}, err
	}
	return u.outcome, nil
}

// run sends until the device has all, and then follows.
func (u *upgrade) run(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		state, err := u.reach(ctx)
		if err != nil {
			return err
		}
		if attempt == 0 {
			u.before = state.Update
			u.outcome = Outcome{From: state.Version}
		}
		chunk, send := u.next(state)
		if !send {
			return u.finish(ctx, state)
		}
		answer, err := u.send(ctx, chunk)
		if err == nil {
			u.moved()
			if u.options.NoTry {
				u.say(Event{Phase: Written, Detail: "slot " + answer.Target})
				u.outcome.State, u.outcome.Version = answer.State, state.Version
				return nil
			}
			state.Update = &answer
			return u.finish(ctx, state)
		}
		if ctx.Err() != nil {
			return err
		}
		again, wait := u.again(err, chunk)
		if !again {
			return err
		}
		if wait {
			if err := u.pause(ctx, attempt, err); err != nil {
				return err
			}
		}
	}
}

// next decides by what the device remembers: whether to send, and from which chunk on.
func (u *upgrade) next(s v1.State) (chunk int, send bool) {
	up := s.Update
	if up == nil || up.Bundle != u.bundle {
		return 0, true
	}
	ended := up.State == updateCommitted || up.State == updateRolledBack
	old := u.before != nil && u.before.Bundle == up.Bundle && u.before.State == up.State && u.before.Changed.Equal(up.Changed)
	switch {
	case up.State == updateCommitted && s.Version == up.Version && old && !u.options.Force:
		u.outcome.Unchanged = u.outcome.Sent == 0
		return 0, false
	case ended && !old, up.State == updateTrying:
		return 0, false
	case up.State == updateWritten && !u.options.NoTry && (up.Activity != "" || s.Phase == v1.Stopping):
		return 0, false // it was told to try, and is about to
	case up.State == updateWriting:
		return min(max(up.Chunk, 0), len(u.manifest.Chunks)), true
	case up.State == updateWritten:
		// The header alone makes the device go on, or say that it has all.
		return len(u.manifest.Chunks), true
	}
	return 0, true
}

// finish follows the device to the end of the upgrade.
func (u *upgrade) finish(ctx context.Context, s v1.State) error {
	end, err := u.watch(ctx, s)
	if err != nil {
		return err
	}
	u.outcome.State, u.outcome.Version = end.Update.State, end.Version
	return nil
}

// again tells what to do about an error of sending: whether to go on, and whether to wait first.
func (u *upgrade) again(err error, sent int) (again, wait bool) {
	refusal, refused := errors.AsType[*RefusedError](err)
	if !refused {
		return !isFinal(err), true
	}
	up := refusal.Said.Update
	switch {
	case refusal.Status == http.StatusServiceUnavailable:
		return true, true
	case refusal.Status == http.StatusConflict && up != nil && up.Bundle == u.bundle:
		// It wants another part than it had said; or it has not noticed yet that the last connection is gone. If it goes on like that
		// there is no hurry.
		u.conflicts++
		return true, up.Chunk == sent || u.conflicts > mostConflicts
	}
	return false, false
}

// send sends the header and the chunks from the given one on.
func (u *upgrade) send(ctx context.Context, chunk int) (v1.Update, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	offset := u.manifest.Offset(chunk)
	detail := "all of it"
	switch {
	case chunk == len(u.manifest.Chunks):
		detail = "its header; the device has the rest"
	case chunk > 0:
		detail = fmt.Sprintf("from chunk %d of %d on", chunk, len(u.manifest.Chunks))
	}
	total := int64(len(u.header)) + u.size - offset
	u.say(Event{Phase: Sending, Detail: detail, Total: total})
	body := &body{Reader: io.MultiReader(bytes.NewReader(u.header), io.NewSectionReader(u.content, offset, u.size-offset))}
	body.sent = func(n int64) {
		u.outcome.Sent += n
		body.done += n
		if at := offset + body.done - int64(len(u.header)); at > u.furthest {
			u.furthest = at
			u.moved()
		}
		u.say(Event{Phase: Sending, Detail: detail, Sent: body.done, Total: total})
		if body.done == total {
			// The device reads back what it has written, and says nothing meanwhile.
			body.last = time.AfterFunc(u.timeout, func() { cancel(fmt.Errorf("it had all of the bundle and gave no answer in %v", u.timeout)) })
		}
	}
	defer body.stop()
	r := u.client.post("upgrade", "/v1/upgrade", url.Values{
		v1.ParamForce: {strconv.FormatBool(u.options.Force)},
		v1.ParamTry:   {strconv.FormatBool(!u.options.NoTry)},
	})
	r.header = http.Header{v1.ChunkHeader: {strconv.Itoa(chunk)}, "Content-Type": {"application/octet-stream"}}
	r.body, r.length = body, total
	return ask[v1.Update](ctx, u.client, sendTime, r)
}

// sendTime bounds one connection of an upgrade. What bounds it in practice is that the connection must move on.
const sendTime = 48 * time.Hour

// A body counts what is sent. It may be read for a moment longer than its request lasts; what is read then is not counted.
type body struct {
	io.Reader
	sent func(n int64)
	done int64

	mu      sync.Mutex
	stopped bool
	last    *time.Timer
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && !b.stopped {
		b.sent(int64(n))
	}
	return n, err
}

func (b *body) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	if b.last != nil {
		b.last.Stop()
	}
}
