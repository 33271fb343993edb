package datastore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"

	"github.com/k3s-io/kine/pkg/drivers/generic"
)

// keepPrepared gives kine connections that keep its statements prepared. Each of them it hands over as text, every time, and to compile that
// takes the driver several times as long as to run it.
func keepPrepared(ctx context.Context, wg *sync.WaitGroup, g *generic.Generic, name string, pool generic.ConnectionPoolConfig) error {
	plain := g.DB
	db := sql.OpenDB(connector{plain.Driver(), name})
	db.SetMaxIdleConns(pool.MaxIdle)
	db.SetConnMaxIdleTime(pool.MaxIdleTime)
	// The new connection first: the last one that is closed folds the log into the database.
	if err := db.PingContext(ctx); err != nil {
		return fmt.Errorf("cannot connect to the database: %w", err)
	}
	if err := plain.Close(); err != nil {
		return fmt.Errorf("cannot close the first connections: %w", err)
	}
	g.DB = db
	wg.Go(func() {
		<-ctx.Done()
		_ = db.Close() // a power cut in its place would lose nothing
	})
	return nil
}

// A connector opens connections that keep statements.
type connector struct {
	driver driver.Driver
	name   string
}

func (c connector) Driver() driver.Driver { return c.driver }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	opened, err := c.driver.Open(c.name)
	if err != nil {
		return nil, err
	}
	plain, ok := opened.(plainConn)
	if !ok {
		_ = opened.Close()
		return nil, fmt.Errorf("connections of the SQLite driver are %T, which lacks what is needed to keep statements", opened)
	}
	return &conn{plainConn: plain, statements: map[string]*statement{}}, nil
}

// plainConn is what the driver's connections can do, as far as database/sql asks for it.
type plainConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// maxStatements bounds what a connection keeps. Kine has some thirty statements.
const maxStatements = 64

// A conn is a connection with its statements. database/sql uses it from one goroutine at a time.
type conn struct {
	plainConn
	statements map[string]*statement
}

// A statement is prepared. While its rows are being read it cannot be executed again.
type statement struct {
	driver.Stmt
	busy bool
}

// statement returns the prepared statement of a text, or [driver.ErrSkip]: database/sql then prepares it for this one time.
func (c *conn) statement(ctx context.Context, query string) (*statement, error) {
	s := c.statements[query]
	if s == nil && len(c.statements) < maxStatements {
		prepared, err := c.PrepareContext(ctx, query)
		if err != nil {
			return nil, err
		}
		s = &statement{Stmt: prepared}
		c.statements[query] = s
	}
	if s == nil || s.busy {
		return nil, driver.ErrSkip
	}
	return s, nil
}

// ExecContext implements [driver.ExecerContext].
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	r, err := s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	if err != nil {
		c.forget(query, s)
	}
	return r, err
}

// QueryContext implements [driver.QueryerContext].
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	r, err := s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		c.forget(query, s)
		return nil, err
	}
	s.busy = true
	return rows{r, s}, nil
}

// forget drops a statement that has failed: it may have stopped anywhere.
func (c *conn) forget(query string, s *statement) {
	delete(c.statements, query)
	_ = s.Close() // it returns the same error once more
}

// Close implements [driver.Conn].
func (c *conn) Close() error {
	for _, s := range c.statements {
		_ = s.Close() // closing the connection tells what matters
	}
	clear(c.statements)
	return c.plainConn.Close()
}

// rows free their statement when they are closed.
type rows struct {
	driver.Rows
	statement *statement
}

func (r rows) Close() error {
	r.statement.busy = false
	return r.Rows.Close()
}
