package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bootFlags are those of the mounted boot partition. With dirsync changes of folders reach the disk in the order in which
// they are made: a rename on FAT is three of them, and the name of the only boot image must not go before the new one is
// there. A remount keeps it, but cannot set it.
const bootFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_DIRSYNC

// MountBoot mounts the boot partition read-only. A cut rename leaves two names of one file; when both are removed vfat
// finds the file's clusters free already and, without errors=continue, would allow no more changes until the next boot.
func MountBoot(device, target string) error {
	return Mount{Source: device, Target: target, Type: "vfat", Flags: bootFlags | unix.MS_RDONLY, Data: "umask=0077,utf8,errors=continue"}.Do()
}

// A BootDirectory is the boot partition as [MountBoot] has mounted it on that path. The first change makes it writable,
// Sync read-only again.
type BootDirectory string

func (d BootDirectory) join(name string) string { return filepath.Join(string(d), name) }

func (d BootDirectory) writable() error { return Remount(string(d), bootFlags) }

// List returns the sizes of the files of a folder, by name.
func (d BootDirectory) List(dir string) (map[string]int64, error) {
	entries, err := os.ReadDir(d.join(dir))
	if err != nil {
		return nil, err
	}
	files := map[string]int64{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		files[e.Name()] = info.Size()
	}
	return files, nil
}

// Create writes a file that did not exist, and returns when its content is on the disk.
func (d BootDirectory) Create(name string, content io.Reader) (err error) {
	if err := d.writable(); err != nil {
		return err
	}
	f, err := os.OpenFile(d.join(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, content); err != nil {
		return fmt.Errorf("cannot write %s: %w", d.join(name), err)
	}
	return f.Sync()
}

// Rename renames a file. It must not replace one that has content.
func (d BootDirectory) Rename(from, to string) error {
	if err := d.writable(); err != nil {
		return err
	}
	return os.Rename(d.join(from), d.join(to))
}

// Remove removes a file.
func (d BootDirectory) Remove(name string) error {
	if err := d.writable(); err != nil {
		return err
	}
	return os.Remove(d.join(name))
}

// Sync returns when all is on the disk. syncfs(2) of vfat leaves it in the disk's own cache; fsync(2) of a folder does not.
func (d BootDirectory) Sync() error {
	return errors.Join(SyncFilesystem(string(d)), syncFolder(string(d)), Remount(string(d), bootFlags|unix.MS_RDONLY))
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
