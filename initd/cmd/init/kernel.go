package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/skerryos/skerry/initd/machine"
)

// kernelReports are what the kernel says that a person must know, by a part of its line.
var kernelReports = []struct{ contains, means string }{
	{" is corrupted", "the root file system is damaged, and the kernel refuses the damaged part; upgrade or write the image anew"},
	{"EXT4-fs error", "the data file system is damaged; it is repaired on the next boot"},
	{remountedReadOnly, "a file system can only be read any more; if it is that of the data, the machine restarts to repair it, after half an hour at the earliest"},
	{"I/O error, dev", "a disk fails to read or write; replace it soon"},
	{"Out of memory: Killed process", "memory ran out and the kernel ended a process"},
}

const (
	// remountedReadOnly is what ext4 says when it gives up writing (errors=remount-ro).
	remountedReadOnly = ": Remounting filesystem read-only"
	// repairUptime is how long the machine is on before it restarts for that. A disk that fails soon after each boot does not keep it from
	// being looked at.
	repairUptime = 30 * time.Minute
)

// dataIsReadOnly says whether a line of the kernel is about the data file system: no other one on the disk is ext4.
func dataIsReadOnly(line, disk string) bool {
	return strings.Contains(line, "EXT4-fs ("+filepath.Base(disk)) && strings.Contains(line, remountedReadOnly)
}

// watchKernel turns what the kernel logs into problems that are shown. It calls repair when only a restart can help, once and as soon as
// the machine may restart for it.
func (r *root) watchKernel(ctx context.Context, repair func()) {
	lines, err := machine.KernelLog(ctx, true)
	if err != nil {
		r.problem(err.Error())
		return
	}
	seen, repairing := map[string]bool{}, false
	kept, own := r.journal.Writer("kernel"), r.journal.Writer("init")
	for line := range lines {
		_, _ = kept.Write([]byte(line + "\n")) // memory that has run out is reported by others
		if text, ok := strings.CutPrefix(line, kernelLogPrefix); ok {
			_, _ = own.Write([]byte(text + "\n"))
		}
		if !repairing && dataIsReadOnly(line, r.disk.Path) {
			repairing = true
			timer := time.AfterFunc(repairUptime-machine.Uptime(), repair)
			defer timer.Stop()
		}
		for _, k := range kernelReports {
			if strings.Contains(line, k.contains) && !seen[k.contains] {
				seen[k.contains] = true
				r.problem(k.means + " (kernel: " + strings.TrimSpace(line) + ")")
			}
		}
	}
}

const (
	// logDir holds the logs of the last boot that was stopped in order, or by a failure that init saw.
	logDir    = stateDir + "/log"
	crashDir  = stateDir + "/crash"
	pstoreDir = "/sys/fs/pstore"
	// savedCrashes is how many crashes are kept.
	savedCrashes = 4
)

// saveCrash keeps what a kernel that crashed left in memory that survives a reset, and frees that memory.
func (r *root) saveCrash() error {
	left, err := filepath.Glob(pstoreDir + "/*")
	if err != nil || len(left) == 0 {
		return err
	}
	dir, err := newCrash()
	if err != nil {
		return err
	}
	var failed []error
	for _, file := range left {
		b, err := os.ReadFile(file)
		if err == nil {
			err = writeDurably(filepath.Join(dir, filepath.Base(file)), b)
		}
		if err == nil {
			err = os.Remove(file)
		}
		failed = append(failed, err)
	}
	r.crashed, r.crash = true, crashReason(dir)
	return errors.Join(failed...)
}

// newCrash makes a folder for the newest crash.
func newCrash() (string, error) {
	if err := os.MkdirAll(crashDir, 0o700); err != nil {
		return "", err
	}
	if err := rotate(crashDir, savedCrashes); err != nil {
		return "", err
	}
	dir := filepath.Join(crashDir, "0")
	return dir, os.Mkdir(dir, 0o700)
}

// rotate makes room for a folder 0 in dir: 0 becomes 1, and so on, and the last one is removed.
func rotate(dir string, keep int) error {
	name := func(i int) string { return filepath.Join(dir, string(rune('0'+i))) }
	if err := os.RemoveAll(name(keep - 1)); err != nil {
		return err
	}
	for i := keep - 2; i >= 0; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// saveLogs keeps the logs of this boot for the next one: those of an ordinary stop in place of the last ones, those of a
// failure beside those of former failures.
func (r *root) saveLogs(why ending) error {
	if r.machineID == "" { // nowhere to save them
		return nil
	}
	dir := logDir
	if why == crashed {
		var err error
		if dir, err = newCrash(); err != nil {
			return fmt.Errorf("cannot save logs: %w", err)
		}
	}
	err := r.journal.Save(dir)
	if kernel, kerr := machine.KernelLogBuffer(); kerr != nil {
		err = errors.Join(err, kerr)
	} else {
		err = errors.Join(err, writeDurably(filepath.Join(dir, "kernel.log"), kernel))
	}
	return err
}
