package api

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// memory answers who uses the memory: proc_meminfo(5) and proc_pid_smaps(5).
func (h *handler) memory(w http.ResponseWriter, _ *http.Request) error {
	b, err := os.ReadFile(h.path("/proc/meminfo"))
	if err != nil {
		return fmt.Errorf("cannot read the memory's use: %w", err)
	}
	info := kibibytes(string(b))
	m := v1.Memory{Total: info["MemTotal"], Available: info["MemAvailable"], Anonymous: info["AnonPages"], Processes: []v1.Process{}}
	entries, err := os.ReadDir(h.path("/proc"))
	if err != nil {
		return fmt.Errorf("cannot list the processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		p, ok := readProcess(h.path("/proc"), pid)
		if ok {
			m.Processes = append(m.Processes, p)
		}
	}
	slices.SortFunc(m.Processes, func(a, b v1.Process) int {
		return cmp.Or(cmp.Compare(b.PSS, a.PSS), cmp.Compare(a.PID, b.PID))
	})
	return respond(w, http.StatusOK, m)
}

// readProcess reports false for a process that ended meanwhile, and for kernel threads: their smaps_rollup has no text or
// cannot be read (ESRCH), because they have no memory of their own.
func readProcess(proc string, pid int) (v1.Process, bool) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if err != nil || len(rollup) == 0 {
		return v1.Process{}, false
	}
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return v1.Process{}, false
	}
	sizes := kibibytes(string(rollup))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return v1.Process{}, false
	}
	return v1.Process{
		PID: pid, Name: strings.TrimSpace(string(comm)),
		PSS: sizes["Pss"], Private: sizes["Private_Clean"] + sizes["Private_Dirty"] + sizes["Private_Hugetlb"],
		Peak: kibibytes(string(status))["VmHWM"],
	}, true
}

// kibibytes reads lines such as "MemTotal:  2048 kB" (the kernel means KiB) into bytes by name. Other lines are left out.
func kibibytes(text string) map[string]uint64 {
	sizes := map[string]uint64{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 54); err == nil {
			sizes[strings.TrimSuffix(fields[0], ":")] = n << 10
		}
	}
	return sizes
}

// sector is the unit of /sys/block/*/stat, whatever the device's own block size.
const sector = 512

// disk answers what went through the block devices since the boot. The fields of stat are in the kernel's
// Documentation/block/stat.rst: the third is sectors read, the seventh sectors written.
func (h *handler) disk(w http.ResponseWriter, _ *http.Request) error {
	entries, err := os.ReadDir(h.path("/sys/block"))
	if err != nil {
		return fmt.Errorf("cannot list the block devices: %w", err)
	}
	disk := v1.Disk{Devices: []v1.BlockDevice{}}
	for _, e := range entries {
		stat, err := os.ReadFile(h.path("/sys/block/" + e.Name() + "/stat"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // unplugged meanwhile
		}
		if err != nil {
			return fmt.Errorf("cannot read the counters of %s: %w", e.Name(), err)
		}
		fields := strings.Fields(string(stat))
		if len(fields) < 7 {
			return fmt.Errorf("cannot read the counters of %s: %d fields instead of 7 or more", e.Name(), len(fields))
		}
		read, err1 := strconv.ParseUint(fields[2], 10, 64)
		written, err2 := strconv.ParseUint(fields[6], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("cannot read the counters of %s: %w", e.Name(), err)
		}
		disk.Devices = append(disk.Devices, v1.BlockDevice{Name: e.Name(), ReadBytes: read * sector, WrittenBytes: written * sector})
	}
	return respond(w, http.StatusOK, disk)
}
