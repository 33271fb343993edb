// Package node speaks the device API from a workstation: HTTPS by TCP, both sides with certificates.
//
// The workstation shows a certificate of a context, whose authority the device's image must carry. The device shows a
// certificate that it has signed itself, and is known by the fingerprint of its key: at first use that is noted in the
// context, as ssh does, and from then on nothing is asked of or sent to a device with another key.
package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/skerryos/skerry/builder/contexts"
)

// Options are how to reach a device; the zero value is for a device that was met before, or is believed at first use.
type Options struct {
	// Fingerprint is what the device's key must have, whatever is known of it. It is known from then on.
	Fingerprint string
	// Note is told, in one line each, what a person should know: that a device was met for the first time.
	Note func(string)
	// Clock is the system's if it is nil.
	Clock Clock
}

// A Clock is what waiting is done by, so that tests need not wait.
type Clock interface {
	Now() time.Time
	// Sleep returns after that time, or with the context's error as soon as it is done.
	Sleep(context.Context, time.Duration) error
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Client asks one device. [Dial] makes it, Close ends it; its methods may be called by several goroutines.
type Client struct {
	at      address
	context contexts.Context
	clock   Clock
	http    *http.Client

	mu sync.Mutex
	// pin is the fingerprint that the device must have, empty until the first connection of a first use; demanded tells that
	// the user has given it.
	pin      string
	demanded bool
	// met tells that the device has shown its key at least once.
	met bool
}

// Dial connects to a device and makes sure that both know each other. The address is a host name or an IP address, with a
// port if it is not [v1.Port].
func Dial(ctx context.Context, at string, c contexts.Context, o Options) (*Client, error) {
	a, err := parseAddress(at)
	if err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	pair, err := c.Certificate()
	if err != nil {
		return nil, err
	}
	devices, err := c.Devices()
	if err != nil {
		return nil, err
	}
	known, _ := contexts.KnownBy(devices, a.String())
	n := &Client{at: a, context: c, clock: o.Clock, pin: known.Fingerprint}
	if o.Fingerprint != "" {
		if err := contexts.CheckFingerprint(o.Fingerprint); err != nil {
			return nil, err
		}
		n.pin, n.demanded = o.Fingerprint, true
	}
	n.http = &http.Client{Transport: n.transport(pair)}
	if err := n.meet(ctx, devices, known, o.Note); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close ends the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address is the device's, as messages name it.
func (c *Client) Address() string { return c.at.String() }

// Host is the address without a port, in the form that a URL has.
func (c *Client) Host() string { return c.at.urlHost() }

// transport makes connections. They are not shared by requests at the same time, and speak HTTP/1.1: one thing is asked
// after the other, and an upgrade that is refused early ends with its connection.
func (c *Client) transport(pair tls.Certificate) *http.Transport {
	dialer := &net.Dialer{
		Timeout: 15 * time.Second,
		// A device that lost its power says no goodbye: it is known to be gone after a minute and a quarter.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4},
	}
	return &http.Transport{
		Proxy: nil, // devices are in the network at hand
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, c.at.dial())
			if err != nil {
				return nil, err
			}
			return &patientConn{conn, writePatience}, nil
		},
		TLSClientConfig: &tls.Config{
			MinVersion:           tls.VersionTLS13,
			GetClientCertificate: c.present(pair),
			// Nobody has signed for the device but itself; verify compares its key.
			InsecureSkipVerify: true,
			VerifyConnection:   c.verify,
		},
		TLSHandshakeTimeout: 30 * time.Second, // of a small processor that is busy
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
}

// present hands out the certificate, unless the device says that it will not take it.
func (c *Client) present(pair tls.Certificate) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if info.SupportsCertificate(&pair) != nil {
			return nil, &NotAdmittedError{Address: c.Address(), Context: c.context.Name}
		}
		return &pair, nil
	}
}

// verify holds the key that a device shows against the one that is known.
func (c *Client) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the device shows no certificate")
	}
	// The device's own dates and names say nothing: its clock may be wrong, and its address may have changed.
	leaf := s.PeerCertificates[0]
	if leaf.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm {
		return errors.New("the device's key is of an unknown kind")
	}
	got := contexts.Fingerprint(leaf)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pin != "" && c.pin != got {
		return &FingerprintError{Address: c.Address(), Want: c.pin, Got: got, Demanded: c.demanded, File: c.context.DevicesFile()}
	}
	c.pin, c.met = got, true
	return nil
}

// Fingerprint is that of the device's key.
func (c *Client) Fingerprint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pin
}

func (c *Client) wasMet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met
}

// meet asks the device for its state and notes who it is.
func (c *Client) meet(ctx context.Context, devices []contexts.Device, known contexts.Device, note func(string)) error {
	state, err := c.Status(ctx)
	// A connection that is closed as soon as the certificate was shown may lose the reason on its way: ask again.
	for range 2 {
		if err == nil || !c.wasMet() || !isLost(err) || ctx.Err() != nil {
			break
		}
		state, err = c.Status(ctx)
	}
	if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused {
		if mismatch, ok := errors.AsType[*FingerprintError](err); ok {
			if other, ok := contexts.KnownAs(devices, mismatch.Got); ok {
				mismatch.Other = other.Address
			}
		}
		if c.wasMet() && isLost(err) {
			err = fmt.Errorf("%w; perhaps it does not admit context %s: `skerry context list` shows the contexts, give another one with --context",
				err, c.context.Name)
		}
		return err
	}
	// A device that answers with an error (it may be starting) has shown its key nevertheless.
	now := contexts.Device{Address: c.Address(), Fingerprint: c.Fingerprint(), MachineID: state.MachineID}
	if now.MachineID == "" && now.Fingerprint == known.Fingerprint {
		now.MachineID = known.MachineID
	}
	if now == known {
		return nil
	}
	if err := c.context.Remember(now); err != nil {
		return err
	}
	if now.Fingerprint == known.Fingerprint {
		return nil
	}
	line := fmt.Sprintf("met device %s for the first time: its key is %s; it is expected from now on (%s)",
		now.Address, now.Fingerprint, c.context.DevicesFile())
	if other, ok := contexts.KnownAs(devices, now.Fingerprint); ok {
		line = fmt.Sprintf("device %s is the one that was known as %s: its key is %s", now.Address, other.Address, now.Fingerprint)
	} else if known.Fingerprint != "" {
		line = fmt.Sprintf("device %s has the key %s from now on, as you say; before it was %s", now.Address, now.Fingerprint, known.Fingerprint)
	}
	note(line)
	return nil
}

// writePatience is how long a device may take no byte before the connection is given up: a slow card that writes back all
// that it was sent needs a minute.
const writePatience = 5 * time.Minute

// A patientConn ends a write that does not move on.
type patientConn struct {
	net.Conn
	patience time.Duration
}

func (c *patientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
