package vm

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// servePort serves the socket of a device port as a guest would.
func servePort(t *testing.T, handler http.Handler) *Device {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return newDevice(socket)
}

func TestDevice(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/kubeconfig", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "kind: Config") })
	mux.HandleFunc("POST /v1/reboot", func(w http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"error": "still booting", "hint": "ask again"}`)
	})
	d := servePort(t, mux)

	// Nothing is sent before the guest listens; the request goes on when it does.
	answer := make(chan error)
	go func() {
		b, err := d.Kubeconfig(t.Context())
		if err == nil && string(b) != "kind: Config" {
			err = errors.New("got " + string(b))
		}
		answer <- err
	}()
	d.setOpen(true)
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if err := d.Reboot(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := d.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "still booting; ask again") {
		t.Errorf("got error %v, want the device's own words", err)
	}
	// After a reboot of the guest the old connection is dead; a new one is made.
	d.setOpen(false)
	d.setOpen(true)
	if _, err := d.Kubeconfig(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDeviceThatNeverListens(t *testing.T) {
	d := newDevice(filepath.Join(t.TempDir(), "s"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.get(ctx, "/v1/status"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), v1.HostPort) {
		t.Errorf("got error %v", err)
	}
}

// A guest that stops in the middle of an answer must not leave its caller waiting.
func TestDeviceThatClosesMidway(t *testing.T) {
	begun := make(chan struct{})
	d := servePort(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		close(begun)
		<-r.Context().Done()
	}))
	d.setOpen(true)
	answer := make(chan error)
	go func() {
		_, err := d.get(t.Context(), "/v1/status")
		answer <- err
	}()
	<-begun
	d.setOpen(false)
	if err := <-answer; err == nil {
		t.Error("half an answer was taken for a whole one")
	}
}

// A device that is not ready is asked again, and what it says last is in the error.
func TestWaitReady(t *testing.T) {
	states := make(chan string)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, <-states) })
	d := servePort(t, mux)
	d.setOpen(true)
	d.interval = time.Millisecond
	go func() {
		states <- `{"phase": "starting", "message": "services"}`
		states <- `{"phase": "degraded", "message": "no time", "problems": ["no time server answers"]}`
		states <- `{"phase": "ready"}`
	}()
	if _, err := d.WaitReady(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range 3 {
			states <- `{"phase": "degraded", "message": "disk", "problems": ["the disk is full"]}`
		}
		cancel()
	}()
	if _, err := d.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("got error %v, want what the device said last", err)
	}
}
