package node

import (
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/contexts"
	"github.com/skerryos/skerry/builder/node/nodetest"
)

func TestFingerprint(t *testing.T) {
	d := start(t, nodetest.Config{}, newContext(t))
	got, err := Fingerprint(t.Context(), d.Address())
	if want := contexts.Fingerprint(d.Certificate()); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	d.Close()
	if _, err := Fingerprint(t.Context(), d.Address()); err == nil || !strings.HasPrefix(err.Error(), "cannot ask device 127.0.0.1:") {
		t.Errorf("of a device that is off: %v", err)
	}
	if _, err := Fingerprint(t.Context(), "https://edge"); err == nil {
		t.Error("of something that is no address: no error")
	}
}
