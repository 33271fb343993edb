package machine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A driver that does not stop its device keeps the kernel from neither end.
func TestEndOfAMachineWithAStuckDriver(t *testing.T) {
	trigger := filepath.Join(t.TempDir(), "sysrq-trigger")
	if err := unix.Mkfifo(trigger, 0o600); err != nil {
		t.Fatal(err)
	}
	told, err := os.OpenFile(trigger, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	// next is what the kernel is told within wait, empty for nothing.
	next := func(wait time.Duration) string {
		b := make([]byte, 16)
		if err := told.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		n, err := told.Read(b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	refused := errors.New("refused")
	if err := end(func() error { return refused }, trigger, time.Hour); err != refused {
		t.Errorf("a kernel that refuses: %v", err)
	}
	if got := next(time.Millisecond); got != "" {
		t.Errorf("a kernel that refuses was told %q", got)
	}
	_ = end(func() error { // stuck until the other way was taken
		if got := next(10 * time.Second); got != "b" {
			t.Errorf("a kernel that is stuck was told %q, want b", got)
		}
		return nil
	}, trigger, time.Millisecond)
	if err := end(func() error { return refused }, trigger+"/none", time.Millisecond); err != refused {
		t.Errorf("a kernel without the other way: %v", err)
	}
}
