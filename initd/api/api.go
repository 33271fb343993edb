// Package api serves the device API: HTTP with JSON, over whatever carries a byte stream. It answers from files that
// process 1 and the kernel keep, so that it needs no connection to either and goes on when one of its kind is restarted.
//
//	GET  /v1/status                 the machine's state            v1.State
//	GET  /v1/timeline               the boot, step by step         v1.Timeline
//	GET  /v1/logs/UNIT              the unit's log                 text/plain
//	     ?previous=true             the part before, rotated away
//	     ?follow=true               and what is logged from now on, until the client goes away
//	GET  /v1/kubeconfig             the administrator's kubeconfig YAML
//	GET  /v1/memory                 who uses the memory            v1.Memory
//	GET  /v1/disk                   bytes through block devices    v1.Disk
//	POST /v1/reboot, /v1/poweroff   stop orderly                   v1.Accepted, status 202
//
// Whoever reaches the handler may do all of this, and a kubeconfig is a secret: the transport decides who that is. Main
// serves it to root over a unix socket, and to the host of a virtual machine.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// Options are what a Handler is made of.
type Options struct {
	// Root is where all files are looked for: "/" on a device, another directory in tests.
	Root string
	// Reboot and PowerOff ask process 1 for it and return at once.
	Reboot, PowerOff func() error
	// Poll is how often a followed log is looked at; 0 means 200 ms.
	Poll time.Duration
}

// handler answers requests; see the package's documentation for which.
type handler struct{ Options }

// New returns the device API as a handler.
func New(o Options) http.Handler {
	if o.Poll == 0 {
		o.Poll = 200 * time.Millisecond
	}
	h := &handler{o}
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/status":      h.status,
		"GET /v1/timeline":    h.timeline,
		"GET /v1/logs/{unit}": h.logs,
		"GET /v1/kubeconfig":  h.kubeconfig,
		"GET /v1/memory":      h.memory,
		"GET /v1/disk":        h.disk,
		"POST /v1/reboot":     h.power("reboot", o.Reboot),
		"POST /v1/poweroff":   h.power("poweroff", o.PowerOff),
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := answer(w, r); err != nil {
				refuse(w, err)
			}
		})
	}
	return jsonErrors(mux)
}

// A refusal is an error that knows its HTTP status and what to do about it.
type refusal struct {
	status int
	err    error
	hint   string
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refuse answers with an error. Nothing may have been answered before.
func refuse(w http.ResponseWriter, err error) {
	status, hint := http.StatusInternalServerError, "see the log of the unit api on the device"
	if r, ok := errors.AsType[*refusal](err); ok {
		status, hint = r.status, r.hint
	} else {
		slog.Error("a request failed", "reason", err)
	}
	respond(w, status, v1.Error{Message: err.Error(), Hint: hint})
}

func respond(w http.ResponseWriter, status int, body any) error {
	b, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // fails when the client went away: nobody to tell
	return nil
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) error {
	return answerFile[v1.State](h, w, v1.StatePath, "the machine's state")
}

func (h *handler) timeline(w http.ResponseWriter, _ *http.Request) error {
	return answerFile[v1.Timeline](h, w, v1.TimelinePath, "the boot's timeline")
}

// answerFile answers with a JSON file of process 1. It is decoded and encoded anew, so that only whole answers of the
// documented form leave the device.
func answerFile[T any](h *handler, w http.ResponseWriter, path, what string) error {
	b, err := os.ReadFile(h.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return &refusal{http.StatusServiceUnavailable,
			fmt.Errorf("cannot tell %s: init has not written %s yet", what, path), "ask again in a second"}
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", what, err)
	}
	var body T
	if err := json.Unmarshal(b, &body); err != nil {
		return fmt.Errorf("cannot read %s in %s: %w", what, path, err)
	}
	return respond(w, http.StatusOK, body)
}

func (h *handler) kubeconfig(w http.ResponseWriter, _ *http.Request) error {
	b, err := os.ReadFile(h.path(v1.KubeconfigPath))
	if errors.Is(err, fs.ErrNotExist) {
		return &refusal{http.StatusNotFound, errors.New("the device has no kubeconfig"),
			"a server has one as soon as its control plane runs: ask again, and look at /v1/status; an agent never has one: ask its server"}
	}
	if err != nil {
		return fmt.Errorf("cannot read the kubeconfig: %w", err)
	}
	w.Header().Set("Content-Type", "application/yaml")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b) // fails when the client went away: nobody to tell
	return nil
}

func (h *handler) power(action string, do func() error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		// Asked before it is answered, so that a failure is told. The server finishes its answers when it is stopped.
		if err := do(); err != nil {
			return fmt.Errorf("cannot ask init for %s; the machine was left running: %w", action, err)
		}
		return respond(w, http.StatusAccepted, v1.Accepted{Action: action})
	}
}

// path is where a file of the device is.
func (h *handler) path(device string) string { return filepath.Join(h.Root, device) }

// jsonErrors gives the multiplexer's own refusals (no such path, wrong method) the form of all others.
func jsonErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		// Let the multiplexer decide between 404 and 405, and which methods it allows.
		plain := &headerOnly{header: w.Header(), status: http.StatusNotFound}
		mux.ServeHTTP(plain, r)
		w.Header().Del("X-Content-Type-Options")
		message, hint := fmt.Sprintf("there is no %s", r.URL.Path), "GET /v1/status tells how the machine is; a newer device may know more paths"
		if plain.status == http.StatusMethodNotAllowed {
			message, hint = fmt.Sprintf("cannot %s %s", r.Method, r.URL.Path), "allowed: "+w.Header().Get("Allow")
		}
		respond(w, plain.status, v1.Error{Message: message, Hint: hint})
	})
}

// headerOnly takes a response's header and status and drops its body.
type headerOnly struct {
	header http.Header
	status int
}

func (h *headerOnly) Header() http.Header         { return h.header }
func (h *headerOnly) WriteHeader(status int)      { h.status = status }
func (h *headerOnly) Write(b []byte) (int, error) { return len(b), nil }
