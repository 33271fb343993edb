// Package datastore serves the etcd API that the API server stores into, from an SQLite database, by kine.
//
// Only kine's SQLite driver is linked: its endpoint package would pull in every other one.
package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/generic"
	_ "github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/skerryos/skerry/initd/cluster/durable"
)

// Sync says when a change is confirmed; docs/decisions/0011 has the numbers.
type Sync string

const (
	// SyncFull confirms a change when it is on disk.
	SyncFull Sync = "full"
	// SyncNormal confirms a change when it is in the write-ahead log, which is flushed at checkpoints: a power cut may take
	// back the last seconds, never damage the database.
	SyncNormal Sync = "normal"
)

// Config says where the datastore is and how it is served.
type Config struct {
	// Dir is the folder of state.db; it is made when missing, mode 0700.
	Dir string
	// Socket is the path of the socket to listen on. An old one is removed.
	Socket string
	Sync   Sync
	// Seed gives what a new database holds from the start; nil: nothing.
	Seed func() ([]Entry, error)
}

// An Entry is a key with its value.
type Entry struct {
	Key   string
	Value []byte
}

// Store is a datastore that serves. Stop it after everything that uses it: an API server without it hangs.
type Store struct {
	srv    *grpc.Server
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error
}

// Start opens the database, makes it when missing, and serves it until Stop.
func Start(c Config) (*Store, error) {
	logrus.SetLevel(logrus.WarnLevel) // kine tells every step of its start
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the datastore's folder: %w", err)
	}
	name := filepath.Join(c.Dir, databaseName)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) && c.Seed != nil {
		if err := create(c, name); err != nil {
			return nil, fmt.Errorf("cannot make the datastore in %s: %w", c.Dir, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{cancel: cancel, failed: make(chan error, 1)}
	backend, err := open(ctx, &s.wg, name, "WAL", c.Sync.pragma())
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot open the datastore in %s: %w", c.Dir, err)
	}
	l, err := listen(c.Socket)
	if err != nil {
		cancel()
		return nil, err
	}
	s.srv = grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.MaxRecvMsgSize(2<<20), // etcd's own limit for a request, 1.5 MiB, with room
		grpc.MaxSendMsgSize(math.MaxInt32),
	)
	// The version is what the API server's etcd client asks for before it uses newer calls.
	server.New(backend, "unix", progressInterval, "3.5.13").Register(s.srv)
	go func() {
		if err := s.srv.Serve(l); err != nil {
			s.failed <- fmt.Errorf("datastore: %w", err)
		}
	}()
	return s, nil
}

// progressInterval is how often each of some eighty watches of the API server is told how far the datastore is. The API server asks by
// itself when somebody waits for that (KEP-2340), so this keeps only bookmarks from growing old.
const progressInterval = time.Minute

// Failed delivers the error that ended the service before Stop.
func (s *Store) Failed() <-chan error { return s.failed }

// Stop ends the service, then waits until the database is closed and its log is folded into it.
func (s *Store) Stop() {
	s.srv.Stop()
	s.cancel()
	s.wg.Wait()
}

func listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the datastore's socket: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove the old socket of the datastore: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("cannot serve the datastore: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot protect the datastore's socket: %w", err)
	}
	return l, nil
}

// databaseName is the database in its folder.
const databaseName = "state.db"

// create makes a database with the seed in it, at once or not at all: it gets its name when all is on the disk. Until then
// nothing is flushed, which on a memory card would take longer than all else.
func create(c Config, name string) error {
	entries, err := c.Seed()
	if err != nil {
		return err
	}
	partial := name + ".new"
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} { // of an attempt that was cut short
		if err := os.Remove(partial + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	// Without a log of its own: a connection that is still in use when kine closes the database would leave it behind.
	backend, err := open(ctx, &wg, partial, "MEMORY", "OFF")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := backend.Create(ctx, e.Key, e.Value, 0); err != nil {
			return fmt.Errorf("cannot store %s: %w", e.Key, err)
		}
	}
	cancel()
	wg.Wait()
	if err := syncFile(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, name); err != nil {
		return err
	}
	return durable.SyncDir(c.Dir)
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// pageBytes is the page size of a database that is made anew. A change of one object touches some ten pages, most of them of indexes,
// and each of them is written as a whole: docs/decisions/0011 has the numbers.
const pageBytes = 1024

// open opens a database of kine's and makes it when missing; it is closed when ctx has ended and wg has come down.
// The startup VACUUM is off: it rewrites the whole file at every start.
func open(ctx context.Context, wg *sync.WaitGroup, name, journal, synchronous string) (server.Backend, error) {
	// In this order: once there is a log, the page size has no effect.
	parameters := fmt.Sprintf("?_pragma=busy_timeout(30000)&_pragma=page_size(%d)&_pragma=journal_mode(%s)&_pragma=synchronous(%s)&_txlock=immediate",
		pageBytes, journal, synchronous)
	_, backend, err := drivers.New(ctx, wg, &drivers.Config{
		Endpoint:              "sqlite://" + name + parameters + "&_kine_disable_startup_vacuum=1",
		ConnectionPoolConfig:  generic.ConnectionPoolConfig{MaxIdle: 5, MaxIdleTime: 2 * time.Minute},
		CompactInterval:       5 * time.Minute,
		CompactIntervalJitter: 5,
		CompactTimeout:        5 * time.Second,
		CompactMinRetain:      1000,
		CompactBatchSize:      1000,
		PollBatchSize:         500,
		PollInterval:          time.Second,
	})
	if err != nil {
		return nil, err
	}
	return backend, backend.Start(ctx)
}

// pragma is the setting in SQLite's words.
func (s Sync) pragma() string {
	if s == SyncNormal {
		return "NORMAL"
	}
	return "FULL"
}
