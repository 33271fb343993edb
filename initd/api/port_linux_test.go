package api

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakePort stands for the driver: each opening of the port appears on hosts as a host that can connect by using it.
type fakePort struct{ hosts chan *os.File }

func (p *fakePort) open() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p.hosts <- os.NewFile(uintptr(fds[1]), "host")
	return os.NewFile(uintptr(fds[0]), "port"), nil
}

// client returns a client on the next opening of the port, and how to go away.
func (p *fakePort) client(t *testing.T) (*http.Client, func()) {
	host := <-p.hosts
	conn, err := net.FileConn(host)
	if err != nil {
		t.Fatal(err)
	}
	host.Close()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }, MaxConnsPerHost: 1}
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}, func() { conn.Close() }
}

func TestHostPort(t *testing.T) {
	port := &fakePort{hosts: make(chan *os.File, 1)}
	left := make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) })
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		left <- context.Cause(r.Context())
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- serve(ctx, mux, []net.Listener{newHostPort(port.open)}) }()

	// Two requests on one connection, then a host that goes away in the middle of an answer.
	client, leave := port.client(t)
	for range 2 {
		get(t, client, "/hello", "hello")
	}
	response, err := client.Get("http://device/wait")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	response.Body.Close()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler was told %v", err)
	}
	// The port is opened anew for the next one.
	client, leave = port.client(t)
	get(t, client, "/hello", "hello")
	leave()

	<-port.hosts // waits for a host again
	stop()
	if err := <-served; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func get(t *testing.T, client *http.Client, path, want string) {
	t.Helper()
	response, err := client.Get("http://device" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b := make([]byte, 100)
	n, _ := response.Body.Read(b)
	if string(b[:n]) != want {
		t.Errorf("got %q, want %q", b[:n], want)
	}
}

// An answer must not wait for the next host when its own is gone.
func TestHostPortWriteAfterHangup(t *testing.T) {
	port := &fakePort{hosts: make(chan *os.File, 1)}
	l := newHostPort(port.open)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	host := <-port.hosts
	if _, err := host.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	defer c.Close()
	host.Close()
	if _, err := c.Write([]byte("answer")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}

func TestFindHostPort(t *testing.T) {
	root := device(t, map[string]string{
		"/sys/class/virtio-ports/vport1p0/name": "console\n",
		"/sys/class/virtio-ports/vport2p1/name": "org.skerry.host.0\n",
	})
	if got, err := findHostPort(root, "org.skerry.host.0"); err != nil || got != filepath.Join(root, "/dev/vport2p1") {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := findHostPort(root, "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it does not exist", err)
	}
}

// The socket is for root alone, and one left behind does not stop the next process.
func TestListen(t *testing.T) {
	root := t.TempDir() + "/"
	if err := os.MkdirAll(root+"run/skerry", 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		listeners, err := listen(root)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(root + "run/skerry/api.sock")
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket has %v, %v", info.Mode(), err)
		}
		listeners[0].(*net.UnixListener).SetUnlinkOnClose(false)
		listeners[0].Close()
	}
}
