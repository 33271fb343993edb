// Package network keeps the machine reachable: loopback and every wired link up, an IPv4 address by DHCP or, when nobody
// answers, a link-local one, IPv6 by router advertisements and, where they ask for it, DHCPv6; resolv.conf from what was
// learned. What an operator has configured for a link takes the place of that, or comes besides.
//
// It runs in process 1 for as long as the machine does. It compares what should be with what the kernel has, each time
// that the kernel or a lease changes, so that a missed event or a hand that removed an address heals by itself. Addresses
// and routes that others made on its links (a virtual address of a load balancer, a route of a CNI plugin) are left alone.
//
// It needs root, /proc and /sys; IPv6 forwarding may be on.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// Options are what a Manager is made of.
type Options struct {
	// Hostname is told to DHCP servers.
	Hostname string
	// MachineID (machine-id(5)) identifies the machine to DHCP servers, hashed, whatever its hardware addresses are.
	MachineID string
	// ResolvConf is the path of the file that is written for resolvers. Empty: none.
	ResolvConf string
	// Configured is what operators want of links, by name.
	Configured map[string]Configured
	// Kernel is NewKernel's, or a test's.
	Kernel Kernel
	// OnChange is told each new State, from the goroutine of Run: it must not block. It may be nil.
	OnChange func(State)

	// clients makes the DHCP clients; nil means the real ones.
	clients clientMaker
}

// Configured is what a link has besides what the network offers.
type Configured struct {
	// DHCP4: an IPv4 address is asked for. A link that is not configured asks for one, too.
	DHCP4     bool
	Addresses []netip.Prefix
	// Routes have a gateway. Metric 0 stands for that of the link; Src and OnLink follow from the addresses, unless OnLink is set.
	Routes []Route
	DNS    []netip.Addr
	Search []string
	MTU    int // 0: what the network says
}

// A clientMaker makes what talks DHCP on a link.
type clientMaker interface {
	dhcp4(Link) exchanger
	// dhcp6 asks for an address too if the link is Managed, else only for the name servers and such.
	dhcp6(Link) exchanger
	// linkLocal returns an address of 169.254.0.0/16 that nobody on the link has.
	linkLocal(context.Context, Link) (netip.Addr, error)
}

// A Manager keeps the network. Make it with New; Run does all the work.
type Manager struct {
	Options
	links     map[int]*managed
	reports   chan report
	published State
	resolv    string // what ResolvConf has
}

// managed is what is known of a wired link beyond the kernel's knowledge of it.
type managed struct {
	seen   Link
	leases [2]*Lease // by family
	// stop ends the present client of a family.
	stop [2]context.CancelFunc
	// generation tells the reports of the present client from those of the one before.
	generation [2]int
	// owned are the addresses that we made.
	owned []netip.Prefix
	// dns are the name servers of router advertisements, until dnsUntil.
	dns      []netip.Addr
	dnsUntil time.Time
}

// Families, as indices.
const (
	v4 = iota
	v6
)

// A report is a client's new lease, nil when it has none any more.
type report struct {
	link, family, generation int
	lease                    *Lease
}

// New makes a Manager that does nothing yet.
func New(o Options) *Manager {
	if o.OnChange == nil {
		o.OnChange = func(State) {}
	}
	if o.clients == nil {
		o.clients = &dialer{hostname: o.Hostname, identity: newIdentity(o.MachineID)}
	}
	return &Manager{Options: o, links: map[int]*managed{}, reports: make(chan report)}
}

// calm is the least time between two comparisons: a machine that starts a hundred pods changes its links hundreds of
// times a second. The first change after a calm is acted upon at once.
const calm = 100 * time.Millisecond

