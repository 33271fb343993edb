package main

import (
	"context"
	"io/fs"
	"log/slog"
	"os"

	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/update"
	"github.com/skerryos/skerry/initd/update/follow"
	"github.com/skerryos/skerry/initd/update/stick"
)

const (
	// stickMemory says which bundles were taken from which disks, stickDir is where such a disk is mounted.
	stickMemory = stateDir + "/sticks.json"
	stickDir    = runDir + "/stick"
)

// byItself starts what upgrades the device without being asked, as far as the configuration wants it.
func (u *upgrades) byItself(ctx context.Context, c config.Update) {
	if c.URL != "" {
		u.asked = make(chan struct{}, 1)
		go u.follow(ctx, c)
	}
	if c.USB {
		go u.watchSticks(ctx)
	}
}

func (u *upgrades) follow(ctx context.Context, c config.Update) {
	f := follow.Config{
		URL: c.BundleURL(u.Running.Board, u.Running.Architecture, u.Running.Version), Interval: c.Interval, Rate: int64(c.Rate),
		Updater: u.Updater, Written: u.tryNow, Asked: u.asked,
		Report: func(s follow.Status) { u.report("the upgrade's URL", s.Activity, s.Problem) },
	}
	if c.Window != nil {
		start, end, zone := c.Window.Bounds()
		f.Window = &follow.Window{Start: start, End: end, Zone: zone}
	}
	if err := follow.New(f).Run(ctx); err != nil && ctx.Err() == nil {
		u.report("the upgrade's URL", "", err.Error())
	}
}

func (u *upgrades) watchSticks(ctx context.Context) {
	const name = "removable disks"
	changed, err := machine.DiskEvents(ctx)
	if err != nil {
		u.report(name, "", err.Error())
		return
	}
	w := stick.New(stick.Config{
		Volumes: removableVolumes, Changed: changed, Updater: u.Updater, Memory: update.FileStore(stickMemory), Written: u.tryNow,
		Report: func(s stick.Status) {
			if s.Note != "" {
				slog.Info(s.Note)
			}
			u.report(name, s.Activity, s.Problem)
		},
	})
	if err := w.Run(ctx); err != nil && ctx.Err() == nil {
		u.report(name, "", err.Error())
	}
}

func removableVolumes() ([]stick.Volume, error) {
	found, err := machine.RemovableVolumes()
	var volumes []stick.Volume
	for _, v := range found {
		volumes = append(volumes, stick.Volume{ID: v.ID, Name: v.Path, Open: func() (fs.FS, func() error, error) {
			if err := os.MkdirAll(stickDir, 0o700); err != nil {
				return nil, nil, err
			}
			if err := v.Mount(stickDir); err != nil {
				return nil, nil, err
			}
			return os.DirFS(stickDir), func() error { return machine.Unmount(stickDir) }, nil
		}})
	}
	return volumes, err
}
