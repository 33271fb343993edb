package vm

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// A plug is what a test has plugged into a port.
type plug struct {
	t    *testing.T
	conn *net.UnixConn
	port Port
}

func plugIn(t *testing.T, port Port) plug {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: port.plug(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return plug{t, c, port}
}

func (p plug) send(frame []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUnix(frame, &net.UnixAddr{Name: string(p.port), Net: "unixgram"}); err != nil {
		p.t.Fatal(err)
	}
}

func (p plug) wants(frame []byte) {
	p.t.Helper()
	got := make([]byte, 2000)
	if err := p.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	n, err := p.conn.Read(got)
	if err != nil || !bytes.Equal(got[:n], frame) {
		p.t.Errorf("port %s got %x, %v; want %x", p.port, got[:n], err, frame)
	}
}

// frame is one from a hardware address to another, each a digit.
func frame(to, from byte, text string) []byte {
	return append([]byte{0x52, 0, 0, 0, 0, to, 0x52, 0, 0, 0, 0, from, 0x88, 0xb5}, text...)
}

func TestSwitch(t *testing.T) {
	folder, remove, err := PrepareSockets()
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	s, err := NewSwitch(folder, 4)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := plugIn(t, s.Port(0)), plugIn(t, s.Port(1)), plugIn(t, s.Port(2)) // nothing is in the fourth

	a.send(frame(2, 1, "to whom nobody knows yet"))
	b.wants(frame(2, 1, "to whom nobody knows yet"))
	c.wants(frame(2, 1, "to whom nobody knows yet"))
	b.send(frame(1, 2, "back"))
	a.wants(frame(1, 2, "back"))
	a.send(frame(2, 1, "known"))
	b.wants(frame(2, 1, "known"))
	a.send([]byte("no frame"))
	all := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, frame(0, 1, "to all")[6:]...)
	a.send(all)
	// The next that c gets is this: what was between a and b did not come here.
	b.wants(all)
	c.wants(all)
	// Who is plugged in elsewhere is found there.
	c.send(frame(2, 1, "from another port"))
	b.wants(frame(2, 1, "from another port"))
	b.send(frame(1, 2, "there"))
	c.wants(frame(1, 2, "there"))

	s.Close()
	if _, err := os.Stat(string(s.Port(0))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of a closed switch: %v", err)
	}
}
