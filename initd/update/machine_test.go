package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
	. "github.com/skerryos/skerry/initd/update"
)

const (
	sector    = 512
	chunkSize = 1024
	rootSize  = 12 * chunkSize
	// partitionSize is larger than the root file system: what is behind it is none of the upgrade's business.
	partitionSize = rootSize + 2*chunkSize
	bootSize      = 3 * chunkSize
)

// A disk is a medium that forgets what was not synced, sector by sector, and in any order.
type disk struct {
	now, medium []byte
	pending     []int64 // sectors, in the order in which they were written
	capacity    int64
	onStep      func() error
	noSync      bool // a planted mistake
}

func newDisk(content []byte, capacity int64) *disk {
	b := make([]byte, capacity)
	copy(b, content)
	return &disk{now: b, medium: bytes.Clone(b), capacity: capacity}
}

func (d *disk) step() error {
	if d.onStep == nil {
		return nil
	}
	return d.onStep()
}

func (d *disk) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(d.now).ReadAt(p, at) }

func (d *disk) WriteAt(p []byte, at int64) (int, error) {
	if err := d.step(); err != nil {
		return 0, err
	}
	if at < 0 || at+int64(len(p)) > d.capacity {
		return 0, fmt.Errorf("%d bytes at %d are outside of the medium", len(p), at)
	}
	copy(d.now[at:], p)
	for s := at / sector; s*sector < at+int64(len(p)); s++ {
		d.pending = append(d.pending, s)
	}
	return len(p), nil
}

func (d *disk) Sync() error {
	if err := d.step(); err != nil {
		return err
	}
	if !d.noSync {
		copy(d.medium, d.now)
		d.pending = nil
	}
	return nil
}

func (d *disk) Size() int64 { return d.capacity }
func (*disk) Close() error  { return nil }

// cut is the medium after a power cut.
func (d *disk) cut(luck slottest.Luck) *disk {
	left := bytes.Clone(d.medium)
	for i, s := range d.pending {
		end := (s + 1) * sector
		switch luck(i, len(d.pending)) {
		case slottest.Lost:
			continue
		case slottest.Torn:
			end -= sector / 2
		}
		end = min(end, d.capacity)
		copy(left[s*sector:end], d.now[s*sector:end])
	}
	return &disk{now: left, medium: bytes.Clone(left), capacity: d.capacity, noSync: d.noSync}
}

// dead is the medium after the end of the process that wrote to it.
func (d *disk) dead() *disk {
	return &disk{now: bytes.Clone(d.now), medium: bytes.Clone(d.medium), pending: append([]int64(nil), d.pending...), capacity: d.capacity, noSync: d.noSync}
}

// A store keeps the record as a file that is replaced in one step.
type store struct {
	now, next []byte // next is on its way
	onStep    func() error
}

func (s *store) Load() ([]byte, error) {
	if s.now == nil {
		return nil, fs.ErrNotExist
	}
	return s.now, nil
}

func (s *store) Save(data []byte) error {
	if s.onStep != nil {
		if err := s.onStep(); err != nil {
			return err
		}
		s.next = data
		if err := s.onStep(); err != nil {
			return err
		}
	}
	s.now, s.next = bytes.Clone(data), nil
	return nil
}

func (s *store) cut(luck slottest.Luck) *store {
	if s.next != nil && luck(0, 1) == slottest.Kept {
		return &store{now: bytes.Clone(s.next)}
	}
	return &store{now: bytes.Clone(s.now)}
}

// A machine is a whole device.
type machine struct {
	slots   slottest.Machine
	roots   map[slot.Name]*disk
	scratch *disk
	store   *store
	running Running
	up      bool // process 1 has come as far as AtBoot
	locked  bool
	// keepImage is a planted mistake: what boots the target stays while its root is overwritten.
	keepImage bool
	keys      []bundle.PublicKey
}

var errLocked = errors.New("locked")

func (m *machine) Lock() (io.Closer, error) {
	if m.locked {
		return nil, errLocked
	}
	m.locked = true
	return closer(func() error { m.locked = false; return nil }), nil
}

type closer func() error

func (c closer) Close() error { return c() }

// forgetful is a backend that forgets to remove.
type forgetful struct{ slot.Backend }

func (forgetful) Remove(slot.Name) error { return nil }

func (m *machine) updater() *Updater {
	slots := slot.Backend(m.slots)
	if m.keepImage {
		slots = forgetful{slots}
	}
	return New(Config{
		Running: m.running, Keys: m.keys, Slots: slots, Store: m.store, Lock: m.Lock,
		Root:      func(n slot.Name) (Medium, error) { return m.roots[n], nil },
		Scratch:   func() (Medium, error) { return m.scratch, nil },
		Now:       func() time.Time { return time.Unix(1764100000, 0) },
		SaveEvery: 4 * chunkSize,
	})
}

func (m *machine) onStep(do func() error) {
	m.slots.OnStep(do)
	m.scratch.onStep, m.store.onStep = do, do
	for _, r := range m.roots {
		r.onStep = do
	}
}

