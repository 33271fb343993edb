package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

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

// A ModuleLoader loads modules by name or for devices, each file once.
type ModuleLoader struct {
	dir     string
	modules *Modules

	mu     sync.Mutex
	loaded map[string]error
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
	return &ModuleLoader{dir: dir, modules: m, loaded: map[string]error{}}, nil
}

// Load loads a module and what it needs. Whatever else could not be loaded, it is about the module itself that the error
// tells: a checksum with the processor's instructions, say, is only wished for, and not to be had on all processors.
func (l *ModuleLoader) Load(name string) error {
	files, own, err := l.modules.Order(name)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, file := range files {
		if _, done := l.loaded[file]; !done {
			l.loaded[file] = LoadModule(filepath.Join(l.dir, file))
		}
	}
	return l.loaded[own]
}

// Serve loads the drivers for a device.
func (l *ModuleLoader) Serve(modalias string) error {
	var failed []error
	for _, name := range l.modules.Match(modalias) {
		failed = append(failed, l.Load(name))
	}
	return errors.Join(failed...)
}

// Coldplug loads the drivers of all devices that the kernel has found so far. Drivers find further devices, which
// [ModuleLoader.Hotplug] hears of.
func (l *ModuleLoader) Coldplug() error {
	files, err := filepath.Glob("/sys/bus/*/devices/*/modalias")
	if err != nil {
		return err
	}
	var failed []error
	for _, file := range files {
		// A device may be gone between the two.
		if text, err := os.ReadFile(file); err == nil {
			failed = append(failed, l.Serve(strings.TrimSpace(string(text))))
		}
	}
	return errors.Join(failed...)
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
				if err := l.Serve(alias); err != nil {
					report(err)
				}
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
