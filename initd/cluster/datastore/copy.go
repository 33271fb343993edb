package datastore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/skerryos/skerry/initd/cluster/durable"
)

// Copy copies the database of one folder into another, as it is at one moment, while a server may use it. When it returns, the
// copy is on the disk; when it fails, there is none.
func Copy(ctx context.Context, from, to string) error {
	source, target := filepath.Join(from, databaseName), filepath.Join(to, databaseName)
	if _, err := os.Stat(source); err != nil {
		return fmt.Errorf("cannot copy the datastore: %w", err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("cannot copy the datastore: %w", err)
	}
	if _, err := os.Lstat(target); err == nil {
		return fmt.Errorf("cannot copy the datastore: %s exists, and is left as it is", target)
	}
	if err := vacuumInto(ctx, source, target); err != nil {
		return fmt.Errorf("cannot copy the datastore: %w", errors.Join(err, os.RemoveAll(target)))
	}
	return errors.Join(syncFile(target), durable.SyncDir(to))
}

// vacuumInto reads within one transaction (SQLite manual, VACUUM), so that writers neither wait nor are seen.
func vacuumInto(ctx context.Context, source, target string) (err error) {
	db, err := sql.Open("sqlite", "file:"+source+"?_pragma=busy_timeout(30000)") // kine registers it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", target)
	return err
}
