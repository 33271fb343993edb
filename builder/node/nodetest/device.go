// Package nodetest is a device for tests: it serves the device API with TLS on this host, takes real bundles, goes through
// an upgrade as a real device does, and fails where it is told to.
package nodetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
	"github.com/skerryos/skerry/initd/bundle"
)

// A Config is what a device is, and where it fails. The zero value of each fault is none.
type Config struct {
	// Clients are the authorities of its image, in PEM form; Keys are those that it trusts bundles of.
	Clients []byte
	Keys    []bundle.PublicKey
	// Version is of slot a, which runs; Board is what it accepts bundles for.
	Version, Board string
	// Kubeconfig is empty on an agent.
	Kubeconfig string

	// CutAfter ends the connection of the first, second, ... upgrade request after so many bytes of its body.
	CutAfter []int64
	// LoseAnswers ends that many upgrade requests without an answer when all was done that they ask for.
	LoseAnswers int
	// Away is how many connections are closed at once during each restart.
	Away int
	// Interrupt makes the device restart while it drains the node, before it has tried the new version.
	Interrupt bool
	// RollBack is why the new version is given up.
	RollBack string
	// Busy is how many upgrade requests are answered as if a former connection were still open.
	Busy int
	// NextClients and NextKey are what the device has after its first restart instead of Clients and its key.
	NextClients []byte
	NextKey     bool
}

// A Device is one that runs. Its state changes with each look at it ([v1.State] asked for), never with time.
type Device struct {
	config   Config
	listener net.Listener
	server   *http.Server

	mu     sync.Mutex
	key    tls.Certificate
	pool   *x509.CertPool
	state  v1.State
	update v1.Update
	// coming are the changes of the next looks.
	coming []func()
	away   int
	// received counts how often each chunk was taken.
	received map[int]int
	actions  []string
	snaps    []v1.Snapshot
}

// Start switches a device on.
func Start(c Config) (*Device, error) {
	d := &Device{config: c, received: map[int]int{}, state: v1.State{
		Version: c.Version, Board: c.Board, Slot: "a", Phase: v1.Ready, Message: "all services are ready", Hostname: "edge",
		Addresses: []string{"192.0.2.7", "2001:db8::7"}, MachineID: "0123456789abcdef0123456789abcdef", Tries: -1,
		Services: []v1.Service{{Name: "containerd", State: "ready"}, {Name: "skerryd", State: "ready", Restarts: 2}},
		Checks:   []v1.Check{{Name: "node", Passed: true, Reason: "Ready"}},
		Booted:   started,
		Problems: []string{},
	}}
	d.update.State = "idle"
	if err := errors.Join(d.admit(c.Clients), d.makeKey()); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.listener = l
	d.server = &http.Server{Handler: d.routes(), ErrorLog: log.New(io.Discard, "", 0)} // what goes wrong is what is tested
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{d.key}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: d.pool,
		}, nil
	}}
	go d.server.Serve(tls.NewListener(&door{l, d}, config)) // ends with Close
	return d, nil
}

// started is when every device was switched on.
var started = time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC)

// Close switches it off.
func (d *Device) Close() error { return d.server.Close() }

// Address is where it listens.
func (d *Device) Address() string { return d.listener.Addr().String() }

// Certificate is what it shows.
func (d *Device) Certificate() *x509.Certificate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.key.Leaf
}

// Received is how often a chunk was taken.
func (d *Device) Received(chunk int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.received[chunk]
}

// Actions are the changes that it was asked for, in order.
func (d *Device) Actions() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.actions...)
}

// Set changes the state that it shows.
func (d *Device) Set(change func(*v1.State)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.state)
}

func (d *Device) admit(authorities []byte) error {
	d.pool = x509.NewCertPool()
	if !d.pool.AppendCertsFromPEM(authorities) {
		return errors.New("no authority: the device would not be on the network")
	}
	return nil
}

// makeKey gives the device a key and a certificate that it signs itself.
func (d *Device) makeKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "edge"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC), // dates mean nothing
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(der)
	d.key = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	return err
}

// A door closes connections while the device is away.
type door struct {
	net.Listener
	d *Device
}

func (l *door) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.d.turnAway() {
			return conn, nil
		}
		conn.Close()
	}
}

func (d *Device) turnAway() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away == 0 {
		return false
	}
	d.away--
	return true
}

// restart is what a restart changes; the caller says what runs then.
func (d *Device) restart(then func()) {
	d.away = d.config.Away
	d.state.Phase, d.state.Message = v1.Ready, "all services are ready"
	d.update.Activity = ""
	if c := d.config.NextClients; c != nil {
		if err := d.admit(c); err != nil {
			panic(fmt.Sprintf("Config.NextClients: %v", err))
		}
	}
	if d.config.NextKey {
		d.config.NextKey = false
		if err := d.makeKey(); err != nil {
			panic(err)
		}
	}
	then()
}

// try is what happens from the word to try the new version on: one change for each look at the device.
func (d *Device) try() {
	d.update.Activity = "draining the node: 2 pods are left"
	d.coming = append(d.coming, func() { d.update.Activity = "draining the node: 1 pod is left" })
	if d.config.Interrupt {
		d.config.Interrupt = false
		d.coming = append(d.coming, func() { d.restart(func() {}) })
		return
	}
	old := d.state.Version
	d.coming = append(d.coming,
		func() { d.update.State, d.update.Activity, d.state.Phase = "trying", "", v1.Stopping },
		func() {
			d.restart(func() {
				d.state.Slot, d.state.Version, d.state.Trial, d.state.Tries = "b", d.update.Version, true, 2
				d.update.Attempts = 1
				d.state.Checks = []v1.Check{{Name: "node", Reason: "NotReady: the network is not there yet"}, {Name: "clock", Passed: true}}
			})
		},
	)
	if d.config.RollBack != "" {
		d.coming = append(d.coming,
			func() { d.update.State, d.update.Reason, d.state.Phase = "rolled back", d.config.RollBack, v1.Stopping },
			func() {
				d.restart(func() {
					d.state.Slot, d.state.Version, d.state.Trial, d.state.Tries = "a", old, false, -1
					d.state.Checks = nil
					d.update.Failed = append(d.update.Failed, v1.FailedVersion{Version: d.update.Version, Reason: d.config.RollBack, Time: started})
				})
			})
		return
	}
	d.coming = append(d.coming,
		func() { d.state.Checks[0] = v1.Check{Name: "node", Passed: true, Reason: "Ready"} },
		func() { d.update.State, d.state.Trial, d.state.Tries = "committed", false, -1; d.touch() })
}

// touch notes that the update has changed.
func (d *Device) touch() {
	if d.update.Changed.IsZero() {
		d.update.Changed = started
	}
	d.update.Changed = d.update.Changed.Add(time.Second)
}

// NewKey gives it another key, as a reset does.
func (d *Device) NewKey() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.makeKey()
}

// Busy makes it answer the next upgrade requests as if a former connection were still open.
func (d *Device) Busy(requests int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config.Busy = requests
}

// SetUpdate changes what it remembers of upgrades.
func (d *Device) SetUpdate(u v1.Update) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.update = u
}
