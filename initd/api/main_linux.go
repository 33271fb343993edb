package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/net/netutil"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// Main is the process skerry-api. It takes no flags and no configuration. It serves the device API on the unix socket
// v1.SocketPath (mode 0600: root only); in a virtual machine with the virtio-serial port v1.HostPort, to the host; and
// by HTTPS on v1.Port when the image says whose certificates are accepted. It tells its supervisor READY=1 when all listen,
// and ends when ctx does, after the answers under way, or with an error when it cannot serve any more.
func Main(ctx context.Context, o Options) error {
	o.Root = "/"
	handler := New(o)
	listeners, err := listen("/")
	if err != nil {
		return err
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		slog.Warn("cannot tell the supervisor that the API is ready", "reason", err)
	}
	return serve(ctx, handler, listeners)
}

// listen opens the socket, the host's port if there is one, and the network's if somebody may use it.
func listen(root string) ([]net.Listener, error) {
	listeners, err := listenLocally(root)
	if err != nil {
		return nil, err
	}
	config, err := networkTLS(root)
	if err != nil {
		// The machine can still be asked from itself and its host what is wrong.
		slog.Error("the device API is not served on the network", "reason", err)
	}
	if config == nil {
		return listeners, nil
	}
	network, err := net.Listen("tcp", fmt.Sprintf(":%d", v1.Port))
	if err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return nil, fmt.Errorf("cannot listen on the network: %w", err)
	}
	slog.Info("serving the device API on the network", "port", v1.Port, "fingerprint", Fingerprint(config.Certificates[0].Leaf))
	return append(listeners, tls.NewListener(netutil.LimitListener(network, mostConnections), config)), nil
}

func listenLocally(root string) ([]net.Listener, error) {
	path := root + v1.SocketPath[1:]
	// What a process that was killed left behind. The supervisor runs one of us at a time.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove the old socket %s: %w", path, err)
	}
	// The socket is never open to others, not even between its creation and a chmod.
	mask := syscall.Umask(0o177)
	socket, err := net.Listen("unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	device, err := findHostPort(root, v1.HostPort)
	if errors.Is(err, fs.ErrNotExist) {
		return []net.Listener{socket}, nil
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("cannot look for the port to the host: %w", err)
	}
	slog.Info("serving the device API to the host", "port", device)
	return []net.Listener{socket, newHostPort(func() (*os.File, error) { return os.OpenFile(device, os.O_RDWR, 0) })}, nil
}

// grace is how long answers under way may take when the process is told to end.
const grace = 2 * time.Second

const (
	// headerTimeout is how long a client may take to prove who it is, and to say what it wants.
	headerTimeout = 10 * time.Second
	// mostConnections bounds what strangers on the network can make the process hold.
	mostConnections = 64
)

// serve answers on all listeners until ctx is done, and nil, or one of them fails. It closes them.
func serve(ctx context.Context, handler http.Handler, listeners []net.Listener) error {
	// Requests end with ctx too, so that a log that is followed does not use up the grace.
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout,
		// Strangers without a certificate are no news, and must not wash away what is.
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx }}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- fmt.Errorf("cannot serve the device API on %s: %w", l.Addr(), server.Serve(l)) }()
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if shutdown := server.Shutdown(last); errors.Is(shutdown, context.DeadlineExceeded) {
		server.Close()
	}
	return err
}
