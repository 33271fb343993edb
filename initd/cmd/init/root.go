package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/initd/boot"
	"github.com/skerryos/skerry/initd/config"
	"github.com/skerryos/skerry/initd/journal"
	"github.com/skerryos/skerry/initd/machine"
	"github.com/skerryos/skerry/initd/network/timesync"
	"github.com/skerryos/skerry/initd/service"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/update"
)

// Where the device's own state is, beside that of the cluster.
const (
	stateDir      = "/var/lib/skerry/machine"
	machineIDFile = stateDir + "/machine-id"
	clockFile     = stateDir + "/clock"
	buildTimeFile = "/usr/lib/skerry/build-time"
	dataSizeFile  = "/usr/lib/skerry/minimum-data-bytes"
)

// root is the second stage: everything from the verified root file system on.
type root struct {
	*process
	loader    *machine.ModuleLoader
	modules   <-chan error // gets the result of loading what Kubernetes needs
	machineID string
	hostname  string
	config    *config.Loaded
	network   *config.Network
	services  atomic.Pointer[service.Supervisor] // set by the boot sequence, asked by others
	journal   *journal.Journal
	slots     slot.Backend
	updater   *update.Updater // nil when there is something wrong with it
	crashed   bool            // the kernel crashed before this boot
	crash     string          // why, as far as it could say it
	clock     *timesync.Syncer
	bootErr   error  // why the boot partition is not mounted
	bootSaved bool   // what configures the device is that of the last boot
	unhealthy error  // why the machine is not healthy
	cordoned  string // the problem of a node that takes no pods
}

func (r *root) actions() map[string]boot.Action {
	return map[string]boot.Action{
		"system-mounts":   r.systemMounts,
		"kernel-settings": r.kernelSettings,
		"drivers":         r.drivers,
		"watchdog":        r.startWatchdog,
		"data":            r.data,
		"boot-partition":  r.bootPartition,
		"reset":           r.reset,
		"etc":             r.etc,
		"identity":        r.identity,
		"clock":           func(context.Context) error { return r.restoreClock() },
		"upgrade":         r.upgrade,
		"config":          r.configure,
		"network":         r.startNetwork,
		"time":            r.startTime,
		"services":        r.startServices,
		"healthy":         r.waitHealthy,
		"mark-good":       r.markGood,
	}
}