// Run keeps the network until ctx is done, and then returns nil; or it fails because it cannot watch the kernel. What is
// configured stays in either case, and Run may be called again.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer m.stopClients()
	// Watched before the first look, so that nothing falls in between.
	events, err := m.Kernel.Watch(ctx)
	if err != nil {
		return fmt.Errorf("cannot watch the network: %w", err)
	}
	var last time.Time
	look := time.NewTimer(0)
	defer look.Stop()
	soon := func() { look.Reset(max(0, calm-time.Since(last))) }
	for {
		select {
		case e, open := <-events:
			if !open {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("cannot watch the network any more: the kernel ended the subscription")
			}
			m.advertised(e)
			soon()
		case r := <-m.reports:
			if l := m.links[r.link]; l != nil && l.generation[r.family] == r.generation {
				l.leases[r.family] = r.lease
				look.Reset(0)
			}
		case <-look.C:
			last = time.Now()
			if err := m.reconcile(ctx); err != nil {
				slog.Error("the network is not as it should be; trying again", "reason", err)
				look.Reset(time.Second)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// reconcile looks at all links and makes them as they should be. It goes on after a link that cannot be mended.
func (m *Manager) reconcile(ctx context.Context) error {
	links, err := m.Kernel.Links()
	if err != nil {
		return fmt.Errorf("cannot list the network links: %w", err)
	}
	var errs []error
	here := map[int]bool{}
	for _, l := range links {
		if l.Loopback && !l.Up {
			errs = append(errs, m.Kernel.Prepare(l))
		}
		if !l.Wired {
			continue
		}
		here[l.Index] = true
		errs = append(errs, m.reconcileLink(ctx, l))
	}
	for index, l := range m.links {
		if !here[index] {
			slog.Info("a network link went away", "link", l.seen.Name)
			l.end(v4)
			l.end(v6)
			delete(m.links, index)
		}
	}
	// The state is what the kernel has now, not what it was asked for.
	if links, err = m.Kernel.Links(); err != nil {
		return errors.Join(append(errs, fmt.Errorf("cannot list the network links: %w", err))...)
	}
	errs = append(errs, m.publish(links))
	return errors.Join(errs...)
}

// reconcileLink makes one link as it should be.
func (m *Manager) reconcileLink(ctx context.Context, l Link) error {
	known := m.links[l.Index]
	if known == nil {
		known = &managed{}
		m.links[l.Index] = known
		slog.Info("a network link", "link", l.Name, "address", l.MAC)
		if err := m.Kernel.Prepare(l); err != nil {
			delete(m.links, l.Index) // so that it is tried again
			return fmt.Errorf("cannot bring %s up: %w", l.Name, err)
		}
	} else if !l.Up {
		if err := m.Kernel.Prepare(l); err != nil {
			return fmt.Errorf("cannot bring %s up: %w", l.Name, err)
		}
	}
	before := known.seen
	known.seen = l
	// A cable that was plugged in may lead to another network: the lease is asked about. The counter also shows a change
	// that was over before we looked.
	plugged := l.Carrier && (!before.Carrier || before.CarrierUps != l.CarrierUps)
	configured, is := m.Configured[l.Name]
	if plugged {
		slog.Info("a network link has a carrier", "link", l.Name)
		if !is || configured.DHCP4 {
			m.start(ctx, v4, known, m.clients.dhcp4(l), m.fallback(l))
		}
	}
	if l.Managed || l.OtherConf {
		if plugged || known.stop[v6] == nil || before.Managed != l.Managed {
			m.start(ctx, v6, known, m.clients.dhcp6(l), nil)
		}
	} else if known.stop[v6] != nil {
		known.end(v6)
		known.leases[v6] = nil
	}
	var errs []error
	want := known.wanted()
	want.configure(l, configured)
	owned := slices.Clone(want.Addrs)
	for _, c := range diff(l, known.owned, want) {
		slog.Info("changing the network", "link", l.Name, "change", c)
		if err := m.Kernel.Apply(c); err != nil {
			errs = append(errs, fmt.Errorf("cannot change the network (%s): %w", c, err))
			if c.DeleteAddr.IsValid() {
				owned = append(owned, c.DeleteAddr) // still ours to delete
			}
		}
	}
	known.owned = owned
	return errors.Join(errs...)
}

// wanted is what the leases of a link ask for.
func (l *managed) wanted() wanted {
	var w wanted
	for _, lease := range l.leases {
		if lease != nil {
			w.add(l.seen, lease)
		}
	}
	return w
}

// start lets a client keep the family's lease of a link, beginning with the present one, if any.
func (m *Manager) start(ctx context.Context, family int, l *managed, x exchanger, fallback func(context.Context) *Lease) {
	l.end(family)
	ctx, l.stop[family] = context.WithCancel(ctx)
	l.generation[family]++
	r := report{link: l.seen.Index, family: family, generation: l.generation[family]}
	k := keeper{name: l.seen.Name, exchanger: x, fallback: fallback, report: func(lease *Lease) {
		r.lease = lease
		select {
		case m.reports <- r:
		case <-ctx.Done():
		}
	}}
	go k.run(ctx, l.leases[family])
}

// end ends the client of a family; its lease stays.
func (l *managed) end(family int) {
	if l.stop[family] != nil {
		l.stop[family]()
		l.stop[family] = nil
	}
}

func (m *Manager) stopClients() {
	for _, l := range m.links {
		l.end(v4)
		l.end(v6)
		l.seen.Carrier = false // the next Run starts them again
	}
}

// fallback makes the lease that a link has while no DHCP server answers (RFC 3927).
func (m *Manager) fallback(l Link) func(context.Context) *Lease {
	return func(ctx context.Context) *Lease {
		a, err := m.clients.linkLocal(ctx, l)
		if err != nil {
			if ctx.Err() == nil {
				slog.Warn("no address without a DHCP server either", "link", l.Name, "reason", err)
			}
			return nil
		}
		return &Lease{Source: LinkLocal, Address: netip.PrefixFrom(a, 16)}
	}
}

// advertised takes note of name servers from a router advertisement (RFC 8106).
func (m *Manager) advertised(e Event) {
	l := m.links[e.Link]
	if l == nil || len(e.DNS) == 0 {
		return
	}
	if e.Lifetime == 0 { // the router takes them back
		l.dns = slices.DeleteFunc(slices.Clone(l.dns), func(a netip.Addr) bool { return slices.Contains(e.DNS, a) })
		return
	}
	l.dns, l.dnsUntil = e.DNS, time.Now().Add(e.Lifetime)
}

// publish tells of the state and writes resolv.conf if either changed.
func (m *Manager) publish(links []Link) error {
	s := m.state(links)
	var err error
	if text := resolvConf(s); m.ResolvConf != "" && text != m.resolv {
		if err = writeResolvConf(m.ResolvConf, text); err == nil {
			m.resolv = text
		}
	}
	if !reflect.DeepEqual(s, m.published) {
		m.published = s
		m.OnChange(s)
	}
	return err
}
