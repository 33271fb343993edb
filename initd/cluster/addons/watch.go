package addons

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the directory must be quiet before it is read: an editor or scp writes a file in several steps.
	settle = 300 * time.Millisecond
	// pollPeriod replaces the watch where the kernel gives none (too many inotify users).
	pollPeriod = 15 * time.Second
)

// watch returns a channel that receives after changes below the manifests directory.
func (d *deployer) watch(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	w, err := fsnotify.NewWatcher()
	if err == nil {
		if err = w.Add(d.source.dir); err != nil {
			w.Close()
		}
	}
	if err != nil {
		d.log.Warn("cannot watch the manifests directory, reading it regularly instead", "directory", d.source.dir, "every", pollPeriod, "error", err)
		go poll(ctx, changed)
		return changed
	}
	go d.follow(ctx, w, changed)
	return changed
}

func poll(ctx context.Context, changed chan<- struct{}) {
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			signal(changed)
		}
	}
}

func (d *deployer) follow(ctx context.Context, w *fsnotify.Watcher, changed chan<- struct{}) {
	defer w.Close()
	quiet := time.NewTimer(0) // at once: subdirectories that are there already have to be added
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-w.Events:
			if !ok {
				return
			}
			quiet.Reset(settle)
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			d.log.Warn("cannot follow the manifests directory, reading all of it", "error", err) // events were lost
			quiet.Reset(settle)
		case <-quiet.C:
			if list, err := d.source.list(); err == nil {
				for _, dir := range list.dirs {
					if err := w.Add(dir); err != nil { // adding one again does nothing
						d.log.Warn("cannot watch a directory of manifests", "directory", dir, "error", err)
					}
				}
			}
			signal(changed)
		}
	}
}

// signal does not wait: one signal that nobody has taken yet is enough.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
