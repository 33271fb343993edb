package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// errNoUpgrades is the answer of a device that cannot be upgraded at all.
var errNoUpgrades = &Refusal{Status: http.StatusNotImplemented, Err: errors.New("this device cannot be upgraded"),
	Hint: "its status says why; write a new image to its disk"}

func (h *handler) upgrade(w http.ResponseWriter, r *http.Request) error {
	if h.Upgrades == nil {
		return errNoUpgrades
	}
	force, err1 := boolean(r, v1.ParamForce)
	try, err2 := true, error(nil)
	if r.URL.Query().Has(v1.ParamTry) {
		try, err2 = boolean(r, v1.ParamTry)
	}
	from, err3 := chunk(r)
	if err := errors.Join(err1, err2, err3); err != nil {
		return &Refusal{Status: http.StatusBadRequest, Err: err, Hint: "nothing was written; see GET /v1/openapi.json"}
	}
	body := &attended{Reader: r.Body, deadline: http.NewResponseController(w).SetReadDeadline, silence: h.Silence}
	if err := h.Upgrades.Upload(r.Context(), body, from, force); err != nil {
		return err
	}
	status := http.StatusOK
	if try {
		if err := h.Upgrades.Try(); err != nil {
			return err
		}
		status = http.StatusAccepted
	}
	return h.update(w, status)
}

// attended is a body whose client must go on sending: as long as an upload is under way nobody else can upgrade the device.
type attended struct {
	io.Reader
	deadline func(time.Time) error
	silence  time.Duration
}

// Read implements [io.Reader]. What the device itself needs between two of them does not count.
func (a *attended) Read(b []byte) (int, error) {
	_ = a.deadline(time.Now().Add(a.silence)) // what knows no deadlines is a test
	n, err := a.Reader.Read(b)
	_ = a.deadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("nothing has come from the client for %v", a.silence)
	}
	return n, err
}

// chunk is the number of the first chunk in the body.
func chunk(r *http.Request) (int, error) {
	text := r.Header.Get(v1.ChunkHeader)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("cannot read the header %s: %s: not a number of a chunk", v1.ChunkHeader, text)
	}
	return int(n), nil
}

// update answers with the upgrade as it is now.
func (h *handler) update(w http.ResponseWriter, status int) error {
	var state v1.State
	if err := h.Upgrades.Describe(&state); err != nil {
		return err
	}
	return respond(w, status, state.Update)
}

func (h *handler) try(w http.ResponseWriter, _ *http.Request) error {
	if h.Upgrades == nil {
		return errNoUpgrades
	}
	if err := h.Upgrades.Try(); err != nil {
		return err
	}
	return respond(w, http.StatusAccepted, v1.Accepted{Action: "try"})
}

func (h *handler) fetch(w http.ResponseWriter, _ *http.Request) error {
	if h.Upgrades == nil {
		return errNoUpgrades
	}
	if err := h.Upgrades.Fetch(); err != nil {
		return err
	}
	return respond(w, http.StatusAccepted, v1.Accepted{Action: "fetch"})
}

func (h *handler) commit(w http.ResponseWriter, _ *http.Request) error {
	if h.Upgrades == nil {
		return errNoUpgrades
	}
	if err := h.Upgrades.Commit(); err != nil {
		return err
	}
	return h.update(w, http.StatusOK)
}

func (h *handler) rollback(w http.ResponseWriter, r *http.Request) error {
	if h.Upgrades == nil {
		return errNoUpgrades
	}
	reason := r.URL.Query().Get(v1.ParamReason)
	if reason == "" {
		reason = "an administrator has asked for it"
	}
	if err := h.Upgrades.Rollback(reason); err != nil {
		return err
	}
	return h.end(w, "rollback", h.Reboot)
}

// errNoSnapshots is the answer of a device without a datastore.
var errNoSnapshots = &Refusal{Status: http.StatusNotImplemented, Err: errors.New("this device has no cluster datastore"),
	Hint: "ask a server of the cluster"}

func (h *handler) snapshots(w http.ResponseWriter, _ *http.Request) error {
	if h.Snapshots == nil {
		return errNoSnapshots
	}
	list, err := h.Snapshots.List()
	if err != nil {
		return err
	}
	return respond(w, http.StatusOK, v1.Snapshots{Snapshots: list})
}

func (h *handler) takeSnapshot(w http.ResponseWriter, r *http.Request) error {
	if h.Snapshots == nil {
		return errNoSnapshots
	}
	s, err := h.Snapshots.Create(r.Context())
	if err != nil {
		return err
	}
	return respond(w, http.StatusCreated, s)
}

func (h *handler) restoreSnapshot(w http.ResponseWriter, r *http.Request) error {
	if h.Snapshots == nil {
		return errNoSnapshots
	}
	if err := h.Snapshots.Restore(r.PathValue("name")); err != nil {
		return err
	}
	return h.end(w, "restore", h.Reboot)
}
