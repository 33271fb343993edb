package follow

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// quiet is a connection on which the next byte comes after a while, until its request is given up.
type quiet struct {
	ctx  context.Context
	wait []time.Duration
}

func (q *quiet) Read(p []byte) (int, error) {
	t := time.NewTimer(q.wait[0])
	defer t.Stop()
	q.wait = q.wait[1:]
	select {
	case <-t.C:
		return 1, nil
	case <-q.ctx.Done():
		return 0, q.ctx.Err()
	}
}

func (*quiet) Close() error { return nil }

func TestSilentConnectionIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		slow := 59 * time.Second
		s := &stream{ReadCloser: &quiet{ctx, []time.Duration{slow, slow, slow, 2 * time.Minute}}, idle: idle, ctx: ctx, cancel: cancel}
		start := time.Now()
		n, err := io.ReadFull(s, make([]byte, 10))
		if n != 3 || !errors.Is(err, errSilent) || time.Since(start) != 3*slow+idle {
			t.Errorf("%d bytes, error %v after %v", n, err, time.Since(start))
		}
		var lost *lostError
		if !errors.As(s.judge(err), &lost) {
			t.Error("it does not count as lost")
		}
	})
}
