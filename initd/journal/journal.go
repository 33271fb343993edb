// Package journal keeps what services say in memory: cards wear out by logs that nobody reads. Each unit has two files in a
// folder of a tmpfs, UNIT.log, which grows, and UNIT.log.1, which was UNIT.log until it was full: the last lines are
// always there, and no unit can use up memory or push another's lines out. What should outlive the boot is saved on demand.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// A Journal is a folder of logs.
type Journal struct {
	dir    string
	limit  int
	uptime func() time.Duration

	mu    sync.Mutex
	units map[string]*log
}

// New keeps logs in dir, which is on a tmpfs, with at most 2*limit bytes for each unit. Each line gets the time since the
// kernel started, which uptime tells: it never jumps, as the clock of a machine without a battery does.
func New(dir string, limit int, uptime func() time.Duration) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep logs: %w", err)
	}
	return &Journal{dir: dir, limit: limit, uptime: uptime, units: map[string]*log{}}, nil
}

// Writer returns where the output of a unit goes. It never fails: a log that cannot be written is lost, and the unit goes
// on.
func (j *Journal) Writer(unit string) io.Writer {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.units[unit]
	if l == nil {
		l = &log{path: filepath.Join(j.dir, unit+".log"), limit: j.limit, uptime: j.uptime}
		j.units[unit] = l
	}
	return l
}

// Save copies all logs into dir, durably, in place of those that are there.
func (j *Journal) Save(dir string) error {
	files, err := filepath.Glob(filepath.Join(j.dir, "*.log*"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot save logs: %w", err)
	}
	var failed []error
	for _, file := range files {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was just turned over
		}
		if err == nil {
			err = renameio.WriteFile(filepath.Join(dir, filepath.Base(file)), b, 0o600)
		}
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("cannot save logs: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

type log struct {
	path   string
	limit  int
	uptime func() time.Duration

	mu    sync.Mutex
	file  *os.File
	size  int
	begun bool // a line without its end was written
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stamp := fmt.Appendf(nil, "[%12.6f] ", l.uptime().Seconds())
	out := make([]byte, 0, len(b)+len(stamp))
	for line := range bytes.Lines(b) {
		if !l.begun {
			out = append(out, stamp...)
		}
		out = append(out, line...)
		l.begun = line[len(line)-1] != '\n'
	}
	l.append(out)
	return len(b), nil
}

func (l *log) append(b []byte) {
	if l.file != nil && l.size+len(b) > l.limit {
		l.file.Close()
		l.file = nil
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return
		}
	}
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return
		}
		l.file, l.size = f, 0
	}
	n, _ := l.file.Write(b) // a tmpfs that is full loses lines and nothing else
	l.size += n
}
