package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A hostPort makes a listener of a virtio-serial port, the byte stream between a virtual machine and its host. The port has
// no connections of its own; what the driver (drivers/char/virtio_console.c) has is this:
//
//   - Opening the port tells the host that the guest listens, closing it that it does not.
//   - While no host is connected, poll reports POLLHUP, a read returns 0 bytes and a write waits.
//   - Closing drops what was received and not read.
//
// So a connection begins with the first byte from a host and ends when the host goes away. The port is then closed and
// opened anew, which drops what was left and tells the host that the next connection can begin: a host that waits for
// that can never get the answer to an earlier request.
type hostPort struct {
	open   func() (*os.File, error)
	free   chan struct{} // holds a token while there is no connection
	closed chan struct{}

	mu      sync.Mutex
	waiting *os.File // opened, no host yet
	ended   bool
}

// newHostPort listens on what open opens, again for each connection.
func newHostPort(open func() (*os.File, error)) *hostPort {
	l := &hostPort{open: open, free: make(chan struct{}, 1), closed: make(chan struct{})}
	l.free <- struct{}{}
	return l
}

// findHostPort returns the device of the virtio-serial port called name; fs.ErrNotExist if the machine has none, as any
// real one. Ports are vportNpM in sysfs and in devtmpfs; without udev nothing links their names.
func findHostPort(root, name string) (string, error) {
	names, err := filepath.Glob(filepath.Join(root, "/sys/class/virtio-ports/*/name"))
	if err != nil {
		return "", err
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err == nil && strings.TrimSpace(string(b)) == name {
			return filepath.Join(root, "/dev", filepath.Base(filepath.Dir(n))), nil
		}
	}
	return "", fmt.Errorf("no virtio-serial port is called %s: %w", name, fs.ErrNotExist)
}

// Accept waits for the end of the connection before, then for a host that sends.
func (l *hostPort) Accept() (net.Conn, error) {
	select {
	case <-l.free:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	f, err := l.open()
	if err != nil {
		l.free <- struct{}{}
		return nil, err
	}
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		f.Close()
		return nil, net.ErrClosed
	}
	l.waiting = f
	l.mu.Unlock()
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Read(hostSends)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = nil
	if l.ended {
		f.Close()
		return nil, net.ErrClosed
	}
	if err != nil {
		f.Close()
		l.free <- struct{}{}
		return nil, fmt.Errorf("cannot wait for the host on %s: %w", f.Name(), err)
	}
	return &hostConn{file: f, raw: raw, done: sync.OnceFunc(func() { l.free <- struct{}{} })}, nil
}

// hostSends says that a host is connected and has sent something. The runtime calls it once, and again whenever the port
// changes (it polls edge-triggered): POLLHUP, which a plain poll would report without end, costs nothing.
func hostSends(fd uintptr) bool {
	events := pollNow(fd)
	return events&unix.POLLIN != 0 && events&unix.POLLHUP == 0
}

// pollNow returns what poll(2) reports at this moment.
func pollNow(fd uintptr) int16 {
	set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	for {
		_, err := unix.Poll(set, 0)
		if !errors.Is(err, unix.EINTR) {
			return set[0].Revents
		}
	}
}

// Close ends the listener; a connection goes on.
func (l *hostPort) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	l.ended = true
	close(l.closed)
	if l.waiting != nil {
		return l.waiting.Close() // ends the wait
	}
	return nil
}

func (l *hostPort) Addr() net.Addr { return hostAddr{} }

// hostConn is the port from a host's first byte until it goes away. The file is not embedded: its ReadFrom would be found
// by net/http and go round Write.
type hostConn struct {
	file *os.File
	raw  syscall.RawConn
	done func()
}

// Read returns io.EOF when the host is gone.
func (c *hostConn) Read(b []byte) (int, error) { return c.file.Read(b) }

// Write fails with EPIPE when the host is gone. The driver would wait for the next host and hand it the rest of an answer
// that was not meant for it.
func (c *hostConn) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		var n int
		var err error
		wait := c.raw.Write(func(fd uintptr) bool {
			if pollNow(fd)&unix.POLLHUP != 0 {
				err = unix.EPIPE
				return true
			}
			n, err = unix.Write(int(fd), b[written:])
			return !errors.Is(err, unix.EAGAIN)
		})
		if wait != nil {
			return written, wait
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return written, fmt.Errorf("cannot write to the host: %w", err)
		}
		written += n
	}
	return written, nil
}

// Close makes way for the next connection.
func (c *hostConn) Close() error {
	err := c.file.Close()
	c.done()
	return err
}

func (c *hostConn) LocalAddr() net.Addr                { return hostAddr{} }
func (c *hostConn) RemoteAddr() net.Addr               { return hostAddr{} }
func (c *hostConn) SetDeadline(t time.Time) error      { return c.file.SetDeadline(t) }
func (c *hostConn) SetReadDeadline(t time.Time) error  { return c.file.SetReadDeadline(t) }
func (c *hostConn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// hostAddr is the address of both ends.
type hostAddr struct{}

func (hostAddr) Network() string { return "virtio-serial" }
func (hostAddr) String() string  { return "host" }
