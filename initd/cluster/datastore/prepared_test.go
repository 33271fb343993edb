package datastore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/generic"
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
)

// preparedDB is a database of kine's whose connections keep statements. One connection serves it, so that its statements can be looked at.
func preparedDB(t *testing.T) *sql.DB {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	name := filepath.Join(t.TempDir(), "db")
	_, dialect, err := sqlite.NewVariant(ctx, &wg, "sqlite3", &drivers.Config{DataSourceName: name})
	if err != nil {
		t.Fatal(err)
	}
	if err := keepPrepared(ctx, &wg, dialect, "file://"+name, generic.ConnectionPoolConfig{MaxIdle: 1}); err != nil {
		t.Fatal(err)
	}
	dialect.DB.SetMaxOpenConns(1)
	return dialect.DB
}

// kept is how many statements the connection of a database keeps.
func kept(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Raw(func(driverConn any) error { n = len(driverConn.(*conn).statements); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStatementsAreKept(t *testing.T) {
	db := preparedDB(t)
	for i := range 3 {
		if _, err := db.Exec("INSERT INTO kine (name, prev_revision) VALUES (?, ?)", "a", i); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := db.QueryRow("SELECT count(*) FROM kine WHERE name = ?", "a").Scan(&n); err != nil || n != i+1 {
			t.Fatalf("there are %d rows, want %d: %v", n, i+1, err)
		}
	}
	if n := kept(t, db); n != 2 {
		t.Errorf("%d statements are kept, want 2", n)
	}
	// A statement that fails is not used again, and does not keep a good one from being.
	for range 2 {
		if _, err := db.Exec("INSERT INTO kine (name, prev_revision) VALUES (?, ?)", "a", 1); err == nil {
			t.Fatal("the same revision was stored twice")
		}
	}
	if n := kept(t, db); n != 1 {
		t.Errorf("%d statements are kept after a failure, want 1", n)
	}
	if _, err := db.Exec("INSERT INTO kine (name, prev_revision) VALUES (?, ?)", "b", 1); err != nil {
		t.Error(err)
	}
	if _, err := db.Exec("SELECT nonsense"); err == nil {
		t.Error("nonsense was executed")
	}
}

// The same statement within itself: the rows of the first are still being read.
func TestStatementInUse(t *testing.T) {
	db := preparedDB(t)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	const query = "SELECT value FROM (SELECT 1 AS value UNION SELECT 2 UNION SELECT 3) WHERE value > ?"
	read := func(r *sql.Rows, err error) (all []int) {
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for r.Next() {
			var v int
			if err := r.Scan(&v); err != nil {
				t.Fatal(err)
			}
			all = append(all, v)
		}
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		return all
	}
	outer, err := tx.Query(query, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !outer.Next() {
		t.Fatal("no first row")
	}
	if got := fmt.Sprint(read(tx.Query(query, 1))); got != "[2 3]" {
		t.Errorf("the inner one gives %v", got)
	}
	if got := fmt.Sprint(read(outer, nil)); got != "[2 3]" {
		t.Errorf("the outer one goes on with %v", got)
	}
	if got := fmt.Sprint(read(tx.Query(query, 2))); got != "[3]" {
		t.Errorf("afterwards it gives %v", got)
	}
}

func TestMoreStatementsThanAreKept(t *testing.T) {
	db := preparedDB(t)
	for i := range 2 * maxStatements {
		var got int
		if err := db.QueryRow(fmt.Sprintf("SELECT %d", i)).Scan(&got); err != nil || got != i {
			t.Fatalf("SELECT %d gives %d: %v", i, got, err)
		}
	}
	if n := kept(t, db); n != maxStatements {
		t.Errorf("%d statements are kept, want %d", n, maxStatements)
	}
}

// What is cut off by its context is an error of that context, and the statement works for the next.
func TestStatementIsInterrupted(t *testing.T) {
	db := preparedDB(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	const query = "SELECT count(*) FROM kine"
	if err := db.QueryRowContext(ctx, query).Scan(new(int)); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if err := db.QueryRowContext(t.Context(), query).Scan(new(int)); err != nil {
		t.Error(err)
	}
}
