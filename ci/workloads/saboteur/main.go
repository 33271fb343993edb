//go:build linux

// Saboteur breaks the machine that it runs on, as root, in the way that its argument names. It is in images of tests only, which
// show that an upgrade to such an image is rolled back.
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

var ways = map[string]func() error{
	"panic": panicKernel,
	"kill":  killInit,
	"hang":  hangInit,
	"port":  takePort,
	"never": func() error { return nil }, // a service that says nothing
}

func main() {
	way := ways[os.Args[len(os.Args)-1]]
	if way == nil {
		fmt.Fprintln(os.Stderr, "saboteur: unknown way")
		os.Exit(2)
	}
	if err := way(); err != nil {
		fmt.Fprintln(os.Stderr, "saboteur:", err)
		os.Exit(1)
	}
	// Whatever is broken, and "never" which is not: the process lives until it is asked to end.
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	<-asked
}

// panicKernel crashes the kernel (https://docs.kernel.org/admin-guide/sysrq.html).
func panicKernel() error { return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) }

// killInit overwrites the program text of process 1, so that whatever it does next ends it.
func killInit() error {
	maps, err := os.ReadFile("/proc/1/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if !strings.HasPrefix(fields[1], "r-x") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseInt(from, 16, 64)
		end, err2 := strconv.ParseInt(to, 16, 64)
		if err1 != nil || err2 != nil || end < start {
			continue // the kernel's own page at the end of the address space
		}
		memory, err := os.OpenFile("/proc/1/mem", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = memory.WriteAt(bytes.Repeat([]byte{0xff}, int(end-start)), start) // 0xff 0xff is no instruction
		return err
	}
	return fmt.Errorf("process 1 has no text")
}

// hangInit stops all threads of process 1 for good (ptrace(2)).
func hangInit() error {
	runtime.LockOSThread() // the thread that attaches must stay
	threads, err := os.ReadDir("/proc/1/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := syscall.PtraceAttach(id); err != nil {
			return fmt.Errorf("cannot stop thread %d of process 1: %w", id, err)
		}
	}
	return nil // and main never comes back to those threads
}

// port is held until the process ends.
var port net.Listener

// takePort keeps the API server from serving.
func takePort() (err error) {
	port, err = net.Listen("tcp", ":6443")
	return err
}
