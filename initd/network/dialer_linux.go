package network

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/mdlayher/packet"
)

// dialer makes the clients of a real network.
type dialer struct {
	hostname string
	identity identity
}

// identity is the machine's DHCP unique identifier: a DUID-UUID (RFC 6355) from a hash of the machine id, because a machine
// id is not to be shown on a network (machine-id(5)).
type identity dhcpv6.DUIDUUID

func newIdentity(machineID string) identity {
	hash := sha256.Sum256([]byte("skerry dhcp " + machineID))
	return identity{UUID: [16]byte(hash[:16])}
}

// association is the IAID of a link: the same on every boot, another one for each link of a machine.
func association(l Link) (iaid [4]byte) {
	hash := sha256.Sum256(l.MAC)
	copy(iaid[:], hash[:])
	return iaid
}

func (d *dialer) dhcp4(l Link) exchanger { return &client4{d, l} }
func (d *dialer) dhcp6(l Link) exchanger { return &client6{d, l} }

// The probes of RFC 3927, 2.2.1, with shorter waits: the RFC's are for links of its time, and nothing else gives the
// machine an address while they last.
const (
	probes        = 3
	leastProbe    = 150 * time.Millisecond
	longestProbe  = 300 * time.Millisecond
	linkLocalTrys = 10 // MAX_CONFLICTS
)

// linkLocal finds a free address: first the one that the machine's identity and the link lead to, so that it is the same on
// every boot.
func (d *dialer) linkLocal(ctx context.Context, l Link) (netip.Addr, error) {
	seed := sha256.Sum256(append(d.identity.UUID[:], l.MAC...))
	choose := rand.New(rand.NewChaCha8(seed))
	for range linkLocalTrys {
		// 169.254.1.0 to 169.254.254.255: the first and last 256 are reserved (RFC 3927, 2.1).
		n := 256 + choose.IntN(65536-512)
		a := netip.AddrFrom4([4]byte{169, 254, byte(n >> 8), byte(n)})
		taken, err := probe(ctx, l, a)
		if err != nil {
			return netip.Addr{}, err
		}
		if !taken {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("cannot find a free link-local address on %s: %d are taken", l.Name, linkLocalTrys)
}

const etherTypeARP = 0x0806

// probe asks by ARP whether somebody on the link has an address.
func probe(ctx context.Context, l Link, a netip.Addr) (taken bool, err error) {
	cannot := func(err error) error { return fmt.Errorf("cannot probe for %s on %s: %w", a, l.Name, err) }
	conn, err := packet.Listen(&net.Interface{Index: l.Index, Name: l.Name}, packet.Datagram, etherTypeARP, nil)
	if err != nil {
		return false, cannot(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	request := arpProbe(l.MAC, a)
	reply := make([]byte, 128)
	for range probes {
		broadcast := &packet.Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
		if _, err := conn.WriteTo(request, broadcast); err != nil {
			return false, cannot(err)
		}
		wait := leastProbe + rand.N(longestProbe-leastProbe)
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return false, cannot(err)
		}
		for {
			n, _, err := conn.ReadFrom(reply)
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				break
			}
			if err != nil {
				return false, cannot(err)
			}
			if arpClaims(reply[:n], l.MAC, a) {
				return true, nil
			}
		}
	}
	return false, nil
}

// arpProbe is a request for an address from one that has none yet (RFC 5227, 1.1; the format is RFC 826's).
func arpProbe(mac net.HardwareAddr, a netip.Addr) []byte {
	b := make([]byte, 28)
	binary.BigEndian.PutUint16(b[0:], 1)      // Ethernet
	binary.BigEndian.PutUint16(b[2:], 0x0800) // IPv4
	b[4], b[5] = 6, 4                         // lengths of their addresses
	binary.BigEndian.PutUint16(b[6:], 1)      // request
	copy(b[8:14], mac)
	ip := a.As4()
	copy(b[24:], ip[:])
	return b
}

// arpClaims says that a packet is from another machine that has the address, or that probes for it too.
func arpClaims(b []byte, mac net.HardwareAddr, a netip.Addr) bool {
	if len(b) < 28 || b[4] != 6 || b[5] != 4 || string(b[8:14]) == string(mac) {
		return false
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	return sender == a || sender.IsUnspecified() && target == a
}
