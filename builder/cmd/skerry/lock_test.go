package main

import (
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/profile"
)

func TestNotOlder(t *testing.T) {
	lock := func(main, backports string) *profile.Lock {
		l := &profile.Lock{Archive: profile.Archive{Suite: "trixie", Date: main}}
		if backports != "" {
			l.Further = []profile.Archive{{Suite: "trixie-backports", Date: backports}}
		}
		return l
	}
	const early, late = "2026-11-20T08:00:00Z", "2026-11-21T08:00:00Z"
	for _, test := range []struct {
		name        string
		lock, older *profile.Lock
		want        string
	}{
		{"first lock", lock(early, early), &profile.Lock{}, ""},
		{"same", lock(early, early), lock(early, early), ""},
		{"newer", lock(late, late), lock(early, early), ""},
		{"older release", lock(early, late), lock(late, late), "the mirror has trixie as of 2026-11-20T08:00:00Z, and the lock has it as of 2026-11-21T08:00:00Z; the lock is as it was"},
		{"older backports", lock(late, early), lock(late, late), "the mirror has trixie-backports as of"},
		{"a further suite", lock(late, early), lock(late, ""), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := notOlder(test.lock, test.older)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
