package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// unitName is what a unit may be called here: no path separator, no leading dot.
var unitName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9@._-]*$`)

// logs answers with a unit's log. LogDir has for each unit the file UNIT.log, which grows, and UNIT.log.1, which was
// UNIT.log until it was full.
func (h *handler) logs(w http.ResponseWriter, r *http.Request) error {
	unit := strings.TrimSuffix(r.PathValue("unit"), ".service")
	previous, err1 := boolean(r, "previous")
	follow, err2 := boolean(r, "follow")
	if err := errors.Join(err1, err2); err != nil {
		return &Refusal{Status: http.StatusBadRequest, Err: err, Hint: "leave it out, or say true or false"}
	}
	boot := r.URL.Query().Get("boot")
	if boot != "" && boot != "previous" {
		return &Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("cannot show the logs of boot %q: only those of the previous one are kept", boot), Hint: "leave it out, or say boot=previous"}
	}
	dir := h.path(v1.LogDir)
	if boot != "" {
		if follow {
			return &Refusal{Status: http.StatusBadRequest, Err: errors.New("cannot follow a log of the previous boot: it does not grow"), Hint: "ask for one of boot and follow"}
		}
		dir = h.previousBoot()
	}
	if previous && follow {
		return &Refusal{Status: http.StatusBadRequest, Err: errors.New("cannot follow the previous part of a log: it does not grow"), Hint: "ask for one of previous and follow"}
	}
	if !unitName.MatchString(unit) {
		return &Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("cannot show the log of %q: not a unit's name", unit), Hint: h.units()}
	}
	if unit == crashLog {
		return h.crash(w)
	}
	path := filepath.Join(dir, unit+".log")
	if previous {
		path += ".1"
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && boot != "" {
		return &Refusal{Status: http.StatusNotFound, Err: fmt.Errorf("there is no log of %s of the previous boot", unit),
			Hint: "a boot that is stopped in order, or that init sees fail, leaves its logs; one that loses power does not"}
	}
	if errors.Is(err, fs.ErrNotExist) {
		message := fmt.Errorf("there is no log of %s", unit)
		if previous {
			message = fmt.Errorf("there is no previous part of the log of %s: all of it is in the present one", unit)
		}
		return &Refusal{Status: http.StatusNotFound, Err: message, Hint: h.units()}
	}
	if err != nil {
		return fmt.Errorf("cannot open the log of %s: %w", unit, err)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if follow {
		return followLog(r.Context(), w, f, path, h.Poll)
	}
	defer f.Close()
	io.Copy(w, f) // fails when the client went away: nobody to tell
	return nil
}

// crashLog stands for what the last crash left.
const crashLog = "crash"

// crash answers with all files of the last crash, of the kernel or of a boot that init saw fail.
func (h *handler) crash(w http.ResponseWriter) error {
	files, _ := filepath.Glob(filepath.Join(h.path(v1.CrashDir), "*")) // the pattern is sound
	if len(files) == 0 {
		return &Refusal{Status: http.StatusNotFound, Err: errors.New("no crash is kept"), Hint: "what a kernel says that crashes is kept where firmware has room for it; " + h.units()}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			text = []byte("cannot read it: " + err.Error() + "\n")
		}
		fmt.Fprintf(w, "== %s\n%s", filepath.Base(file), text) // fails when the client went away: nobody to tell
	}
	return nil
}

// previousBoot is the folder with the logs of the boot before: it was stopped in order, or init saw it fail. What a machine
// logged that lost power is lost.
func (h *handler) previousBoot() string {
	newest, at := h.path(v1.PreviousLogDirs[0]), time.Time{}
	for _, dir := range v1.PreviousLogDirs {
		if info, err := os.Stat(h.path(dir)); err == nil && info.ModTime().After(at) {
			newest, at = h.path(dir), info.ModTime()
		}
	}
	return newest
}

// boolean reads a yes-or-no parameter of the query. Its name alone means yes.
func boolean(r *http.Request, name string) (bool, error) {
	query := r.URL.Query()
	if !query.Has(name) {
		return false, nil
	}
	value := query.Get(name)
	if value == "" {
		return true, nil
	}
	yes, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("cannot read %s=%s: not true or false", name, value)
	}
	return yes, nil
}

// units is the hint which units have logs.
func (h *handler) units() string {
	files, _ := filepath.Glob(filepath.Join(h.path(v1.LogDir), "*.log")) // the pattern is sound
	if len(files) == 0 {
		return "no unit has logged anything yet"
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".log")
	}
	return "there are logs of: " + strings.Join(files, ", ")
}

// followLog copies f to w, and what is added to it until ctx is done. When the file at path is another one, f was full
// and rotated away: its end is copied, then the new one from its start. It closes f.
//
// It looks at the file instead of being told of changes: the logs are in memory, so that a look costs a system call
// or two, and only while somebody follows.
func followLog(ctx context.Context, w http.ResponseWriter, f *os.File, path string, poll time.Duration) error {
	defer func() { f.Close() }()
	again := time.NewTicker(poll)
	defer again.Stop()
	flush := http.NewResponseController(w).Flush
	for {
		// Asked before the copy, so that all that was in f when it was rotated away is copied.
		next := rotated(f, path)
		if _, err := io.Copy(w, f); err != nil {
			return nil // the client went away
		}
		if err := flush(); err != nil {
			return nil
		}
		if next != nil {
			f.Close()
			f = next
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// rotated returns the file at path, open, if it is not f any more; else nil.
func rotated(f *os.File, path string) *os.File {
	next, err := os.Open(path)
	if err != nil {
		return nil // between the two renames of a rotation; the next look finds it
	}
	now, err1 := next.Stat()
	old, err2 := f.Stat()
	if err1 != nil || err2 != nil || os.SameFile(now, old) {
		next.Close()
		return nil
	}
	return next
}
