package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// client4 speaks DHCPv4 (RFC 2131) on a link. It has a socket only while it speaks.
type client4 struct {
	*dialer
	link Link
}

// requested are the options that are asked for.
var requested = []dhcpv4.OptionCode{
	dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionDomainNameServer,
	dhcpv4.OptionDomainName, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionNTPServers, dhcpv4.OptionInterfaceMTU,
	dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
}

// modifiers are what every message says about us.
func (c *client4) modifiers(more ...dhcpv4.Modifier) []dhcpv4.Modifier {
	iaid := association(c.link)
	duid := dhcpv6.DUIDUUID(c.identity)
	// RFC 4361, 6.1: type 255, IAID, DUID: the same client for both families.
	id := slices.Concat([]byte{255}, iaid[:], duid.ToBytes())
	m := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(id)),
		dhcpv4.WithOption(dhcpv4.OptParameterRequestList(requested...)),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(nclient4.MaxMessageSize)),
	}
	if c.hostname != "" {
		m = append(m, dhcpv4.WithOption(dhcpv4.OptHostName(c.hostname)))
	}
	return append(m, more...)
}

// withClient opens a client for one exchange, which sends again every 2 seconds while ctx lets it.
func (c *client4) withClient(ctx context.Context, options []nclient4.ClientOpt, do func(*nclient4.Client) (*Lease, error)) (*Lease, error) {
	options = append(options, nclient4.WithHWAddr(c.link.MAC), nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(-1))
	client, err := nclient4.New(c.link.Name, options...)
	if err != nil {
		return nil, fmt.Errorf("cannot open a DHCP socket on %s: %w", c.link.Name, err)
	}
	defer client.Close()
	lease, err := do(client)
	if _, ok := errors.AsType[*nclient4.ErrNak](err); ok {
		return nil, fmt.Errorf("%w (%w)", errRefused, err)
	}
	if err != nil {
		return nil, fmt.Errorf("no DHCP lease on %s: %w", c.link.Name, err)
	}
	return lease, nil
}

func (c *client4) Acquire(ctx context.Context) (*Lease, error) {
	return c.withClient(ctx, nil, func(n *nclient4.Client) (*Lease, error) {
		asked := time.Now()
		l, err := n.Request(ctx, c.modifiers()...)
		if err != nil {
			return nil, err
		}
		return newLease4(l.ACK, asked)
	})
}

// Confirm asks for the address again, of any server, before it is used (RFC 2131, table 5, INIT-REBOOT).
func (c *client4) Confirm(ctx context.Context, l *Lease) (*Lease, error) {
	request, err := dhcpv4.New(c.modifiers(
		dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(c.link.MAC),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(l.Address.Addr().AsSlice())))...)
	if err != nil {
		return nil, err
	}
	return c.withClient(ctx, nil, c.ask(ctx, request))
}

// Renew asks the server, by unicast from the address.
func (c *client4) Renew(ctx context.Context, l *Lease) (*Lease, error) {
	ack := l.answer.(*dhcpv4.DHCPv4)
	request, err := c.extend(l)
	if err != nil {
		return nil, err
	}
	return c.withClient(ctx, []nclient4.ClientOpt{
		nclient4.WithUnicast(&net.UDPAddr{IP: l.Address.Addr().AsSlice(), Port: nclient4.ClientPort}),
		nclient4.WithServerAddr(&net.UDPAddr{IP: ack.ServerIdentifier(), Port: nclient4.ServerPort}),
	}, c.ask(ctx, request))
}

// Rebind asks all servers, by broadcast.
func (c *client4) Rebind(ctx context.Context, l *Lease) (*Lease, error) {
	request, err := c.extend(l)
	if err != nil {
		return nil, err
	}
	return c.withClient(ctx, nil, c.ask(ctx, request))
}

