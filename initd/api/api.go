// Package api serves the device API: HTTP with JSON, over whatever carries a byte stream. It answers from files that
// process 1 and the kernel keep, so that it needs no connection to either and goes on when one of its kind is restarted.
// What it can do beyond that is handed to it by main.
//
// Routes lists what there is, and GET /v1/openapi.json describes it. Who may do what stands there, too: on the network a client's
// certificate tells; whoever reaches the unix socket or the host's port is an admin.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// Options are what a Handler is made of.
type Options struct {
	// Root is where all files are looked for: "/" on a device, another directory in tests.
	Root string
	// Reboot and PowerOff ask process 1 for it and return at once.
	Reboot, PowerOff func() error
	// Reset notes what the next boot is to delete: v1.ResetData or v1.ResetEverything.
	Reset func(scope string) error
	// Upgrades and Snapshots do what their routes say. Without them those routes are not there.
	Upgrades  Upgrades
	Snapshots Snapshots
	// Poll is how often a followed log is looked at; 0 means 200 ms.
	Poll time.Duration
	// Silence is how long a client may send nothing of the bundle that it sends; 0 means a minute.
	Silence time.Duration
}

// Upgrades are the upgrades of this device. A [Refusal] tells the client what to do.
type Upgrades interface {
	// Describe adds slots, upgrade and identity to a state.
	Describe(*v1.State) error
	// Upload writes a bundle: its header, then its chunks from the one that is given. It returns when the slot is written
	// and read back, or when the body ends or ctx does; what was written by then stays.
	Upload(ctx context.Context, body io.Reader, from int, force bool) error
	// Try begins to try the slot that was written, and returns: the machine restarts soon.
	Try() error
	// Fetch lets the URL of the configuration be asked for an upgrade now.
	Fetch() error
	// Commit keeps the running slot.
	Commit() error
	// Rollback gives the running version up, or the one that is about to be tried. The caller restarts the machine.
	Rollback(reason string) error
}

// Snapshots are those of the cluster's datastore.
type Snapshots interface {
	List() ([]v1.Snapshot, error)
	Create(context.Context) (v1.Snapshot, error)
	// Restore notes which one the next boot puts back.
	Restore(name string) error
}

// A Route is what can be asked for.
type Route struct {
	Method, Path string
	// Admin: a reader may not.
	Admin bool
	Doc   string
	// Answer is a value of the type that is answered with as JSON, or nil for text; Status the status of success.
	Answer any
	Status int
	answer func(*handler, http.ResponseWriter, *http.Request) error
}

// Routes are all there is, in the order of a device's life.
func Routes() []Route {
	return []Route{
		{"GET", "/v1/status", false, "how the machine is", v1.State{}, 200, (*handler).status},
		{"GET", "/v1/timeline", false, "the boot, step by step", v1.Timeline{}, 200, (*handler).timeline},
		{"GET", "/v1/logs/{unit}", false, "the log of a unit, of init, of the kernel, or of the last crash; ?previous=true the part before, ?boot=previous the boot before, ?follow=true also what comes", nil, 200, (*handler).logs},
		{"GET", "/v1/memory", false, "who uses the memory", v1.Memory{}, 200, (*handler).memory},
		{"GET", "/v1/disk", false, "bytes through block devices", v1.Disk{}, 200, (*handler).disk},
		{"GET", "/v1/openapi.json", false, "this description", nil, 200, (*handler).openAPI},
		{"GET", "/v1/kubeconfig", true, "the administrator's kubeconfig", nil, 200, (*handler).kubeconfig},
		{"GET", "/v1/token", true, "the token that agents join the server's cluster with", nil, 200, (*handler).token},
		{"POST", "/v1/upgrade", true, "write a bundle to the other slot, and unless ?try=false, try it; ?force=true overrides refusals that can be; the header Skerry-Chunk says which chunk comes first", v1.Update{}, 202, (*handler).upgrade},
		{"POST", "/v1/try", true, "try the slot that was written: drain the node, restart", v1.Accepted{}, 202, (*handler).try},
		{"POST", "/v1/fetch", true, "ask the URL of the configuration for an upgrade now", v1.Accepted{}, 202, (*handler).fetch},
		{"POST", "/v1/commit", true, "keep the running slot, healthy or not", v1.Update{}, 200, (*handler).commit},
		{"POST", "/v1/rollback", true, "go back to the other slot, for a ?reason", v1.Accepted{}, 202, (*handler).rollback},
		{"POST", "/v1/reboot", true, "restart in order", v1.Accepted{}, 202, (*handler).reboot},
		{"POST", "/v1/poweroff", true, "switch off in order", v1.Accepted{}, 202, (*handler).powerOff},
		{"POST", "/v1/reset", true, "delete what ?scope says, data or everything, and restart", v1.Accepted{}, 202, (*handler).reset},
		{"GET", "/v1/snapshots", false, "the snapshots of the datastore", v1.Snapshots{}, 200, (*handler).snapshots},
		{"POST", "/v1/snapshots", true, "take a snapshot", v1.Snapshot{}, 201, (*handler).takeSnapshot},
		{"POST", "/v1/snapshots/{name}/restore", true, "put a snapshot back, and restart", v1.Accepted{}, 202, (*handler).restoreSnapshot},
	}
}

