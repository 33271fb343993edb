package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skerryos/skerry/initd/machine"
)

// fsTimeout bounds mke2fs and e2fsck: a full check of a large, slow disk takes many minutes.
const fsTimeout = time.Hour

// data mounts the data partition on /var. On the first boot it makes the partition behind the slots and the file system
// on it; when the image was copied to a larger disk later, both grow.
func (r *root) data(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fsTimeout)
	defer cancel()
	text, err := os.ReadFile(dataSizeFile)
	if err != nil {
		return err
	}
	minimum, err := strconv.ParseInt(trimmed(text), 10, 64)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", dataSizeFile, err)
	}
	var id machine.GUID
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	id[7], id[8] = id[7]&0x0f|0x40, id[8]&0x3f|0x80 // a version 4 UUID, in the table's byte order
	device, err := machine.ExtendPartition(r.disk, machine.DataPartition, machine.VarPartition, id, minimum)
	if err != nil {
		return err
	}
	if err := r.makeFilesystem(ctx, device); err != nil {
		return err
	}
	if err := r.checkFilesystem(ctx, device); err != nil {
		return err
	}
	if err := r.growFilesystem(ctx, device); err != nil {
		r.problem("the data file system could not grow to the size of its partition, and keeps its size: " + err.Error())
	}
	r.need("ext4")
	// commit: metadata that nobody asked to be synced may wait longer, which saves a card many writes.
	err = machine.Mount{Source: device, Target: "/var", Type: "ext4", Flags: unix.MS_NOATIME,
		Data: "commit=30,errors=remount-ro"}.Do()
	if err != nil {
		return fmt.Errorf("%w; nothing on it was changed", err)
	}
	for _, dir := range dataDirs("/var") {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// dataDirs are the folders that are always there.
func dataDirs(top string) []string { return []string{top + "/lib", top + "/log", top + "/tmp"} }

// The data file system has blocks of this size, in bytes, however small its partition is; the first copy of its superblock
// is in this block (mke2fs(8)).
const (
	blockSize        = 4096
	backupSuperblock = 32768
)

// ext4Magic is at magicOffset in each superblock, with which the block of a copy begins (the kernel's
// Documentation/filesystems/ext4/super.rst).
const (
	ext4Magic   = 0xef53
	magicOffset = 0x38
)

// makeFilesystem makes the file system on a partition that never had one. A file system whose first block is damaged has
// copies of it further on, and is left for e2fsck to repair. What e2fsck thinks of such a copy does not count: it may fail
// for many reasons, and mke2fs would then delete what could be repaired.
func (r *root) makeFilesystem(ctx context.Context, device string) error {
	size, _, err := machine.Filesystem(device)
	if err != nil || size > 0 {
		return err
	}
	if spare, err := hasSpareSuperblock(device); err != nil || spare {
		return err
	}
	r.logf("making the data file system on %s", device)
	options := "lazy_itable_init=1,lazy_journal_init=1"
	if machine.IsMemoryCard(r.disk.Path) {
		options += ",nodiscard" // to erase a large card takes some cards many minutes, in which they do nothing else
	}
	out, status, err := r.reaper.Output(ctx, "/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(blockSize), "-L", machine.DataPartition,
		"-m", "1", "-E", options, device)
	if err == nil && status != 0 {
		err = fmt.Errorf("mke2fs ended with status %d: %s", status, trimmed(out))
	}
	if err != nil {
		return fmt.Errorf("cannot make the data file system on %s: %w", device, err)
	}
	return nil
}

// hasSpareSuperblock looks for the first copy of the superblock. A partition that ends before it has none.
func hasSpareSuperblock(device string) (bool, error) {
	f, err := os.Open(device)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return isSuperblock(f, backupSuperblock*blockSize)
}

func isSuperblock(r io.ReaderAt, at int64) (bool, error) {
	magic := make([]byte, 2)
	_, err := r.ReadAt(magic, at+magicOffset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("cannot look for a copy of the superblock; nothing was changed: %w", err)
	}
	return binary.LittleEndian.Uint16(magic) == ext4Magic, nil
}

// checkFilesystem repairs what can be repaired (e2fsck(8): status 0 clean, 1 repaired, 2 repaired and reboot wanted, 4 not
// repaired, 8 failed). It is quick on a file system that was unmounted, and replays the journal on one that was not. Only
// the second try reads the copies of a superblock that is damaged: the first, which asks for nothing, fails on it.
func (r *root) checkFilesystem(ctx context.Context, device string) error {
	out, status, err := r.reaper.Output(ctx, "/usr/sbin/e2fsck", "-p", device)
	if err == nil && status > 3 {
		r.logf("the data file system is damaged; repairing it: %s", trimmed(out))
		out, status, err = r.reaper.Output(ctx, "/usr/sbin/e2fsck", "-f", "-y", device)
		if err == nil && status <= 3 {
			r.problem("the data file system was damaged and has been repaired; files in /var/lost+found may have been lost from their places")
		}
	}
	if err == nil && status > 3 {
		err = fmt.Errorf("e2fsck ended with status %d: %s", status, trimmed(out))
	}
	if err != nil {
		return fmt.Errorf("cannot check the data file system on %s: %w", device, err)
	}
	return nil
}

// growSlack is what a file system may leave unused at the end of its partition, in bytes: the piece of a block group that
// is too small for the group's own tables.
const growSlack = 16 << 20

// growFilesystem looks at the sizes and not at whether the partition has just grown: a power cut may have come between the
// two.
func (r *root) growFilesystem(ctx context.Context, device string) error {
	size, partition, err := machine.Filesystem(device)
	if err != nil || partition-size <= growSlack {
		return err
	}
	r.logf("growing the data file system from %d to %d MiB", size>>20, partition>>20)
	// resize2fs wants a file system that was checked by force.
	for _, program := range [][]string{{"/usr/sbin/e2fsck", "-f", "-p", device}, {"/usr/sbin/resize2fs", device}} {
		out, status, err := r.reaper.Output(ctx, program[0], program[1:]...)
		if err == nil && status > 1 {
			err = fmt.Errorf("%s ended with status %d: %s", program[0], status, trimmed(out))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	// spaceCheck is how often the data partition's free space is looked at: kubelet evicts pods every ten seconds.
	spaceCheck = 5 * time.Second
	// fullBelow and roomAbove are parts of the data partition in thousands: between them nothing is said anew. Kubelet evicts
	// below 50, so that it takes a fast writer, or one that is no pod, to come that far.
	fullBelow, roomAbove = 30, 60
)

// watchSpace reports a data partition that is full, and takes that back when there is room again.
func (r *root) watchSpace(ctx context.Context) {
	tick := time.NewTicker(spaceCheck)
	defer tick.Stop()
	var reported string
	for {
		space, err := machine.FreeSpace("/var")
		switch {
		case err != nil:
			r.problem(err.Error())
			return
		case reported == "" && space.Free*1000 < space.Total*fullBelow:
			reported = fmt.Sprintf("the data partition is full: %d of %d MiB are free; pods cannot store anything, and changes of the cluster are refused until files or pods are deleted",
				space.Free>>20, space.Total>>20)
			r.problem(reported)
		case reported != "" && space.Free*1000 > space.Total*roomAbove:
			r.state.solved(reported)
			reported = ""
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
