package machine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeKernel takes modules as a kernel does: only after those that they need.
type fakeKernel struct {
	t    *testing.T
	deps map[string][]string // own name → names
	bad  map[string]bool

	mu     sync.Mutex
	loaded []string
	hold   chan struct{} // if not nil, loading waits for it to be closed
	begun  chan string
}

func (k *fakeKernel) load(file string) error {
	name := ModuleName(file)
	if k.hold != nil {
		k.begun <- name
		<-k.hold
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.deps[name] {
		if !strings.Contains(" "+strings.Join(k.loaded, " ")+" ", " "+d+" ") {
			return fmt.Errorf("%s: unknown symbol of %s", name, d)
		}
	}
	if k.bad[name] {
		return fmt.Errorf("%s: no such device", name)
	}
	k.loaded = append(k.loaded, name)
	return nil
}

func testLoader(t *testing.T, k *fakeKernel) *ModuleLoader {
	t.Helper()
	m, err := ReadModules(moduleTables)
	if err != nil {
		t.Fatal(err)
	}
	k.t, k.deps = t, map[string][]string{}
	for file, deps := range m.needs {
		for _, d := range deps {
			k.deps[ModuleName(file)] = append(k.deps[ModuleName(file)], ModuleName(d))
		}
	}
	return newModuleLoader("/modules", m, k.load)
}

// Many at once load overlapping sets: each file goes to the kernel once, after all that it needs.
func TestLoadAll(t *testing.T) {
	for range 200 {
		k := &fakeKernel{}
		l := testLoader(t, k)
		var all sync.WaitGroup
		for _, names := range [][]string{{"ext4", "erofs", "a"}, {"a", "b", "c"}, {"b", "igb", "ext4"}} {
			all.Go(func() {
				if err := l.LoadAll(names); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		seen := map[string]bool{}
		for _, n := range k.loaded {
			if seen[n] {
				t.Fatalf("%s was loaded twice: %v", n, k.loaded)
			}
			seen[n] = true
		}
		if len(seen) != 13 {
			t.Fatalf("loaded %v", k.loaded)
		}
	}
}

func TestLoadTellsOfTheModuleItself(t *testing.T) {
	for _, c := range []struct{ bad, load, fail string }{
		// wished for only
		{"crc32c_intel", "ext4", ""},
		{"crc32c_intel", "wisher", ""},
		{"dca", "igb", "igb: unknown symbol of dca"},
		{"igb", "igb", "igb: no such device"},
	} {
		l := testLoader(t, &fakeKernel{bad: map[string]bool{c.bad: true}})
		for range 2 { // the second time from memory
			err := l.Load(c.load)
			if (err == nil) != (c.fail == "") || (err != nil && err.Error() != c.fail) {
				t.Errorf("%s without %s: error %v, want %q", c.load, c.bad, err, c.fail)
			}
		}
	}
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	k := &fakeKernel{hold: make(chan struct{}), begun: make(chan string, 1)}
	l := testLoader(t, k)
	result := make(chan error, 1)
	go func() { result <- l.Load("igb") }()
	await(t, "the load", k.begun)
	if err := l.Stop(time.Millisecond); err == nil || !strings.Contains(err.Error(), "dca") {
		t.Errorf("got %v, want the name of the module", err)
	}
	close(k.hold)
	await(t, "the end of the load", result)
}

func TestStopWaitsForWhatIsBeingLoaded(t *testing.T) {
	k := &fakeKernel{hold: make(chan struct{}), begun: make(chan string, 1)}
	l := testLoader(t, k)
	result := make(chan error, 1)
	go func() { result <- l.Load("igb") }()
	await(t, "the load", k.begun)
	stopped := make(chan struct{})
	go func() {
		if err := l.Stop(time.Minute); err != nil {
			t.Error(err)
		}
		close(stopped)
	}()
	// From when Stop has been called on, nothing new begins; dca is under way.
	for {
		l.mu.Lock()
		s := l.stopped
		l.mu.Unlock()
		if s {
			break
		}
	}
	select {
	case <-stopped:
		t.Fatal("Stop returned while a module was being loaded")
	default:
	}
	close(k.hold)
	await(t, "the end of Stop", stopped)
	if err := await(t, "the end of the load", result); !errors.Is(err, errStopped) {
		t.Errorf("igb, whose turn came after Stop: %v", err)
	}
	if got := strings.Join(k.loaded, " "); got != "dca" {
		t.Errorf("loaded %s", got)
	}
}