// extend is the request of RENEWING and REBINDING: the address is in ciaddr, no server is named (RFC 2131, table 5).
func (c *client4) extend(l *Lease) (*dhcpv4.DHCPv4, error) {
	return dhcpv4.New(c.modifiers(
		dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(c.link.MAC),
		dhcpv4.WithClientIP(l.Address.Addr().AsSlice()))...)
}

// ask sends a request and reads its answer.
func (c *client4) ask(ctx context.Context, request *dhcpv4.DHCPv4) func(*nclient4.Client) (*Lease, error) {
	return func(n *nclient4.Client) (*Lease, error) {
		asked := time.Now()
		answer, err := n.SendAndRead(ctx, n.RemoteAddr(), request, nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
		if err != nil {
			return nil, err
		}
		if answer.MessageType() == dhcpv4.MessageTypeNak {
			return nil, &nclient4.ErrNak{Nak: answer}
		}
		return newLease4(answer, asked)
	}
}

// forever is the lease time that never ends (RFC 2131, 3.3).
const forever = (1<<32 - 1) * time.Second

// newLease4 reads a DHCPACK.
func newLease4(ack *dhcpv4.DHCPv4, asked time.Time) (*Lease, error) {
	address, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || address.IsUnspecified() || address.IsMulticast() || address.IsLoopback() {
		return nil, fmt.Errorf("the server's answer has no address for us: %s", ack.YourIPAddr)
	}
	ones, bits := ack.SubnetMask().Size()
	if bits != 32 || ones == 0 {
		ones, _ = net.IP(ack.YourIPAddr).DefaultMask().Size() // RFC 2132, 3.3, leaves the option out
	}
	l := &Lease{
		Source: DHCP, Address: netip.PrefixFrom(address, ones), answer: ack,
		DNS: addrs(ack.DNS()), NTP: addrs(ack.NTPServers()), Routes: routes(ack), Acquired: asked,
	}
	if s := ack.DomainSearch(); s != nil {
		l.Search = domains(s.Labels)
	}
	if len(l.Search) == 0 {
		l.Search = domains([]string{ack.DomainName()})
	}
	if mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(mtu) == 2 {
		l.MTU = int(mtu[0])<<8 | int(mtu[1])
	}
	lifetime := ack.IPAddressLeaseTime(0)
	if lifetime == 0 {
		return nil, errors.New("the server's answer has no lease time")
	}
	if lifetime < forever {
		l.setTimes(ack.IPAddressRenewalTime(0), ack.IPAddressRebindingTime(0), lifetime)
	}
	return l, nil
}

// setTimes takes a server's times, or the usual ones if they are missing or out of order (RFC 2131, 4.4.5).
func (l *Lease) setTimes(renew, rebind, expire time.Duration) {
	if rebind <= 0 || rebind > expire {
		rebind = expire * 7 / 8
	}
	if renew <= 0 || renew > rebind {
		renew = min(expire/2, rebind)
	}
	l.Renew, l.Rebind, l.Expire = renew, rebind, expire
}

// routes are the classless ones or, only when there are none, the default one (RFC 3442).
func routes(ack *dhcpv4.DHCPv4) []Route {
	var list []Route
	for _, r := range ack.ClasslessStaticRoute() {
		dst, ok := toPrefix(r.Dest)
		if !ok {
			continue
		}
		route := Route{Dst: dst.Masked()}
		if gateway := toAddr(r.Router); gateway.IsValid() && !gateway.IsUnspecified() {
			route.Gateway = gateway
		}
		list = append(list, route)
	}
	if list == nil {
		for _, gateway := range addrs(ack.Router()) {
			return []Route{{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Gateway: gateway}}
		}
	}
	return list
}

// addrs leaves out what cannot be an address of another machine.
func addrs(ips []net.IP) []netip.Addr {
	var list []netip.Addr
	for _, ip := range ips {
		if a := toAddr(ip); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
			list = append(list, a)
		}
	}
	return list
}

// domains leaves out what is not a domain name: a server's word goes into resolv.conf, where a line feed would begin an
// entry of its own.
func domains(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return !domain.MatchString(s) })
}
