package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LoadModule gives one module file to the kernel, which decompresses .xz itself. A module that is there already is fine.
func LoadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("cannot load kernel module: %w", err)
	}
	defer f.Close()
	flags := 0
	if filepath.Ext(file) != ".ko" {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), "", flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot load kernel module %s: %w", file, err)
	}
	return nil
}

// A ModuleLoader loads modules by name or for devices, each file once. It can be used by many at the same time: one that
// needs what another is loading waits for it.
type ModuleLoader struct {
	dir     string
	modules *Modules
	load    func(file string) error

	mu      sync.Mutex
	files   map[string]*loading
	stopped bool
	running sync.WaitGroup
}

// loading is one file; err may be read when done is closed.
type loading struct {
	done chan struct{}
	err  error
}

// NewModuleLoader reads the module tables of the running kernel.
func NewModuleLoader() (*ModuleLoader, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("cannot ask for the kernel's release: %w", err)
	}
	dir := "/usr/lib/modules/" + unix.ByteSliceToString(uts.Release[:])
	m, err := ReadModules(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	return newModuleLoader(dir, m, LoadModule), nil
}

func newModuleLoader(dir string, m *Modules, load func(string) error) *ModuleLoader {
	return &ModuleLoader{dir: dir, modules: m, load: load, files: map[string]*loading{}}
}

// errStopped is about modules that were asked for after Stop.
var errStopped = errors.New("modules are not loaded any more")

// Stop returns when no module is being loaded, and from then on none is. A module that does not come to an end within the limit is an error.
func (l *ModuleLoader) Stop(limit time.Duration) error {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	idle := make(chan struct{})
	go func() { l.running.Wait(); close(idle) }()
	select {
	case <-idle:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("a driver is stuck: still loading after %v: %s", limit, strings.Join(l.unfinished(), ", "))
	}
}

// unfinished are the files of modules that are being loaded.
func (l *ModuleLoader) unfinished() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for file, p := range l.files {
		select {
		case <-p.done:
		default:
			names = append(names, file)
		}
	}
	slices.Sort(names)
	return names
}

func (l *ModuleLoader) loadFile(file string) error {
	l.mu.Lock()
	if p, ok := l.files[file]; ok {
		l.mu.Unlock()
		<-p.done
		return p.err
	}
	if l.stopped {
		l.mu.Unlock()
		return errStopped
	}
	p := &loading{done: make(chan struct{})}
	l.files[file] = p
	l.running.Add(1)
	l.mu.Unlock()
	defer l.running.Done()
	p.err = l.load(filepath.Join(l.dir, file))
	close(p.done)
	return p.err
}

// Load loads a module and what it needs. Whatever else could not be loaded, it is about the module itself that the error
// tells: a checksum with the processor's instructions, say, is only wished for, and not to be had on all processors.
func (l *ModuleLoader) Load(name string) error {
	files, own, err := l.modules.Order(name)
	if err != nil {
		return err
	}
	for _, file := range files {
		if ferr := l.loadFile(file); file == own {
			err = ferr
		}
	}
	return err
}

// LoadAll loads modules, several at a time, because a module that searches for its hardware mostly waits.
func (l *ModuleLoader) LoadAll(names []string) error {
	failed := make([]error, len(names))
	var all sync.WaitGroup
	places := make(chan struct{}, 2*runtime.NumCPU())
	for i, name := range names {
		places <- struct{}{}
		all.Go(func() {
			failed[i] = l.Load(name)
			<-places
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// Coldplug loads the drivers of all devices that the kernel has found so far. Drivers find further devices, which
// [ModuleLoader.Hotplug] hears of.
func (l *ModuleLoader) Coldplug() error {
	files, err := filepath.Glob("/sys/bus/*/devices/*/modalias")
	if err != nil {
		return err
	}
	var names []string
	for _, file := range files {
		// A device may be gone between the two.
		if text, err := os.ReadFile(file); err == nil {
			names = append(names, l.modules.Match(strings.TrimSpace(string(text)))...)
		}
	}
	slices.Sort(names)
	return l.LoadAll(slices.Compact(names))
}

// Hotplug loads drivers for devices as they appear, until ctx is done; report gets what could not be loaded.
func (l *ModuleLoader) Hotplug(ctx context.Context, events <-chan Uevent, report func(error)) {
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			if alias := e["MODALIAS"]; alias != "" && e["ACTION"] == "add" {
				// A driver that takes its time must not hold up the next device's.
				go func() {
					if err := l.LoadAll(l.modules.Match(alias)); err != nil {
						report(err)
					}
				}()
			}
		case <-ctx.Done():
			return
		}
	}
}

// A Uevent is what the kernel says about a device: ACTION, DEVPATH, SUBSYSTEM and others by name.
type Uevent map[string]string

// Uevents subscribes to the kernel's device events (netlink(7), NETLINK_KOBJECT_UEVENT) until ctx is done. Events that
// come faster than they are read are dropped after the kernel's buffer is full, so that readers must look at the present
// state once after they have subscribed.
func Uevents(ctx context.Context) (<-chan Uevent, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot listen for device events: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	f := os.NewFile(uintptr(fd), "uevents")
	events := make(chan Uevent, 64)
	context.AfterFunc(ctx, func() { f.Close() })
	go func() {
		defer close(events)
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if errors.Is(err, unix.ENOBUFS) {
				continue
			}
			if err != nil {
				return
			}
			e := Uevent{}
			for field := range strings.SplitSeq(string(buf[:n]), "\x00") {
				if k, v, ok := strings.Cut(field, "="); ok {
					e[k] = v
				}
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}
