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
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{cancel: cancel, failed: make(chan error, 1)}
	_, backend, err := drivers.New(ctx, &s.wg, &drivers.Config{
		Endpoint:              dsn(c),
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
		cancel()
		return nil, fmt.Errorf("cannot open the datastore in %s: %w", c.Dir, err)
	}
	if err := backend.Start(ctx); err != nil {
		cancel()
		return nil, fmt.Errorf("cannot start the datastore in %s: %w", c.Dir, err)
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
	server.New(backend, "unix", 5*time.Second, "3.5.13").Register(s.srv)
	go func() {
		if err := s.srv.Serve(l); err != nil {
			s.failed <- fmt.Errorf("datastore: %w", err)
		}
	}()
	return s, nil
}

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

// dsn is kine's address of the database. The startup VACUUM is off: it rewrites the whole file at every start.
func dsn(c Config) string {
	mode := "FULL"
	if c.Sync == SyncNormal {
		mode = "NORMAL"
	}
	return "sqlite://" + filepath.Join(c.Dir, "state.db") +
		"?_journal_mode=WAL&_busy_timeout=30000&_txlock=immediate&_synchronous=" + mode + "&_kine_disable_startup_vacuum=1"
}
