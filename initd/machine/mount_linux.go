package machine

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Mount is one line of a mount table.
type Mount struct {
	Source, Target, Type string
	Flags                uintptr
	Data                 string
}

// Do makes the mount point if it is missing and mounts.
func (m Mount) Do() error {
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		return fmt.Errorf("cannot make mount point %s: %w", m.Target, err)
	}
	if err := unix.Mount(m.Source, m.Target, m.Type, m.Flags, m.Data); err != nil {
		return fmt.Errorf("cannot mount %s (%s, %q) on %s: %w", m.Source, m.Type, m.Data, m.Target, err)
	}
	return nil
}

// SwitchRoot makes root the root of the file system tree and moves /dev, /proc, /sys and /run into it. What the old
// root holds in memory must have been removed before.
func SwitchRoot(root string) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := unix.Mount(dir, root+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("cannot move %s to %s: %w", dir, root+dir, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(root, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot move %s to /: %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot change the root to %s: %w", root, err)
	}
	return os.Chdir("/")
}

// Remount changes the flags of a mounted file system.
func Remount(target string, flags uintptr) error {
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("cannot remount %s: %w", target, err)
	}
	return nil
}

// ShareMounts makes all mounts below / propagate to the mount namespaces of containers and back, which Kubernetes builds
// upon; the kernel starts with private ones (mount_namespaces(7)).
func ShareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("cannot share the mounts below /: %w", err)
	}
	return nil
}

// SyncFilesystem returns when all that was written to the file system of path is on its medium.
func SyncFilesystem(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("cannot sync %s: %w", path, err)
	}
	return nil
}

// SyncAll writes everything to disk, but waits for that no longer than limit: a dead disk never answers.
func SyncAll(limit time.Duration) {
	done := make(chan struct{})
	go func() { unix.Sync(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// MountPoints are the targets of all mounts, in the order in which they were mounted (see proc_pid_mountinfo(5)).
func MountPoints() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountInfo(string(text)), nil
}

func parseMountInfo(text string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, unescape.Replace(fields[4]))
		}
	}
	return points
}

// UnmountBelow unmounts everything at and below dir, the last mounted first, and returns what did not work. A busy
// file system is remounted read-only instead, which is enough to lose nothing.
func UnmountBelow(dir string) error {
	points, err := MountPoints()
	if err != nil {
		return err
	}
	var failed []error
	for i := len(points) - 1; i >= 0; i-- {
		p := points[i]
		if p != dir && !strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") {
			continue
		}
		if err := unix.Unmount(p, 0); err == nil {
			continue
		}
		if err := Remount(p, unix.MS_RDONLY); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// Space is what a file system has, in bytes.
type Space struct {
	// Free is what programs without privileges may still write.
	Free, Total uint64
}

// FreeSpace asks the file system that a path is on; see statfs(2).
func FreeSpace(path string) (Space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Space{}, fmt.Errorf("cannot tell how much room %s has: %w", path, err)
	}
	block := uint64(fs.Bsize)
	return Space{Free: fs.Bavail * block, Total: fs.Blocks * block}, nil
}
