package machine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A driver that does not stop its device keeps the kernel from neither end.
func TestEndOfAMachineWithAStuckDriver(t *testing.T) {
	trigger := filepath.Join(t.TempDir(), "sysrq-trigger")
	if err := os.WriteFile(trigger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	written := func() string {
		b, err := os.ReadFile(trigger)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	refused := errors.New("refused")
	if err := end(func() error { return refused }, trigger, time.Hour); err != refused || written() != "" {
		t.Errorf("a kernel that refuses: %v, %q", err, written())
	}
	_ = end(func() error { // stuck until the other way was taken
		for begun := time.Now(); written() == "" && time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
		}
		return nil
	}, trigger, time.Millisecond)
	if written() != "b" {
		t.Errorf("a kernel that is stuck was told %q, want b", written())
	}
	if err := end(func() error { return refused }, trigger+"/none", time.Millisecond); err != refused {
		t.Errorf("a kernel without the other way: %v", err)
	}
}
