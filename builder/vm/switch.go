package vm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Switch is an Ethernet switch for virtual machines on this workstation: it learns which hardware address is at which port, as real ones
// do. QEMU's own hub would not do: its router takes every frame that it sees for one that it is to pass on, and refuses the connections
// between machines.
type Switch struct {
	ports []*net.UnixConn
	names []Port

	mu    sync.Mutex
	where map[[6]byte]int // the port of a hardware address
}

// A Port of a [Switch] is the path of a socket, at which frames arrive as datagrams. What is plugged in listens at that path with
// ".plug" behind it; a port with nothing plugged in loses what is sent to it.
type Port string

func (p Port) plug() string { return string(p) + ".plug" }

// wire is QEMU's end of the port.
func (p Port) wire(id string) string {
	return fmt.Sprintf("dgram,id=%s,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", id, escape(p.plug()), escape(string(p)))
}

// NewSwitch makes a switch with sockets in folder, whose path must be short: see [PrepareSockets]. Close ends it.
func NewSwitch(folder string, ports int) (*Switch, error) {
	s := &Switch{where: map[[6]byte]int{}}
	for i := range ports {
		name := Port(filepath.Join(folder, fmt.Sprintf("port%d", i)))
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: string(name), Net: "unixgram"})
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("cannot make a port of a network switch: %w", err)
		}
		s.ports, s.names = append(s.ports, c), append(s.names, name)
	}
	for i := range s.ports {
		go s.serve(i)
	}
	return s, nil
}

// Port is the port with that number, from 0.
func (s *Switch) Port(i int) Port { return s.names[i] }

// Close takes the ports away.
func (s *Switch) Close() {
	for i, c := range s.ports {
		c.Close()
		os.Remove(string(s.names[i]))
	}
}

// largestFrame is more than any that QEMU sends: with segmentation offload they are longer than those on a wire.
const largestFrame = 1 << 17

// serve passes on what arrives at a port, until the switch is closed.
func (s *Switch) serve(port int) {
	frame := make([]byte, largestFrame)
	for {
		n, err := s.ports[port].Read(frame)
		if err != nil {
			return
		}
		if n < 14 { // an Ethernet header, IEEE 802.3
			continue
		}
		for _, to := range s.route(port, frame[:12]) {
			s.send(to, frame[:n])
		}
	}
}

// route notes where a frame comes from, and says which ports it goes to: the one of its receiver if that is known, all others if not.
func (s *Switch) route(from int, addresses []byte) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	receiver, sender := [6]byte(addresses[:6]), [6]byte(addresses[6:12])
	s.where[sender] = from
	const group = 1 // the bit of multicast and broadcast addresses
	if port, known := s.where[receiver]; known && receiver[0]&group == 0 {
		if port == from {
			return nil
		}
		return []int{port}
	}
	var others []int
	for i := range s.ports {
		if i != from {
			others = append(others, i)
		}
	}
	return others
}

// send waits a little for a machine that is slow to take its frames, and loses the frame then, as a switch does.
func (s *Switch) send(port int, frame []byte) {
	c := s.ports[port]
	if err := c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err) // Unix sockets have deadlines
	}
	_, _ = c.WriteToUnix(frame, &net.UnixAddr{Name: s.names[port].plug(), Net: "unixgram"})
}
