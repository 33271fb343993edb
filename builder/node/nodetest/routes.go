package nodetest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/bundle"
)

// Token is that of all servers.
const Token = "K10e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855::server:secret"

// routes is the whole API. Each request has a connection of its own, so that one which is made anew meets the device as it
// is by then.
func (d *Device) routes() http.Handler {
	mux := http.NewServeMux()
	reader := func(pattern string, answer http.HandlerFunc) { mux.HandleFunc(pattern, answer) }
	admin := func(pattern string, answer http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !slices.Contains(r.TLS.PeerCertificates[0].Subject.Organization, v1.RoleAdmin) {
				refuse(w, http.StatusForbidden, v1.Error{Message: "a reader may only ask", Hint: "use a context whose role is admin"})
				return
			}
			answer(w, r)
		})
	}
	reader("GET /v1/status", d.status)
	reader("GET /v1/timeline", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, v1.Timeline{Steps: []v1.Step{
			{Name: "modules", Stage: "initramfs", Start: 0.5, End: 1.25},
			{Name: "network", Stage: "root", Start: 2, End: 2.5, Error: "no address yet"},
			{Name: "healthy", Stage: "root", Start: 3},
		}})
	})
	reader("GET /v1/memory", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, v1.Memory{Total: 2 << 30, Available: 1 << 30, Anonymous: 300 << 20, Processes: []v1.Process{{PID: 100, Name: "skerryd", PSS: 250 << 20}}})
	})
	reader("GET /v1/disk", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, v1.Disk{Devices: []v1.BlockDevice{{Name: "vda", ReadBytes: 3 << 20, WrittenBytes: 5 << 20}}})
	})
	reader("GET /v1/logs/{unit}", d.log)
	admin("GET /v1/kubeconfig", func(w http.ResponseWriter, _ *http.Request) {
		if d.config.Kubeconfig == "" {
			refuse(w, http.StatusNotFound, v1.Error{Message: "the device has no kubeconfig", Hint: "an agent never has one: ask its server"})
			return
		}
		io.WriteString(w, d.config.Kubeconfig)
	})
	admin("GET /v1/token", func(w http.ResponseWriter, _ *http.Request) {
		if d.config.Kubeconfig == "" {
			refuse(w, http.StatusNotFound, v1.Error{Message: "the device has no token", Hint: "an agent never has one: ask its server"})
			return
		}
		fmt.Fprintln(w, Token)
	})
	admin("POST /v1/upgrade", d.upgrade)
	admin("POST /v1/try", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.update.State != "written" {
			update := d.update
			refuse(w, http.StatusConflict, v1.Error{Message: "there is nothing to try: no upgrade is under way", Hint: "upgrade first", Update: &update})
			return
		}
		d.actions = append(d.actions, "try")
		d.try()
		respond(w, http.StatusAccepted, v1.Accepted{Action: "try"})
	})
	admin("POST /v1/commit", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.actions = append(d.actions, "commit")
		d.update.State, d.update.Version, d.coming = "committed", d.state.Version, nil
		respond(w, http.StatusOK, d.update)
	})
	for _, action := range []string{"rollback", "reboot", "poweroff", "reset"} {
		admin("POST /v1/"+action, func(w http.ResponseWriter, r *http.Request) { d.accept(w, action, r.URL.RawQuery) })
	}
	reader("GET /v1/snapshots", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		respond(w, http.StatusOK, v1.Snapshots{Snapshots: d.snaps})
	})
	admin("POST /v1/snapshots", func(w http.ResponseWriter, _ *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		s := v1.Snapshot{Name: fmt.Sprintf("asked-%d", len(d.snaps)+1), Created: started, Bytes: 4 << 20, Version: d.state.Version, Reason: "asked"}
		d.snaps = append([]v1.Snapshot{s}, d.snaps...)
		respond(w, http.StatusCreated, s)
	})
	admin("POST /v1/snapshots/{name}/restore", func(w http.ResponseWriter, r *http.Request) { d.accept(w, "restore", r.PathValue("name")) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		mux.ServeHTTP(w, r)
	})
}

// accept notes an action that takes effect by a restart, which is not played.
func (d *Device) accept(w http.ResponseWriter, action, detail string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.actions = append(d.actions, action+" "+detail)
	respond(w, http.StatusAccepted, v1.Accepted{Action: action})
}

func (d *Device) log(w http.ResponseWriter, r *http.Request) {
	if unit := r.PathValue("unit"); unit != "init" {
		refuse(w, http.StatusNotFound, v1.Error{Message: "there is no log of " + unit, Hint: "there are logs of: init"})
		return
	}
	fmt.Fprintf(w, "log of init %s\n", r.URL.RawQuery)
}