// handler answers requests.
type handler struct{ Options }

// New returns the device API as a handler.
func New(o Options) http.Handler {
	if o.Poll == 0 {
		o.Poll = 200 * time.Millisecond
	}
	if o.Silence == 0 {
		o.Silence = time.Minute
	}
	h := &handler{o}
	mux := http.NewServeMux()
	for _, route := range Routes() {
		mux.HandleFunc(route.Method+" "+route.Path, func(w http.ResponseWriter, r *http.Request) {
			err := permit(r, route)
			if err == nil {
				err = route.answer(h, w, r)
			}
			if err != nil {
				refuse(w, err)
			}
		})
	}
	return jsonErrors(mux)
}

// permit tells whether whoever asks may do it. Without TLS the way here is the permission.
func permit(r *http.Request, route Route) error {
	if r.TLS == nil {
		return nil
	}
	var roles []string
	if len(r.TLS.VerifiedChains) > 0 {
		roles = r.TLS.PeerCertificates[0].Subject.Organization
	}
	if slices.Contains(roles, v1.RoleAdmin) || !route.Admin && slices.Contains(roles, v1.RoleReader) {
		return nil
	}
	return &Refusal{Status: http.StatusForbidden,
		Err:  fmt.Errorf("%s %s is not for you: the roles of your certificate are %q", r.Method, r.URL.Path, roles),
		Hint: "ask an administrator of the device to do it, or for a certificate with the role " + v1.RoleAdmin}
}

// A Refusal is an error that knows its HTTP status and what to do about it.
type Refusal struct {
	Status int
	Err    error
	Hint   string
	// Forceable and Update are as in v1.Error.
	Forceable bool
	Update    *v1.Update
}

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns what is refused.
func (r *Refusal) Unwrap() error { return r.Err }

// refuse answers with an error. Nothing may have been answered before.
func refuse(w http.ResponseWriter, err error) {
	status, body := http.StatusInternalServerError, v1.Error{Hint: "see the log of the unit api on the device"}
	if r, ok := errors.AsType[*Refusal](err); ok {
		status, body = r.Status, v1.Error{Hint: r.Hint, Forceable: r.Forceable, Update: r.Update}
	} else {
		slog.Error("a request failed", "reason", err)
	}
	body.Message = err.Error()
	respond(w, status, body)
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
	state, err := h.state()
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, state)
}

// state is what process 1 and the upgrades know.
func (h *handler) state() (v1.State, error) {
	state, err := readFile[v1.State](h, v1.StatePath, "the machine's state")
	if uptime, ok := h.uptime(); ok {
		state.Booted = time.Now().Add(-uptime).Truncate(time.Second)
	}
	if err != nil || h.Upgrades == nil {
		return state, err
	}
	if err := h.Upgrades.Describe(&state); err != nil {
		// The rest is worth to be known all the more.
		state.Problems = append(state.Problems, err.Error())
	}
	return state, nil
}

