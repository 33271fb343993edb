package discovery

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// hopLimit is that of all packets (RFC 6762, 11).
const hopLimit = 255

// sockets are a Network of the machine that the process runs on: one socket for each family.
type sockets struct {
	four *ipv4.PacketConn // nil: the machine has no such family
	six  *ipv6.PacketConn
	// joined are the memberships, by the link's index; they end with the link.
	joined map[int]membership

	received chan Packet
	failed   chan error
	closed   chan struct{}
	once     sync.Once
}

type membership struct{ four, six bool }

// Open listens on the port of multicast DNS, which other programs may use at the same time. It fails if that cannot be done
// with either family.
func Open() (Network, error) { return open(Port) }

// OpenAside is for those who only ask, where [Open] fails: it has a port of its own, which responders then answer to.
func OpenAside() (Network, error) { return open(0) }

func open(port int) (Network, error) {
	s := &sockets{joined: map[int]membership{}, received: make(chan Packet), failed: make(chan error, 2), closed: make(chan struct{})}
	// A socket that is opened for a multicast address is bound to all addresses, and shares its port.
	conn4, err4 := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: port})
	if err4 == nil {
		s.four = ipv4.NewPacketConn(conn4)
		err4 = errors.Join(s.four.SetMulticastTTL(hopLimit), s.four.SetTTL(hopLimit), s.four.SetMulticastLoopback(true),
			s.four.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true))
	}
	conn6, err6 := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP("ff02::"), Port: port})
	if err6 == nil {
		s.six = ipv6.NewPacketConn(conn6)
		err6 = errors.Join(s.six.SetMulticastHopLimit(hopLimit), s.six.SetHopLimit(hopLimit), s.six.SetMulticastLoopback(true),
			s.six.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true))
	}
	if err4 != nil && s.four != nil {
		s.four.Close()
		s.four = nil
	}
	if err6 != nil && s.six != nil {
		s.six.Close()
		s.six = nil
	}
	if s.four == nil && s.six == nil {
		return nil, fmt.Errorf("cannot listen for multicast DNS on UDP port %d: %w", port, errors.Join(err4, err6))
	}
	if s.four != nil {
		go s.read(s.read4)
	}
	if s.six != nil {
		go s.read(s.read6)
	}
	return s, nil
}

func (s *sockets) Links() ([]Link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list the network links: %w", err)
	}
	maps.DeleteFunc(s.joined, func(index int, _ membership) bool {
		return !slices.ContainsFunc(all, func(i net.Interface) bool { return i.Index == index })
	})
	const need = net.FlagUp | net.FlagMulticast
	var links []Link
	for _, i := range all {
		if i.Flags&(need|net.FlagLoopback) != need {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		l := Link{Index: i.Index, Name: i.Name}
		for _, a := range addresses {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			if ok {
				l.Addresses = append(l.Addresses, netip.PrefixFrom(ip.Unmap(), ones))
			}
		}
		links = append(links, l)
	}
	return links, nil
}

// Join joins the group of each family; a link that has only one of them is joined with that one.
func (s *sockets) Join(l Link) error {
	i := &net.Interface{Index: l.Index, Name: l.Name}
	j := s.joined[l.Index]
	var err4, err6 error
	if s.four != nil && !j.four {
		err4 = s.four.JoinGroup(i, &net.UDPAddr{IP: Group4.Addr().AsSlice()})
		j.four = err4 == nil
	}
	if s.six != nil && !j.six {
		err6 = s.six.JoinGroup(i, &net.UDPAddr{IP: Group6.Addr().AsSlice()})
		j.six = err6 == nil
	}
	s.joined[l.Index] = j
	if !j.four && !j.six {
		return fmt.Errorf("cannot listen to multicast on %s: %w", l.Name, errors.Join(err4, err6))
	}
	return nil
}

// read hands on packets until the socket is closed or fails.
func (s *sockets) read(next func([]byte) (Packet, error)) {
	buffer := make([]byte, MaxPacket)
	for {
		p, err := next(buffer)
		if err != nil {
			s.failed <- err // has room for both families
			return
		}
		if p.Link == 0 {
			continue
		}
		p.Data = append([]byte(nil), p.Data...)
		select {
		case s.received <- p:
		case <-s.closed:
			return
		}
	}
}

func (s *sockets) read4(b []byte) (Packet, error) {
	n, cm, from, err := s.four.ReadFrom(b)
	if err != nil || cm == nil {
		return Packet{}, err
	}
	return Packet{Link: cm.IfIndex, Peer: peer(from), Multicast: cm.Dst.IsMulticast(), Data: b[:n]}, nil
}

func (s *sockets) read6(b []byte) (Packet, error) {
	n, cm, from, err := s.six.ReadFrom(b)
	if err != nil || cm == nil {
		return Packet{}, err
	}
	return Packet{Link: cm.IfIndex, Peer: peer(from), Multicast: cm.Dst.IsMulticast(), Data: b[:n]}, nil
}

func peer(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

func (s *sockets) Receive() (Packet, error) {
	select {
	case p := <-s.received:
		return p, nil
	case err := <-s.failed:
		return Packet{}, fmt.Errorf("cannot hear multicast DNS any more: %w", err)
	case <-s.closed:
		return Packet{}, net.ErrClosed
	}
}

func (s *sockets) Send(link int, to netip.AddrPort, data []byte) error {
	var err error
	switch {
	case to.Addr().Is4() && s.four != nil:
		_, err = s.four.WriteTo(data, &ipv4.ControlMessage{IfIndex: link}, net.UDPAddrFromAddrPort(to))
	case to.Addr().Is6() && s.six != nil:
		_, err = s.six.WriteTo(data, &ipv6.ControlMessage{IfIndex: link}, net.UDPAddrFromAddrPort(to))
	default:
		err = errors.New("the machine has no such addresses")
	}
	if err != nil {
		return fmt.Errorf("cannot send to %s: %w", to, err)
	}
	return nil
}

func (s *sockets) Close() error {
	s.once.Do(func() { close(s.closed) })
	var errs []error
	if s.four != nil {
		errs = append(errs, s.four.Close())
	}
	if s.six != nil {
		errs = append(errs, s.six.Close())
	}
	return errors.Join(errs...)
}
