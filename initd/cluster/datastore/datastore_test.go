package datastore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func open(t testing.TB, c Config) (*Store, *clientv3.Client) {
	t.Helper()
	s, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	k, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"unix://" + c.Socket}, DialTimeout: 10 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
	})
	if err != nil {
		s.Stop()
		t.Fatal(err)
	}
	return s, k
}

func config(t testing.TB, sync Sync) Config {
	dir := t.TempDir()
	return Config{Dir: filepath.Join(dir, "db"), Socket: filepath.Join(dir, "s"), Sync: sync}
}

// create is how the API server makes an object: only if it is not there.
func create(t testing.TB, k *clientv3.Client, key, value string) bool {
	t.Helper()
	r, err := k.Txn(t.Context()).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).Then(clientv3.OpPut(key, value)).Commit()
	if err != nil {
		t.Fatal(err)
	}
	return r.Succeeded
}

func TestContentSurvivesAStop(t *testing.T) {
	for _, sync := range []Sync{SyncFull, SyncNormal} {
		t.Run(string(sync), func(t *testing.T) {
			c := config(t, sync)
			s, k := open(t, c)
			if !create(t, k, "/registry/a", "1") {
				t.Fatal("a new key could not be made")
			}
			k.Close()
			s.Stop()
			if _, err := os.Stat(filepath.Join(c.Dir, "state.db-wal")); err == nil {
				t.Error("after a stop the write-ahead log is still there: the database was not closed")
			}

			s, k = open(t, c)
			defer s.Stop()
			defer k.Close()
			r, err := k.Get(t.Context(), "/registry/a")
			if err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "1" {
				t.Errorf("after a new start the key is %v, %v", r, err)
			}
			if create(t, k, "/registry/a", "2") {
				t.Error("a key was made a second time")
			}
		})
	}
}

func TestStartErrors(t *testing.T) {
	t.Run("folder is a file", func(t *testing.T) {
		c := config(t, SyncFull)
		if err := os.WriteFile(c.Dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(c); err == nil {
			t.Error("it started")
		}
	})
	t.Run("damaged database", func(t *testing.T) {
		c := config(t, SyncFull)
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		damaged := strings.Repeat("no database ", 1000)
		if err := os.WriteFile(filepath.Join(c.Dir, "state.db"), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(c); err == nil || !strings.Contains(err.Error(), c.Dir) {
			t.Errorf("error %v, want one that names the folder", err)
		}
		if b, _ := os.ReadFile(filepath.Join(c.Dir, "state.db")); string(b) != damaged {
			t.Error("the damaged file was changed: nobody can look into it any more")
		}
	})
}

// BenchmarkCreate is behind docs/decisions/0011: what the durability of a write costs on the disk below the temporary folder.
func BenchmarkCreate(b *testing.B) {
	for _, sync := range []Sync{SyncFull, SyncNormal} {
		b.Run(string(sync), func(b *testing.B) {
			s, k := open(b, config(b, sync))
			defer s.Stop()
			defer k.Close()
			value := strings.Repeat("x", 1500) // a small object of Kubernetes
			before := written(b)
			n := 0
			for b.Loop() {
				create(b, k, fmt.Sprint("/registry/bench/", n), value)
				n++
			}
			b.ReportMetric(float64(written(b)-before)/float64(n), "disk-B/op")
		})
	}
}

// written is how many bytes this process has caused to be written to disks, proc(5) write_bytes.
func written(b *testing.B) int64 {
	b.Helper()
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("no /proc/self/io on this machine")
	}
	var n int64
	for line := range strings.Lines(string(io)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			if _, err := fmt.Sscan(v, &n); err != nil {
				b.Fatal(err)
			}
		}
	}
	return n
}
