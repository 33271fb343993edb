package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Reaper collects the exit status of every child of this process: of those started through it, for whoever waits,
// and of those that the kernel handed to process 1 because their parent died. Children must be started through it
// and nothing else may wait for them, or a status goes to the wrong one.
type Reaper struct {
	mu      sync.Mutex // held over fork, so that no child can be collected before it is known
	waiting map[int]chan<- syscall.WaitStatus
}

// NewReaper returns a reaper; [Reaper.Run] makes it work.
func NewReaper() *Reaper {
	return &Reaper{waiting: map[int]chan<- syscall.WaitStatus{}}
}

// Run collects children until ctx is done.
func (r *Reaper) Run(ctx context.Context) {
	// One pending SIGCHLD is enough: each collects all that have ended.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		r.collect()
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if waiting, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			waiting <- status // buffered
		}
	}
}

// Start starts cmd and returns a channel that gets its exit status, once. The command's standard streams must be files
// or nil: nobody copies for it.
func (r *Reaper) Start(cmd *exec.Cmd) (<-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.waiting[cmd.Process.Pid] = ended
	return ended, nil
}

// maxOutput is how much of a program's output is kept, in bytes: a repair of a file system can have a lot to say.
const maxOutput = 1 << 20

// Output runs a program to its end and returns what it wrote to both of its streams, and its exit status. The error
// names the program and is about one that could not be started, did not end in time or was ended by a signal.
func (r *Reaper) Output(ctx context.Context, path string, args ...string) ([]byte, int, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, -1, fmt.Errorf("cannot run %s: %w", path, err)
	}
	defer read.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = write, write
	ended, err := r.Start(cmd)
	write.Close()
	if err != nil {
		return nil, -1, fmt.Errorf("cannot run %s: %w", path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	var out bytes.Buffer
	_, _ = io.Copy(&out, io.LimitReader(read, maxOutput))
	_, _ = io.Copy(io.Discard, read) // or the program would wait for a reader
	status := <-ended
	if ctx.Err() != nil {
		return out.Bytes(), -1, fmt.Errorf("%s did not end in time: %w", path, ctx.Err())
	}
	if status.Signaled() {
		return out.Bytes(), -1, fmt.Errorf("%s was ended by signal %v: %s", path, status.Signal(), bytes.TrimSpace(out.Bytes()))
	}
	return out.Bytes(), status.ExitStatus(), nil
}