func (r *root) systemMounts(context.Context) error {
	for _, m := range []machine.Mount{
		{Source: "devpts", Target: "/dev/pts", Type: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "gid=5,mode=620,ptmxmode=666"},
		{Source: "shm", Target: "/dev/shm", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=1777"},
		{Source: "mqueue", Target: "/dev/mqueue", Type: "mqueue", Flags: nosuid},
		{Source: "tmp", Target: "/tmp", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=1777,size=25%"},
		{Source: "cgroup2", Target: cgroupRoot, Type: "cgroup2", Flags: nosuid, Data: "nsdelegate,memory_recursiveprot"},
		{Source: "bpf", Target: "/sys/fs/bpf", Type: "bpf", Flags: nosuid, Data: "mode=700"},
	} {
		if _, err := os.Stat(m.Target); m.Type == "pstore" && errors.Is(err, fs.ErrNotExist) {
			continue // Debian's kernel for 32 bits has none
		}
		if err := m.Do(); err != nil {
			return err
		}
	}
	// A kernel that keeps nothing over a crash, as Debian's for 32-bit boards, has no place for it, and none can be made.
	if _, err := os.Stat(pstoreDir); !errors.Is(err, fs.ErrNotExist) {
		if err := (machine.Mount{Source: "pstore", Target: pstoreDir, Type: "pstore", Flags: nosuid}).Do(); err != nil {
			return err
		}
	}
	if err := machine.ShareMounts(); err != nil {
		return err
	}
	return machine.EnableControllers(cgroupRoot)
}

// kernelSettings are sysctls, each with its reason.
var kernelSettings = []struct{ name, value, reason string }{
	{"net/ipv4/ip_forward", "1", "pods and services are routed"},
	{"net/ipv6/conf/all/forwarding", "1", "pods and services are routed"},
	{"kernel/panic", "10", "a panic restarts the machine"},
	{"kernel/panic_on_oops", "1", "a kernel that has failed once is not trusted; kubelet asks for it, too"},
	{"vm/panic_on_oom", "0", "kubelet asks for it: the kernel ends a process, not the machine"},
	{"vm/overcommit_memory", "1", "kubelet asks for it"},
	{"vm/max_map_count", "262144", "databases in pods map many files"},
	{"fs/inotify/max_user_instances", "8192", "kubelet and pods watch many files"},
	{"fs/inotify/max_user_watches", "524288", "kubelet and pods watch many files"},
	{"kernel/keys/root_maxkeys", "1000000", "kubelet asks for it"},
	{"kernel/keys/root_maxbytes", "25000000", "kubelet asks for it"},
	{"kernel/printk_devkmsg", "on", "what init and services tell the kernel's log is not dropped when they have much to say"},
	{"kernel/kptr_restrict", "2", "kernel addresses are nobody's business"},
	{"kernel/dmesg_restrict", "1", "the kernel's log is root's"},
	{"fs/protected_hardlinks", "1", "no links to other people's files"},
	{"fs/protected_symlinks", "1", "no following of other people's links in shared folders"},
}

// bridgeSettings exist only once br_netfilter is loaded, which an image without Kubernetes does not have.
var bridgeSettings = []struct{ name, value, reason string }{
	{"net/bridge/bridge-nf-call-iptables", "1", "services work between pods of one bridge"},
	{"net/bridge/bridge-nf-call-ip6tables", "1", "services work between pods of one bridge"},
}

func (r *root) kernelSettings(context.Context) error { return writeSettings(kernelSettings) }

func writeSettings(settings []struct{ name, value, reason string }) error {
	var failed []error
	for _, s := range settings {
		if err := os.WriteFile("/proc/sys/"+s.name, []byte(s.value+"\n"), 0o644); err != nil {
			failed = append(failed, fmt.Errorf("cannot set %s to %s: %w", s.name, s.value, err))
		}
	}
	return errors.Join(failed...)
}

// drivers starts to load what Kubernetes needs and what the devices need, and goes on: see need and awaitModules.
func (r *root) drivers(ctx context.Context) (err error) {
	if r.loader, err = machine.NewModuleLoader(); err != nil {
		return err
	}
	events, err := machine.Uevents(ctx)
	if err != nil {
		return err
	}
	list, err := os.ReadFile(modulesList)
	if err != nil {
		return err
	}
	go r.loader.Hotplug(ctx, events, r.moduleFailed)
	go func() {
		if err := r.loader.Coldplug(); err != nil {
			r.moduleFailed(err)
		}
	}()
	loaded := make(chan error, 1)
	r.modules = loaded
	go func() {
		err := r.loader.LoadAll(strings.Fields(string(list)))
		if berr := writeSettings(bridgeSettings); !errors.Is(berr, fs.ErrNotExist) {
			err = errors.Join(err, berr)
		}
		loaded <- err
	}()
	return nil
}

// need loads file systems that a step is about to mount, in case their turn has not come yet. What is missing or built
// into the kernel shows by the mount.
func (r *root) need(modules ...string) {
	if err := r.loader.LoadAll(modules); err != nil {
		r.moduleFailed(err)
	}
}

// awaitModules waits for what drivers has begun.
func (r *root) awaitModules(ctx context.Context) error {
	select {
	case err := <-r.modules:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watchdogWait is how long the driver of a hardware watchdog may take to find it.
const watchdogWait = 10 * time.Second

// startWatchdog goes on in the background: the driver may be one of those that are loaded for devices of devices.
func (r *root) startWatchdog(ctx context.Context) error {
	if fd, err := strconv.Atoi(os.Getenv(watchdogVariable)); err == nil {
		w, err := machine.InheritWatchdog(fd, watchdogTimeout)
		if err == nil {
			go r.feed(w)
			return nil
		}
		r.debugf("the watchdog of the first stage is lost: %v", err)
	}
	go func() {
		soon, cancel := context.WithTimeout(ctx, watchdogWait)
		w, err := machine.AwaitWatchdog(soon, watchdogTimeout)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			// Better than none: the kernel's own ends a process 1 that hangs, though not a kernel that does.
			if err = r.loader.Load("softdog"); err == nil {
				// The first in order may be a late one of the hardware, whose file is about to appear.
				soon, cancel := context.WithTimeout(ctx, watchdogWait)
				w, err = machine.AwaitWatchdog(soon, watchdogTimeout)
				cancel()
			}
		}
		switch {
		case ctx.Err() != nil: // the machine is going down
		case err != nil:
			r.problem("the machine has no watchdog and would not restart by itself if it hung: " + err.Error())
		default:
			r.feed(w)
		}
	}()
	return nil
}

// bootPartition mounts it. What configures the device lies there: where it cannot be read the device goes on as it was at the last boot,
// or else starts no node, because without its configuration an agent would be the server of another cluster.
func (r *root) bootPartition(context.Context) error {
	err := r.mountBoot()
	if err == nil {
		return nil
	}
	r.bootErr = fmt.Errorf("the boot partition cannot be read: %w", err)
	if lerr := lastBootFiles(savedBootFiles, bootDir); lerr != nil {
		return errors.Join(err, lerr)
	}
	r.bootSaved = true
	return fmt.Errorf("%w; the configuration is that of the last boot", err)
}

func (r *root) mountBoot() error {
	device := r.disk.Parts[machine.BootPartition]
	if device == "" {
		return fmt.Errorf("disk %s has no partition %s", r.disk.Path, machine.BootPartition)
	}
	r.need("vfat", "nls_cp437", "nls_ascii")
	return machine.MountBoot(device, bootDir)
}

// etc: changes live in memory, so that every boot derives /etc anew from image and configuration.
func (r *root) etc(context.Context) error {
	const upper, work = runDir + "/etc/upper", runDir + "/etc/work"
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	r.need("overlay")
	return machine.Mount{Source: "etc", Target: "/etc", Type: "overlay", Data: "lowerdir=/etc,upperdir=" + upper + ",workdir=" + work}.Do()
}

// identity is machine-id(5): 128 random bits, made once and kept on the data partition.
func (r *root) identity(context.Context) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	id, err := os.ReadFile(machineIDFile)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !isMachineID(strings.TrimSpace(string(id)))) {
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return err
		}
		random[6], random[8] = random[6]&0x0f|0x40, random[8]&0x3f|0x80 // a version 4 UUID
		id = []byte(hex.EncodeToString(random) + "\n")
		err = writeDurably(machineIDFile, id)
	}
	if err != nil {
		return fmt.Errorf("cannot make the machine's identity: %w", err)
	}
	r.machineID = trimmed(id)
	if err := stateRoom.keep(); err != nil {
		r.problem(err.Error())
	}
	r.need("efi_pstore") // where the kernel's last words are; a machine without EFI has none
	if err := r.saveCrash(); err != nil {
		r.problem("cannot keep the kernel's last words: " + err.Error())
	}
	return os.WriteFile("/etc/machine-id", id, 0o444)
}

