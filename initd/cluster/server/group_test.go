package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestGroupStopsFromTheTop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := newGroup(ctx)
	var mu sync.Mutex
	var order []string
	for level, name := range []string{"API server", "controllers", "node"} {
		g.start(level, name, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			return ctx.Err()
		})
	}
	cancel()
	if err := g.wait(); err != nil {
		t.Errorf("a stop on request is no failure: %v", err)
	}
	g.stop()
	if want := []string{"node", "controllers", "API server"}; !slices.Equal(order, want) {
		t.Errorf("stopped in the order %v, want %v", order, want)
	}
	g.start(2, "late", func(context.Context) error { t.Error("a part was started in a group that stops"); return nil })
	g.layers[2].wg.Wait()
}

func TestGroupFailure(t *testing.T) {
	tests := []struct {
		name string
		run  func(context.Context) error
		want string
	}{
		{"with an error", func(context.Context) error { return errors.New("disk full") }, "scheduler: disk full"},
		{"without one", func(context.Context) error { return nil }, "scheduler: it ended without being asked to"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGroup(t.Context())
			g.start(0, "API server", func(ctx context.Context) error { <-ctx.Done(); return nil })
			g.start(1, "scheduler", tt.run)
			if err := g.wait(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			g.stop()
		})
	}
}