// cut is the machine after a power cut, switched off.
func (m *machine) cut(luck slottest.Luck) *machine {
	return &machine{slots: m.slots.Cut(luck), roots: map[slot.Name]*disk{slot.A: m.roots[slot.A].cut(luck), slot.B: m.roots[slot.B].cut(luck)},
		scratch: m.scratch.cut(luck), store: m.store.cut(luck), running: m.running, keepImage: m.keepImage, keys: m.keys}
}

// dead is the machine when the process that drives the upgrade has died, and runs on.
func (m *machine) dead() *machine {
	return &machine{slots: m.slots.Cut(slottest.AllKept), roots: map[slot.Name]*disk{slot.A: m.roots[slot.A].dead(), slot.B: m.roots[slot.B].dead()},
		scratch: m.scratch.dead(), store: m.store.cut(func(int, int) slottest.Fate { return slottest.Lost }), running: m.running, up: m.up, keepImage: m.keepImage, keys: m.keys}
}

// made are contents by slot and version: they are asked for ten thousands of times.
var made = map[string][]byte{}

func once(key string, make func() []byte) []byte {
	if made[key] == nil {
		made[key] = make()
	}
	return made[key]
}

// image is a boot image: it says of itself what it is, and which root file system it wants.
func image(n slot.Name, version string) []byte {
	return once(string(n)+" "+version, func() []byte {
		sum := sha256.Sum256(rootFS(version))
		text := fmt.Sprintf("%s %s %s ", n, version, hex.EncodeToString(sum[:]))
		return []byte(strings.Repeat(text, bootSize/len(text)+1)[:bootSize])
	})
}

// rootFS is noise, zeros and text, so that bundles have chunks of every encoding.
func rootFS(version string) []byte {
	return once(version, func() []byte {
		seed := sha256.Sum256([]byte(version))
		noise := make([]byte, 4*chunkSize)
		_, _ = rand.NewChaCha8(seed).Read(noise) // never fails
		b := append(noise, make([]byte, 2*chunkSize)...)
		return append(b, strings.Repeat(version+" ", rootSize)[:rootSize-len(b)]...)
	})
}

// complete checks that a boot image is what somebody made, and that the root partition of its slot is, too.
func (m *machine) complete(got []byte) (Running, error) {
	var n slot.Name
	var version string
	if _, err := fmt.Sscanf(string(got), "%s %s ", &n, &version); err != nil || !bytes.Equal(got, image(n, version)) {
		return Running{}, fmt.Errorf("boot image %.20q is damaged", got)
	}
	if !bytes.Equal(m.roots[n].now[:rootSize], rootFS(version)) {
		return Running{}, fmt.Errorf("slot %s can be booted, but its root partition is not version %s", n, version)
	}
	return Running{Slot: n, Version: version, Board: "x86-64", Architecture: "amd64"}, nil
}

// check is what must be true at any time: whatever the boot loader might take is complete.
func (m *machine) check() error {
	for _, i := range m.slots.Images() {
		if _, err := m.complete(i); err != nil {
			return err
		}
	}
	return nil
}

// powerOn is what firmware and boot loader do.
func (m *machine) powerOn() error {
	if err := m.check(); err != nil {
		return err
	}
	got, err := m.slots.Boot()
	if err != nil {
		return err
	}
	m.running, err = m.complete(got)
	return err
}

// factory is a device as it was flashed.
func factory(version string) *machine {
	return &machine{
		slots:   slottest.NewSystemdBoot(string(image(slot.A, version)), 3),
		roots:   map[slot.Name]*disk{slot.A: newDisk(rootFS(version), partitionSize), slot.B: newDisk(nil, partitionSize)},
		scratch: newDisk(nil, 2*bootSize), store: &store{},
		keys: []bundle.PublicKey{owner.public},
	}
}

// A signer is a key that is the same in every run.
type signer struct {
	public  minisign.PublicKey
	private minisign.PrivateKey
}

func newSigner(seed byte) signer {
	public, private, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		panic(err)
	}
	return signer{public, private}
}

var owner, next = newSigner(1), newSigner(2)

// skb makes a bundle of a version; change may change its manifest before it is signed, and key signs it.
func skb(t testing.TB, version string, key signer, change func(*bundle.Manifest)) []byte {
	t.Helper()
	source := func(name string, b []byte) bundle.Source {
		return bundle.Source{Name: name, Size: int64(len(b)), Content: bytes.NewReader(b), ChunkSize: chunkSize}
	}
	m := bundle.Manifest{Board: "x86-64", Architecture: "amd64", Version: version, Created: 1764000000}
	sources := []bundle.Source{source("root", rootFS(version)), source("boot-a", image(slot.A, version)), source("boot-b", image(slot.B, version))}
	if change != nil {
		change(&m)
	}
	var b bytes.Buffer
	_, err := bundle.Create(&b, m, sources, func(manifest []byte) ([]byte, error) {
		r := minisign.NewReader(bytes.NewReader(manifest))
		if _, err := io.Copy(io.Discard, r); err != nil {
			return nil, err
		}
		return r.SignWithComments(key.private, "test", "test"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// write writes a bundle, to its end.
func write(u *Updater, stream io.Reader, force bool) (err error) {
	b, err := u.Open(stream)
	if err != nil {
		return err
	}
	w, err := u.Begin(b, force)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return w.Run(context.Background())
}
