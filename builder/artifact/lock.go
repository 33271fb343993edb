package artifact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Lock makes this process the store's only user until the returned function is called. It does not wait: a second
// build into the same folder would only undo the work of the first.
func (s *Store) Lock() (unlock func(), err error) {
	name := filepath.Join(s.dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock artefact store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot build into %s: another build is using it; wait for it to end, or give another folder with --output", filepath.Dir(s.dir))
		}
		return nil, fmt.Errorf("cannot lock artefact store: %w", err)
	}
	// The lock goes with the open file, so a process that dies does not leave one behind.
	return func() { f.Close() }, nil
}
