package machine

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Verity names what protects a root file system: the hash of its tree and where the tree starts. Both come from the
// signed kernel command line.
type Verity struct {
	// RootHash is in hexadecimal.
	RootHash string
	// Blocks is the number of 4096-byte blocks of the file system; the superblock of the tree is the next one.
	Blocks uint64
}

const verityBlock = 4096

// table is the target's line for the device mapper
// (https://docs.kernel.org/admin-guide/device-mapper/verity.html), from the superblock in dev
// (https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity).
func (v Verity) table(dev string) (string, error) {
	f, err := os.Open(dev)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, int64(v.Blocks)*verityBlock); err != nil {
		return "", fmt.Errorf("cannot read verity superblock of %s: %w", dev, err)
	}
	le := binary.LittleEndian
	if string(b[:8]) != "verity\x00\x00" || le.Uint32(b[8:]) != 1 {
		return "", fmt.Errorf("%s has no verity superblock at block %d: another image than this kernel's was written there", dev, v.Blocks)
	}
	if got := le.Uint64(b[72:]); got != v.Blocks || le.Uint32(b[64:]) != verityBlock || le.Uint32(b[68:]) != verityBlock {
		return "", fmt.Errorf("verity superblock of %s is for %d blocks of %d bytes, the kernel command line says %d", dev, got, le.Uint32(b[64:]), v.Blocks)
	}
	size := le.Uint16(b[80:])
	if size > 256 {
		return "", fmt.Errorf("verity superblock of %s has a salt of %d bytes", dev, size)
	}
	algorithm, _, _ := bytes.Cut(b[32:64], []byte{0})
	return fmt.Sprintf("1 %s %s %d %d %d %d %s %s %s", dev, dev, verityBlock, verityBlock, v.Blocks, v.Blocks+1,
		algorithm, v.RootHash, hex.EncodeToString(b[88:88+size])), nil
}

// Open makes the device mapper device name over dev that returns only bytes that the root hash vouches for, and an
// error for all others. It returns the path of its node.
func (v Verity) Open(name, dev string) (string, error) {
	table, err := v.table(dev)
	if err != nil {
		return "", err
	}
	ctl, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("cannot open the device mapper: %w", err)
	}
	defer ctl.Close()
	made, err := dmIoctl(ctl, dmDevCreate, name, 0, "", 0, "")
	if err != nil {
		return "", fmt.Errorf("cannot make verity device %s: %w", name, err)
	}
	if _, err := dmIoctl(ctl, dmTableLoad, name, dmReadOnly, "verity", v.Blocks*verityBlock/sectorSize, table); err != nil {
		return "", fmt.Errorf("cannot protect %s by verity (%s): %w", dev, table, err)
	}
	if _, err := dmIoctl(ctl, dmDevSuspend, name, dmReadOnly, "", 0, ""); err != nil {
		return "", fmt.Errorf("cannot start verity device %s: %w", name, err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(made)), nil
}

// Device mapper ioctls (include/uapi/linux/dm-ioctl.h): a header, then for a table load one target with its line.
const (
	dmDevCreate  = 3
	dmDevSuspend = 6 // without the suspend flag it resumes
	dmTableLoad  = 9
	dmReadOnly   = 1 << 0

	dmHeader = 312
	dmTarget = 40
)

// dmIoctl returns the number of the device that it was about.
func dmIoctl(ctl *os.File, command uintptr, name string, flags uint32, target string, sectors uint64, line string) (uint64, error) {
	le := binary.LittleEndian
	size := dmHeader
	if target != "" {
		size += dmTarget + (len(line)/8+1)*8
	}
	if len(name) > 127 || size > 1<<14 {
		return 0, errors.New("name or table is too long for the device mapper")
	}
	b := make([]byte, max(size, 1<<12))
	le.PutUint32(b[0:], 4) // version 4.0.0
	le.PutUint32(b[12:], uint32(len(b)))
	le.PutUint32(b[16:], dmHeader)
	le.PutUint32(b[28:], flags)
	copy(b[48:], name)
	if target != "" {
		le.PutUint32(b[20:], 1)
		t := b[dmHeader:]
		le.PutUint64(t[8:], sectors)
		le.PutUint32(t[20:], uint32(size-dmHeader))
		copy(t[24:], target)
		copy(t[dmTarget:], line)
	}
	request := uintptr(3<<30 | dmHeader<<16 | 0xfd<<8 | command)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, ctl.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return 0, errno
	}
	return le.Uint64(b[40:]), nil
}
