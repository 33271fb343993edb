// Package discoverytest has networks in memory, on which responders and those who look for them meet.
package discoverytest

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skerryos/skerry/initd/network/discovery"
)

// A Bus is a network that links are plugged into. All that is sent to a group is heard by all who have joined it, the sender
// too. Use it inside of a testing/synctest bubble, whose time it writes into its log.
type Bus struct {
	mu    sync.Mutex
	start time.Time
	plugs []*plug
	log   strings.Builder
}

// NewBus makes a network with nothing on it.
func NewBus() *Bus { return &Bus{start: time.Now()} }

// Log is what was sent since the last call, a packet to each line and one for each part of it.
func (b *Bus) Log() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.log.Reset()
	return b.log.String()
}

// Restart empties the log, and lets its time begin anew.
func (b *Bus) Restart() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.start = time.Now()
	b.log.Reset()
}

// plug is one end of a machine's link.
type plug struct {
	machine *Machine
	link    discovery.Link
	bus     *Bus
	joined  bool
}

// A Machine is a [discovery.Network] with links on any number of buses.
type Machine struct {
	name string
	port uint16

	mu       sync.Mutex
	plugs    []*plug
	received chan discovery.Packet
	closed   chan struct{}
}

// NewMachine makes a machine without links. Its name is for the log. The port is the one that it sends from.
func NewMachine(name string, port uint16) *Machine {
	return &Machine{name: name, port: port, received: make(chan discovery.Packet, 1000), closed: make(chan struct{})}
}

// Plug gives the machine a link, or changes the addresses of one. Addresses have prefix lengths.
func (m *Machine) Plug(b *Bus, index int, addresses ...string) {
	l := discovery.Link{Index: index, Name: fmt.Sprintf("eth%d", index-1)}
	for _, a := range addresses {
		l.Addresses = append(l.Addresses, netip.MustParsePrefix(a))
	}
	m.Unplug(index)
	p := &plug{machine: m, link: l, bus: b}
	b.mu.Lock()
	b.plugs = append(b.plugs, p)
	b.mu.Unlock()
	m.mu.Lock()
	m.plugs = append(m.plugs, p)
	m.mu.Unlock()
}

// Unplug takes a link away.
func (m *Machine) Unplug(index int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plugs = slices.DeleteFunc(m.plugs, func(p *plug) bool {
		if p.link.Index != index {
			return false
		}
		p.bus.mu.Lock()
		p.bus.plugs = slices.DeleteFunc(p.bus.plugs, func(q *plug) bool { return p == q })
		p.bus.mu.Unlock()
		return true
	})
}

// Links are those that are plugged in.
func (m *Machine) Links() ([]discovery.Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var links []discovery.Link
	for _, p := range m.plugs {
		links = append(links, p.link)
	}
	return links, nil
}

// Join lets the machine hear what is said to the groups on a link.
func (m *Machine) Join(l discovery.Link) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.plugs {
		if p.link.Index == l.Index {
			p.bus.mu.Lock()
			p.joined = true
			p.bus.mu.Unlock()
			return nil
		}
	}
	return fmt.Errorf("there is no link %s", l.Name)
}

// Receive waits for a packet.
func (m *Machine) Receive() (discovery.Packet, error) {
	select {
	case p := <-m.received:
		return p, nil
	case <-m.closed:
		return discovery.Packet{}, net.ErrClosed
	}
}

// Send sends a packet from the link's first address of the family.
func (m *Machine) Send(link int, to netip.AddrPort, data []byte) error {
	m.mu.Lock()
	i := slices.IndexFunc(m.plugs, func(p *plug) bool { return p.link.Index == link })
	if i < 0 {
		m.mu.Unlock()
		return fmt.Errorf("there is no link %d", link)
	}
	p := m.plugs[i]
	m.mu.Unlock()
	j := slices.IndexFunc(p.link.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == to.Addr().Is4() })
	if j < 0 {
		return fmt.Errorf("%s has no address to speak to %s from", p.link.Name, to)
	}
	return p.bus.Inject(m.name, netip.AddrPortFrom(p.link.Addresses[j].Addr(), m.port), to, data)
}

// Inject sends a packet from wherever it is said to come from.
func (b *Bus) Inject(who string, from, to netip.AddrPort, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	where := to.String()
	if to.Addr().IsMulticast() {
		where = "all"
	}
	text := fmt.Sprintf("%d damaged bytes\n", len(data))
	if m, err := discovery.Parse(data); err == nil {
		text = m.String()
	}
	fmt.Fprintf(&b.log, "%.2f s %s %s to %s: %s", time.Since(b.start).Seconds(), who, from.Addr(), where, text)
	for _, p := range b.plugs {
		if !p.joined || !to.Addr().IsMulticast() && !slices.ContainsFunc(p.link.Addresses, func(a netip.Prefix) bool { return a.Addr() == to.Addr() }) {
			continue
		}
		packet := discovery.Packet{Link: p.link.Index, Peer: from, Multicast: to.Addr().IsMulticast(), Data: slices.Clone(data)}
		select {
		case p.machine.received <- packet:
		default: // as a full socket does
		}
	}
	return nil
}

// Close ends Receive.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
	default:
		close(m.closed)
	}
	return nil
}
