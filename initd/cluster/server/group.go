package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// group runs parts in layers. A part that ends by itself ends the group; layers are stopped from the highest down,
// each waited for, so that nothing loses what it stands on.
type group struct {
	mu     sync.Mutex
	layers [3]layer
	ended  chan error
	parent context.Context
}

type layer struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	alive  map[string]bool
}

func newGroup(ctx context.Context) *group {
	g := &group{parent: ctx, ended: make(chan error, 1)}
	for i := range g.layers {
		l := &g.layers[i]
		l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
		l.alive = map[string]bool{}
	}
	return g
}

func (g *group) start(level int, name string, run func(context.Context) error) {
	l := &g.layers[level]
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.ctx.Err() != nil {
		return // the group is stopping
	}
	l.alive[name] = true
	l.wg.Go(func() {
		err := run(l.ctx)
		g.mu.Lock()
		delete(l.alive, name)
		g.mu.Unlock()
		if l.ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it ended without being asked to")
		}
		g.fail(fmt.Errorf("%s: %w", name, err))
	})
}

func (g *group) watch(name string, failed <-chan error) {
	select {
	case err := <-failed:
		g.fail(fmt.Errorf("%s: %w", name, err))
	case <-g.layers[0].ctx.Done():
	}
}

func (g *group) fail(err error) {
	select {
	case g.ended <- err:
	default: // the first reason counts
	}
}

// wait returns nil when the parent ends and the first failure otherwise.
func (g *group) wait() error {
	select {
	case <-g.parent.Done():
		return nil
	case err := <-g.ended:
		return err
	}
}

func (g *group) stop() {
	for i := len(g.layers) - 1; i >= 0; i-- {
		l := &g.layers[i]
		g.mu.Lock()
		l.cancel()
		g.mu.Unlock()
		done := make(chan struct{})
		go func() { l.wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(shutdown):
			g.mu.Lock()
			var names []string
			for n := range l.alive {
				names = append(names, n)
			}
			g.mu.Unlock()
			slog.Warn("not stopped in time; going on without waiting", "parts", strings.Join(names, ", "), "limit", shutdown)
		}
	}
}