// status answers, and moves on by one change.
func (d *Device) status(w http.ResponseWriter, _ *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := d.state
	update := d.update
	answer.Update = &update
	other := v1.Slot{Name: "b", Version: update.Version, Running: answer.Slot == "b", Present: update.State != "idle" && update.State != "writing", Good: update.State == "committed"}
	if !other.Good {
		other.Tries = 3
	}
	answer.Slots = []v1.Slot{{Name: "a", Version: d.config.Version, Running: answer.Slot == "a", Present: true, Good: true}, other}
	respond(w, http.StatusOK, answer)
	if len(d.coming) > 0 {
		next := d.coming[0]
		d.coming = d.coming[1:]
		next()
	}
}

// upgrade takes a bundle as a device does: what is wrong with it is said before anything is written, and what was written stays.
func (d *Device) upgrade(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var body io.Reader = r.Body
	if len(d.config.CutAfter) > 0 {
		body = io.LimitReader(body, d.config.CutAfter[0])
		d.config.CutAfter = d.config.CutAfter[1:]
	}
	b, err := bundle.Open(body, d.config.Keys)
	if _, untrusted := errors.AsType[*bundle.UntrustedError](err); untrusted {
		refuse(w, http.StatusForbidden, v1.Error{Message: err.Error()})
		return
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, v1.Error{Message: err.Error()})
		return
	}
	from, err := strconv.Atoi(r.Header.Get(v1.ChunkHeader))
	if err != nil {
		refuse(w, http.StatusBadRequest, v1.Error{Message: err.Error()})
		return
	}
	if refusal := d.object(b, from, r.FormValue(v1.ParamForce) == "true"); refusal != nil {
		respond(w, refusal.status, refusal.v1)
		return
	}
	d.take(b, from, body)
	status := http.StatusOK
	if r.FormValue(v1.ParamTry) != "false" {
		status = http.StatusAccepted
		d.try()
	}
	if d.config.LoseAnswers > 0 {
		d.config.LoseAnswers--
		panic(http.ErrAbortHandler)
	}
	respond(w, status, d.update)
}

type objection struct {
	status int
	v1     v1.Error
}

// object says what speaks against a bundle, and makes the update its own if nothing does.
func (d *Device) object(b *bundle.Reader, from int, force bool) *objection {
	m := b.Manifest()
	sum := sha256.Sum256(b.Header())
	digest := hex.EncodeToString(sum[:])
	failed := slices.IndexFunc(d.update.Failed, func(f v1.FailedVersion) bool { return f.Version == m.Version })
	same := d.update.Bundle == digest && (d.update.State == "writing" || d.update.State == "written")
	update := d.update
	switch {
	case d.config.Busy > 0:
		d.config.Busy--
		return &objection{http.StatusConflict, v1.Error{Message: "only one upgrade at a time; there is one already", Update: &update}}
	case d.update.State == "trying", d.update.State == "writing" && !same && !force:
		return &objection{http.StatusConflict, v1.Error{Message: "only one upgrade at a time; there is one already", Hint: "wait for its end", Update: &update}}
	case m.Board != d.state.Board:
		return &objection{http.StatusPreconditionFailed, v1.Error{Message: "the bundle is for board " + m.Board + ", the device is a " + d.state.Board}}
	case failed >= 0 && !force:
		return &objection{http.StatusPreconditionFailed, v1.Error{Message: "version " + m.Version + " was rolled back: " + d.update.Failed[failed].Reason, Forceable: true}}
	case !same && from == 0:
		d.update = v1.Update{State: "writing", Version: m.Version, From: d.state.Version, Target: "b", Bundle: digest, Chunks: len(m.Chunks), Started: started, Failed: d.update.Failed}
		d.touch()
	case !same || from != d.update.Chunk:
		if !same {
			update = v1.Update{Bundle: digest}
		}
		return &objection{http.StatusConflict, v1.Error{Message: fmt.Sprintf("go on from chunk %d", update.Chunk), Update: &update}}
	}
	return nil
}

// take reads the chunks, and ends the connection where it is cut.
func (d *Device) take(b *bundle.Reader, from int, body io.Reader) {
	if err := b.Resume(from, body); err != nil {
		panic(err)
	}
	for {
		i, _, err := b.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		d.received[i]++
		d.update.Chunk = i + 1
	}
	d.update.State = "written"
	d.touch()
}

func refuse(w http.ResponseWriter, status int, e v1.Error) { respond(w, status, e) }

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // fails when the client went away: nobody to tell
}