// uptime is since the kernel started (proc_uptime(5)).
func (h *handler) uptime() (time.Duration, bool) {
	b, err := os.ReadFile(h.path("/proc/uptime"))
	text, _, _ := strings.Cut(string(b), " ")
	seconds, perr := strconv.ParseFloat(text, 64)
	return time.Duration(seconds * float64(time.Second)), err == nil && perr == nil
}

func (h *handler) timeline(w http.ResponseWriter, _ *http.Request) error {
	timeline, err := readFile[v1.Timeline](h, v1.TimelinePath, "the boot's timeline")
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, timeline)
}

// readFile reads a JSON file of process 1. It is decoded, and encoded anew, so that only whole answers of the documented form
// leave the device.
func readFile[T any](h *handler, path, what string) (body T, err error) {
	b, err := os.ReadFile(h.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return body, &Refusal{Status: http.StatusServiceUnavailable,
			Err: fmt.Errorf("cannot tell %s: init has not written %s yet", what, path), Hint: "ask again in a second"}
	}
	if err != nil {
		return body, fmt.Errorf("cannot read %s: %w", what, err)
	}
	if err := json.Unmarshal(b, &body); err != nil {
		return body, fmt.Errorf("cannot read %s in %s: %w", what, path, err)
	}
	return body, nil
}

func (h *handler) kubeconfig(w http.ResponseWriter, _ *http.Request) error {
	return h.serverFile(w, "kubeconfig", v1.KubeconfigPath, "application/yaml")
}

func (h *handler) token(w http.ResponseWriter, _ *http.Request) error {
	return h.serverFile(w, "token", v1.TokenPath, "text/plain; charset=utf-8")
}

// serverFile answers with a secret file that only servers have. A server writes its kubeconfig at each start; a machine without one is none, or
// not yet, even if it has files of a cluster that it had before.
func (h *handler) serverFile(w http.ResponseWriter, what, path, mediaType string) error {
	_, err := os.Stat(h.path(v1.KubeconfigPath))
	var b []byte
	if err == nil {
		b, err = os.ReadFile(h.path(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &Refusal{Status: http.StatusNotFound, Err: fmt.Errorf("the device has no %s", what),
			Hint: "a server has one as soon as its control plane runs: ask again, and look at /v1/status; an agent never has one: ask its server"}
	}
	if err != nil {
		return fmt.Errorf("cannot read the %s: %w", what, err)
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b) // fails when the client went away: nobody to tell
	return nil
}

func (h *handler) reboot(w http.ResponseWriter, _ *http.Request) error {
	return h.end(w, "reboot", h.Reboot)
}

func (h *handler) powerOff(w http.ResponseWriter, _ *http.Request) error {
	return h.end(w, "poweroff", h.PowerOff)
}

// end asks process 1 before it is answered, so that a failure is told. The server finishes its answers when it is stopped.
func (h *handler) end(w http.ResponseWriter, action string, do func() error) error {
	if err := do(); err != nil {
		return fmt.Errorf("cannot ask init for %s; the machine was left running: %w", action, err)
	}
	return respond(w, http.StatusAccepted, v1.Accepted{Action: action})
}

func (h *handler) reset(w http.ResponseWriter, r *http.Request) error {
	scope := r.URL.Query().Get(v1.ParamScope)
	if scope != v1.ResetData && scope != v1.ResetEverything {
		return &Refusal{Status: http.StatusBadRequest, Err: fmt.Errorf("cannot reset %q, nothing was deleted: the scope is %s or %s", scope, v1.ResetData, v1.ResetEverything),
			Hint: "say ?" + v1.ParamScope + "=" + v1.ResetData + " or " + v1.ResetEverything}
	}
	if err := h.Reset(scope); err != nil {
		return fmt.Errorf("cannot reset, nothing was deleted: %w", err)
	}
	return h.end(w, "reset", h.Reboot)
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