func isMachineID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16
}

// writeDurably replaces a file so that after a power cut it has its old or its new content, and never less.
func writeDurably(file string, content []byte) error {
	if err := renameio.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// restoreClock: a machine without a clock battery starts where it stopped, and not in 1970. That is where it starts, and no
// more: what was written down may be ahead, and then a time server sets the clock back (see newClock).
func (r *root) restoreClock() error {
	err := raiseClock(buildTimeFile)
	if saved := raiseClock(clockFile); !errors.Is(saved, fs.ErrNotExist) {
		err = errors.Join(err, saved)
	}
	return err
}

// saveClock writes the time down. Before there is an identity the data partition is not mounted, and there is nothing to save.
func (r *root) saveClock() error {
	if r.machineID == "" {
		return nil
	}
	return writeDurably(clockFile, strconv.AppendInt(nil, time.Now().Unix(), 10))
}

// configure always leaves the machine with a usable configuration; what was wrong is shown.
func (r *root) configure(context.Context) error {
	sources := config.ReadFiles("/")
	var kept error
	switch {
	case r.bootErr == nil:
		kept = keepBootFiles(bootDir, savedBootFiles)
	case !r.bootSaved:
		sources = append([]config.Source{{Name: bootDir + "/user-data", Err: r.bootErr}}, sources...)
	}
	r.config = config.Load(sources...)
	r.hostname = r.config.Config.Hostname
	if r.hostname == "" {
		r.hostname = config.DefaultHostname(r.machineID)
	}
	r.state.identify(r.hostname)
	hosts := fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 %s\n", r.hostname)
	err := errors.Join(
		machine.SetHostname(r.hostname),
		os.WriteFile("/etc/hostname", []byte(r.hostname+"\n"), 0o644),
		os.WriteFile("/etc/hosts", []byte(hosts), 0o644),
	)
	if len(r.config.Problems) > 0 {
		err = errors.Join(err, r.config.Problems)
	}
	for _, p := range r.config.Config.Ignored() {
		r.logf("%v", p)
	}
	var nerr error
	if r.network, nerr = config.ReadNetwork("/"); nerr != nil {
		nerr = fmt.Errorf("the network is configured by DHCP only, because network-config has mistakes: %w", nerr)
	}
	return errors.Join(err, nerr, kept, configureWifi(wifiDir, supplicantProgram, r.network.Wifis))
}

func trimmed(b []byte) string { return string(bytes.TrimSpace(b)) }
