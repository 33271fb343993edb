package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// A Device speaks the device API over the virtio-serial port [v1.HostPort]. The port is a byte stream without connections of its
// own: QEMU tells the guest when the host side comes and goes, and tells us when the guest opens its end. A request
// waits, as long as its context lets it, for the guest to open it.
type Device struct {
	socket string
	client *http.Client
	// interval is the time between two questions while waiting for a state.
	interval time.Duration

	mu      sync.Mutex
	open    bool
	changed chan struct{} // closed and replaced when open changes
	conn    net.Conn      // the connection of the present opening
}

func newDevice(socket string) *Device {
	d := &Device{socket: socket, interval: time.Second, changed: make(chan struct{})}
	d.client = &http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) },
		MaxConnsPerHost: 1, // the port carries one connection at a time
	}}
	return d
}

// setOpen follows the guest's end of the port. What was under way when it closed will not be answered.
func (d *Device) setOpen(open bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == open {
		return
	}
	d.open = open
	if !open && d.conn != nil {
		d.conn.Close()
		d.conn = nil
	}
	close(d.changed)
	d.changed = make(chan struct{})
}

// WaitOpen waits until the guest listens, which is early in its boot, or ctx is done.
func (d *Device) WaitOpen(ctx context.Context) error {
	for {
		d.mu.Lock()
		open, changed := d.open, d.changed
		d.mu.Unlock()
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the guest does not serve %s: %w", v1.HostPort, ctx.Err())
		}
	}
}

func (d *Device) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.open {
		conn.Close()
		return nil, errors.New("the guest closed its end of " + v1.HostPort)
	}
	d.conn = conn
	return conn, nil
}

// Status asks how the machine is.
func (d *Device) Status(ctx context.Context) (v1.State, error) {
	return ask[v1.State](ctx, d, "/v1/status")
}

// Timeline asks what the boot spent its time on.
func (d *Device) Timeline(ctx context.Context) (v1.Timeline, error) {
	return ask[v1.Timeline](ctx, d, "/v1/timeline")
}

// Memory asks who uses the memory.
func (d *Device) Memory(ctx context.Context) (v1.Memory, error) {
	return ask[v1.Memory](ctx, d, "/v1/memory")
}

// Log returns the log of a unit, named without ".service".
func (d *Device) Log(ctx context.Context, unit string) (string, error) {
	b, err := d.get(ctx, "/v1/logs/"+url.PathEscape(unit))
	return string(b), err
}

// Kubeconfig returns the administrator's kubeconfig; an error if there is none yet. An agent never has one.
func (d *Device) Kubeconfig(ctx context.Context) ([]byte, error) { return d.get(ctx, "/v1/kubeconfig") }

// Reboot asks for an orderly restart, PowerOff to switch off. They return as soon as the device agrees.
func (d *Device) Reboot(ctx context.Context) error   { return d.post(ctx, "/v1/reboot") }
func (d *Device) PowerOff(ctx context.Context) error { return d.post(ctx, "/v1/poweroff") }

// WaitReady asks for the state again and again until the machine is ready. The error says what the state was last.
func (d *Device) WaitReady(ctx context.Context) (v1.State, error) {
	return d.WaitPhase(ctx, v1.Ready)
}

// WaitPhase is as WaitReady, for any phase.
func (d *Device) WaitPhase(ctx context.Context, phase v1.Phase) (v1.State, error) {
	again := time.NewTicker(d.interval)
	defer again.Stop()
	last := "it did not answer"
	for {
		state, err := d.Status(ctx)
		switch {
		case err == nil && state.Phase == phase:
			return state, nil
		case err == nil:
			last = fmt.Sprintf("%s: %s %q", state.Phase, state.Message, state.Problems)
		case ctx.Err() == nil:
			last = err.Error()
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return v1.State{}, fmt.Errorf("the machine is not %s: %w; its last state: %s", phase, ctx.Err(), last)
		}
	}
}

func ask[T any](ctx context.Context, d *Device, path string) (T, error) {
	var answer T
	b, err := d.get(ctx, path)
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	return answer, err
}

func (d *Device) get(ctx context.Context, path string) ([]byte, error) {
	return d.do(ctx, http.MethodGet, path)
}

func (d *Device) post(ctx context.Context, path string) error {
	_, err := d.do(ctx, http.MethodPost, path)
	return err
}

// requestTime bounds one request once the guest listens: the device API answers from memory, so that this is ample on a
// busy emulated machine too.
const requestTime = time.Minute

func (d *Device) do(ctx context.Context, method, path string) ([]byte, error) {
	if err := d.WaitOpen(ctx); err != nil {
		return nil, fmt.Errorf("cannot ask the device for %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://device"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the device for %s: %w", path, err)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the device for %s: %w", path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("cannot read the device's answer to %s: %w", path, err)
	}
	if response.StatusCode/100 != 2 {
		var refusal v1.Error
		if err := json.Unmarshal(body, &refusal); err != nil || refusal.Message == "" {
			return nil, fmt.Errorf("the device answers %s to %s %s: %q", response.Status, method, path, body)
		}
		return nil, fmt.Errorf("the device answers %s to %s %s: %s; %s", response.Status, method, path, refusal.Message, refusal.Hint)
	}
	return body, nil
}
