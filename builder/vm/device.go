package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Device speaks the device API over the virtio-serial port [HostPort]. The port is a byte stream without connections of its
// own: QEMU tells the guest when the host side comes and goes, and tells us when the guest opens its end. A request
// waits, as long as its context lets it, for the guest to open it.
type Device struct {
	socket string
	client *http.Client

	mu      sync.Mutex
	open    bool
	changed chan struct{} // closed and replaced when open changes
	conn    net.Conn      // the connection of the present opening
}

func newDevice(socket string) *Device {
	d := &Device{socket: socket, changed: make(chan struct{})}
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
			return fmt.Errorf("the guest does not serve %s: %w", HostPort, ctx.Err())
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
		return nil, errors.New("the guest closed its end of " + HostPort)
	}
	d.conn = conn
	return conn, nil
}

// Get returns the body of the answer to a GET of the path, such as /v1/status.
func (d *Device) Get(ctx context.Context, path string) ([]byte, error) {
	return d.do(ctx, http.MethodGet, path)
}

// Post posts nothing to the path, such as /v1/reboot.
func (d *Device) Post(ctx context.Context, path string) error {
	_, err := d.do(ctx, http.MethodPost, path)
	return err
}

// Kubeconfig returns the administrator's kubeconfig; an error if the cluster has none yet.
func (d *Device) Kubeconfig(ctx context.Context) ([]byte, error) { return d.Get(ctx, "/v1/kubeconfig") }

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
		return nil, fmt.Errorf("the device answers %s to %s %s: %s", response.Status, method, path, strings.TrimSpace(string(body)))
	}
	return body, nil
}
