package service

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// message is one datagram of sd_notify(3), with the process that the kernel says sent it.
type message struct {
	pid int
	// ready, stopping and alive are READY=1, STOPPING=1 and WATCHDOG=1.
	ready, stopping, alive bool
	// hung is WATCHDOG=trigger: the service itself found out that it hangs.
	hung bool
	// status is the text of STATUS=; nil when the message has none.
	status *string
	// mainPID is the number of MAINPID=, or 0.
	mainPID int
	// extend is how much longer from now the service needs for what it is doing (EXTEND_TIMEOUT_USEC=), or 0.
	extend time.Duration
	// mark says that it is this process' own, from mark: what was sent before has arrived.
	mark bool
}

// maxStatus bounds the text that a service can put on the console, in bytes.
const maxStatus = 200

func parseMessage(text string) message {
	var m message
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, "=")
		switch name {
		case "READY":
			m.ready = value == "1"
		case "STOPPING":
			m.stopping = value == "1"
		case "WATCHDOG":
			m.alive, m.hung = value == "1", value == "trigger"
		case "STATUS":
			value = printable(value)
			m.status = &value
		case "MAINPID":
			if pid, err := strconv.Atoi(value); err == nil && pid > 1 {
				m.mainPID = pid
			}
		case "EXTEND_TIMEOUT_USEC":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 && n <= int64(24*time.Hour/time.Microsecond) {
				m.extend = time.Duration(n) * time.Microsecond
			}
		}
		// Other assignments (ERRNO, FDSTORE, BARRIER, …) need no action: the protocol says to ignore what is not known.
	}
	return m
}

// printable keeps control characters off the console, and the text short.
func printable(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxStatus {
		s = strings.ToValidUTF8(s[:maxStatus], "")
	}
	return s
}

// notifySocket is the datagram socket that a unit's processes report to.
type notifySocket struct {
	path string
	conn *net.UnixConn
}

func listenNotify(dir, unit string) (*notifySocket, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot create directory of notification sockets: %w", err)
	}
	path := filepath.Join(dir, unit)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("cannot remove old notification socket: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cannot create notification socket: %w", err)
	}
	s := &notifySocket{path, conn}
	if err := s.wantCredentials(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot ask the kernel who writes to %s: %w", path, err)
	}
	return s, nil
}

func (s *notifySocket) wantCredentials() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }); err != nil {
		return err
	}
	return set
}

// markText is the datagram of mark. Only what this process sent counts as one.
const markText = "X_SKERRY_MARK=1"

// mark sends a message to the socket itself. Datagrams stay in order, so whoever gets it has got what was sent before.
func (s *notifySocket) mark() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(markText))
	return err
}

// receive returns the next message; it fails when the socket was closed. Datagrams without credentials are dropped.
func (s *notifySocket) receive() (message, error) {
	data, control := make([]byte, 4096), make([]byte, 1024)
	for {
		n, nc, _, _, err := s.conn.ReadMsgUnix(data, control)
		if err != nil {
			return message{}, err
		}
		pid := sender(control[:nc])
		if pid == 0 {
			continue
		}
		m := parseMessage(string(data[:n]))
		m.pid = pid
		m.mark = pid == os.Getpid() && string(data[:n]) == markText
		return m, nil
	}
}

// sender reads the process id out of the control data. File descriptors that came along are closed: nobody here keeps
// them, and for the barrier of sd_notify_barrier(3) the closing is the answer.
func sender(control []byte) (pid int) {
	parts, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0
	}
	for _, part := range parts {
		if fds, err := unix.ParseUnixRights(&part); err == nil {
			for _, fd := range fds {
				_ = syscall.Close(fd)
			}
		}
		if credentials, err := unix.ParseUnixCredentials(&part); err == nil {
			pid = int(credentials.Pid)
		}
	}
	return pid
}

func (s *notifySocket) close() { s.conn.Close() }
