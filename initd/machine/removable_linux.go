package machine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Volume is a file system on a disk that people plug in and pull out.
type Volume struct {
	// Path is the device node.
	Path string
	// Type is "vfat" or "ext4" (which stands for ext2 and ext3, too), or the name of a file system that is known and cannot be
	// mounted here, such as "exfat".
	Type string
	// ID is the type and what the file system was named with when it was made: another one as good as never has the same.
	ID string
}

// RemovableVolumes lists the file systems on removable disks. A disk with partitions of Skerry is none, even if it is on USB:
// the machine may run from it.
func RemovableVolumes() ([]Volume, error) {
	paths, err := removable("/sys/block", hasMBR)
	if err != nil {
		return nil, err
	}
	var volumes []Volume
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue // pulled out
		}
		head := make([]byte, identifyBytes)
		n, err := io.ReadFull(f, head)
		_ = f.Close()
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			continue
		}
		if kind, id := identify(head[:n]); kind != "" {
			volumes = append(volumes, Volume{Path: path, Type: kind, ID: kind + "-" + id})
		}
	}
	return volumes, nil
}

// removable lists the device nodes that may have a file system: the partitions of removable disks, and those disks that have none.
// sys is /sys/block; numbered tells whether a disk is Skerry's although its partitions have no names.
func removable(sys string, numbered func(disk string) bool) ([]string, error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil, fmt.Errorf("cannot list disks: %w", err)
	}
	var paths []string
	for _, e := range entries {
		dir := filepath.Join(sys, e.Name())
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil || readLine(filepath.Join(dir, "size")) == "0" {
			continue // not a disk, or a card reader without a card
		}
		// A bit of the medium, which large USB disks do not set; so the bus counts, too.
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || readLine(filepath.Join(dir, "removable")) != "1" && !strings.Contains(real, "/usb") {
			continue
		}
		parts, err := filepath.Glob(filepath.Join(dir, e.Name()+"*", "partition"))
		if err != nil {
			return nil, err
		}
		own := numbered("/dev/" + e.Name())
		nodes := []string{"/dev/" + e.Name()}
		if len(parts) > 0 {
			nodes = nil
		}
		for _, p := range parts {
			p = filepath.Dir(p)
			own = own || strings.HasPrefix(readUevent(filepath.Join(p, "uevent"))["PARTNAME"], "skerry-")
			nodes = append(nodes, "/dev/"+filepath.Base(p))
		}
		if !own {
			paths = append(paths, nodes...)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// identifyBytes are enough to tell a file system by.
const identifyBytes = 2048

// identify tells which file system begins with these bytes, and what it is named with.
func identify(head []byte) (kind, id string) {
	head = append(slices.Clone(head), make([]byte, max(0, identifyBytes-len(head)))...)
	le := binary.LittleEndian
	serial := func(at int) string { return fmt.Sprintf("%04x-%04x", le.Uint16(head[at+2:]), le.Uint16(head[at:])) }
	switch {
	case le.Uint16(head[ext4Superblock+0x38:]) == 0xef53:
		u := head[ext4Superblock+0x68:]
		return "ext4", fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
	case head[510] != 0x55 || head[511] != 0xaa:
		return "", ""
	// Microsoft's FAT specification, section 3.3: not decisive by the letter, but all that make one write it.
	case bytes.HasPrefix(head[82:], []byte("FAT32   ")):
		return "vfat", serial(67)
	case bytes.HasPrefix(head[54:], []byte("FAT12   ")), bytes.HasPrefix(head[54:], []byte("FAT16   ")):
		return "vfat", serial(39)
	case bytes.HasPrefix(head[3:], []byte("EXFAT   ")):
		return "exfat", serial(100)
	case bytes.HasPrefix(head[3:], []byte("NTFS    ")):
		return "ntfs", fmt.Sprintf("%016x", le.Uint64(head[72:]))
	}
	return "", ""
}

// Mount mounts the volume so that nothing is written to it, not even what its journal has left to do, and nothing on it is
// run.
func (v Volume) Mount(target string) error {
	data := ""
	switch v.Type {
	case "vfat":
	case "ext4":
		data = "noload"
	default:
		return fmt.Errorf("cannot mount %s: a file system %s cannot be read here; format it with FAT32 or ext4", v.Path, v.Type)
	}
	return Mount{v.Path, target, v.Type, unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, data}.Do()
}

// Unmount unmounts a file system. One whose disk was pulled out, or that is still read, goes when that ends.
func Unmount(target string) error {
	err := unix.Unmount(target, 0)
	if err != nil {
		err = unix.Unmount(target, unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("cannot unmount %s: %w", target, err)
	}
	return nil
}

// DiskEvents tells that disks or partitions have come or gone, until ctx is done; several events in a row may be told as one.
// Look at the present state once after the call.
func DiskEvents(ctx context.Context) (<-chan struct{}, error) {
	events, err := Uevents(ctx)
	if err != nil {
		return nil, err
	}
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		for e := range events {
			if e["SUBSYSTEM"] != "block" {
				continue
			}
			select {
			case changed <- struct{}{}:
			default: // told already
			}
		}
	}()
	return changed, nil
}
