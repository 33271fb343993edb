// Package browse finds devices in the networks of the workstation, by multicast DNS (RFC 6762, 6763).
//
// What it finds is what machines in the network say of themselves: nothing of it is proven before [node.Dial] has seen the key of
// the device. Only networks that the workstation is part of are looked into; multicast does not pass routers.
//
// [node.Dial]: https://pkg.go.dev/github.com/skerryos/skerry/builder/node#Dial
package browse

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/skerryos/skerry/initd/network/discovery"
)

// A Device is what a device says of itself.
type Device struct {
	// Name is what the device is called in the network, mostly its host name.
	Name string `json:"name"`
	// Addresses are where it can be reached, IPv4 first, those that hold on one link only last; Port is that of its API.
	Addresses []netip.Addr `json:"addresses"`
	Port      uint16       `json:"port"`
	// ID stands for the device's machine identifier: discovery.PublicID.
	ID      string `json:"id,omitempty"`
	Version string `json:"version,omitempty"`
	Board   string `json:"board,omitempty"`
	Slot    string `json:"slot,omitempty"`
	Phase   string `json:"phase,omitempty"`
}

// Wait is how long is waited for answers where nobody says otherwise: devices answer within a fifth of a second, and may be
// asked again once if that is lost.
const Wait = 3 * time.Second

// Open opens the workstation's network. A port is shared with the system's own resolver; where that does not let it, another
// one is taken, whose answers a firewall may keep out.
func Open() (discovery.Network, error) {
	n, err := discovery.Open()
	if err == nil {
		return n, nil
	}
	if n, asideErr := discovery.OpenAside(); asideErr == nil {
		return n, nil
	}
	return nil, fmt.Errorf("cannot look for devices: %w", err)
}

// Browse asks on all links, several times, collects the answers until wait is over, and closes the network. Devices are sorted by
// name. It fails if there is no link to ask on.
func Browse(ctx context.Context, network discovery.Network, wait time.Duration) ([]Device, error) {
	defer network.Close()
	links, err := join(network)
	if err != nil {
		return nil, fmt.Errorf("cannot look for devices: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	packets, failed := make(chan discovery.Packet), make(chan error, 1)
	go func() {
		for {
			p, err := network.Receive()
			if err != nil {
				failed <- err
				return
			}
			select {
			case packets <- p:
			case <-ctx.Done():
				return
			}
		}
	}()
	over := time.NewTimer(wait)
	defer over.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	// RFC 6762, 5.2: after a second, and then each time after twice as long.
	for pause := time.Second; ; {
		select {
		case p := <-packets:
			for _, l := range links {
				if l.Index == p.Link {
					l.receive(time.Now(), p)
				}
			}
		case <-again.C:
			if err := ask(network, links); err != nil {
				return nil, fmt.Errorf("cannot look for devices: %w", err)
			}
			again.Reset(pause)
			pause *= 2
		case <-over.C:
			return devices(links), nil
		case err := <-failed:
			return nil, fmt.Errorf("cannot look for devices: %w", err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// join lets the network be heard on all links where it can.
func join(network discovery.Network) ([]*link, error) {
	all, err := network.Links()
	if err != nil {
		return nil, err
	}
	var links []*link
	var errs []error
	for _, l := range all {
		if len(l.Groups()) == 0 {
			continue
		}
		if err := network.Join(l); err != nil {
			errs = append(errs, err)
			continue
		}
		links = append(links, &link{Link: l})
	}
	if len(links) == 0 {
		errs = append(errs, errors.New("no network link is up that has an address and can multicast; `ip address` shows them"))
		return nil, errors.Join(errs...)
	}
	return links, nil
}

// ask asks on all links. A link that cannot be sent on does not keep the others from it.
func ask(network discovery.Network, links []*link) error {
	var errs []error
	asked := false
	for _, l := range links {
		data, err := l.query().Pack()
		if err != nil {
			return err
		}
		for _, group := range l.Groups() {
			err := network.Send(l.Index, group, data)
			asked = asked || err == nil
			errs = append(errs, err)
		}
	}
	if !asked {
		return errors.Join(errs...)
	}
	return nil
}

// question asks for the records of a name, of all who hear it.
func question(name string, kind dnsmessage.Type) discovery.Question {
	return discovery.Question{Name: name, Type: kind}
}
