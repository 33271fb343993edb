package network

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/insomniacslk/dhcp/iana"
)

// client6 speaks DHCPv6 (RFC 8415) on a link: with an address if the link is Managed, else for the rest only.
type client6 struct {
	*dialer
	link Link
}

// The refresh time of what has no lease time (RFC 8415, 21.23).
const (
	usualRefresh = 24 * time.Hour
	leastRefresh = 10 * time.Minute
)

func (c *client6) modifiers(more ...dhcpv6.Modifier) []dhcpv6.Modifier {
	duid := dhcpv6.DUIDUUID(c.identity)
	return append([]dhcpv6.Modifier{
		dhcpv6.WithClientID(&duid),
		dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionNTPServer),
	}, more...)
}

func (c *client6) withClient(do func(*nclient6.Client) (*dhcpv6.Message, error)) (*Lease, error) {
	// It fails until the link-local address has passed the check for duplicates; the next attempt comes soon.
	client, err := nclient6.New(c.link.Name, nclient6.WithTimeout(2*time.Second), nclient6.WithRetry(-1))
	if err != nil {
		return nil, fmt.Errorf("cannot open a DHCPv6 socket on %s: %w", c.link.Name, err)
	}
	defer client.Close()
	asked := time.Now()
	answer, err := do(client)
	if err != nil {
		return nil, fmt.Errorf("no answer by DHCPv6 on %s: %w", c.link.Name, err)
	}
	return newLease6(answer, c.link.Managed, asked)
}

func (c *client6) Acquire(ctx context.Context) (*Lease, error) {
	return c.withClient(func(n *nclient6.Client) (*dhcpv6.Message, error) {
		if c.link.Managed {
			return n.RapidSolicit(ctx, c.modifiers(dhcpv6.WithIAID(association(c.link)))...)
		}
		return c.send(ctx, n, dhcpv6.MessageTypeInformationRequest)
	})
}

// Confirm asks whether the addresses are on this link, as Rebind also does; the answer is one that renews the lease.
func (c *client6) Confirm(ctx context.Context, l *Lease) (*Lease, error) { return c.Rebind(ctx, l) }

func (c *client6) Renew(ctx context.Context, l *Lease) (*Lease, error) {
	server := l.answer.(*dhcpv6.Message).Options.ServerID()
	return c.extend(ctx, dhcpv6.MessageTypeRenew, l, dhcpv6.WithServerID(server))
}

func (c *client6) Rebind(ctx context.Context, l *Lease) (*Lease, error) {
	return c.extend(ctx, dhcpv6.MessageTypeRebind, l)
}

func (c *client6) extend(ctx context.Context, kind dhcpv6.MessageType, l *Lease, more ...dhcpv6.Modifier) (*Lease, error) {
	if !c.link.Managed || !l.Address.IsValid() {
		return c.Acquire(ctx)
	}
	more = append(more, dhcpv6.WithIAID(association(c.link)),
		dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: l.Address.Addr().AsSlice()}))
	return c.withClient(func(n *nclient6.Client) (*dhcpv6.Message, error) { return c.send(ctx, n, kind, more...) })
}

func (c *client6) send(ctx context.Context, n *nclient6.Client, kind dhcpv6.MessageType, more ...dhcpv6.Modifier) (*dhcpv6.Message, error) {
	m, err := dhcpv6.NewMessage(c.modifiers(more...)...)
	if err != nil {
		return nil, err
	}
	m.MessageType = kind
	m.AddOption(dhcpv6.OptElapsedTime(0))
	return n.SendAndRead(ctx, n.RemoteAddr(), m, nclient6.IsMessageType(dhcpv6.MessageTypeReply))
}

// newLease6 reads a Reply.
func newLease6(m *dhcpv6.Message, managed bool, asked time.Time) (*Lease, error) {
	if err := status(m.Options.Status()); err != nil {
		return nil, err
	}
	l := &Lease{Source: DHCP, DNS: addrs(m.Options.DNS()), NTP: addrs(m.Options.NTPServers()), Acquired: asked, answer: m}
	if s := m.Options.DomainSearchList(); s != nil {
		l.Search = domains(s.Labels)
	}
	if !managed {
		refresh := max(m.Options.InformationRefreshTime(usualRefresh), leastRefresh)
		// It is asked for again at its end; until twice that the old answer is better than none.
		l.setTimes(refresh, refresh, 2*refresh)
		return l, nil
	}
	ia := m.Options.OneIANA()
	if ia == nil {
		return nil, fmt.Errorf("%w: it gives no address", errRefused)
	}
	if err := status(ia.Options.Status()); err != nil {
		return nil, err
	}
	a := ia.Options.OneAddress()
	if a == nil || a.ValidLifetime == 0 {
		return nil, fmt.Errorf("%w: it gives no address", errRefused)
	}
	address, ok := netip.AddrFromSlice(a.IPv6Addr)
	if !ok || !address.IsGlobalUnicast() {
		return nil, fmt.Errorf("the server's answer has no address for us: %s", a.IPv6Addr)
	}
	// The prefix of the link comes from router advertisements (RFC 5942, 4): the address stands alone.
	l.Address = netip.PrefixFrom(address, 128)
	if a.ValidLifetime < forever {
		l.setTimes(ia.T1, ia.T2, a.ValidLifetime)
	}
	return l, nil
}

// status reads a server's refusal.
func status(s *dhcpv6.OptStatusCode) error {
	if s == nil || s.StatusCode == iana.StatusSuccess {
		return nil
	}
	return fmt.Errorf("%w: %s %s", errRefused, s.StatusCode, s.StatusMessage)
}
