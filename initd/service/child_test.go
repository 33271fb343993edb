package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The services of these tests are this test binary again, told by CHILD what to be.

func TestMain(m *testing.M) {
	if role := os.Getenv("CHILD"); role != "" {
		child(role)
	}
	// As PID 1 does, this process inherits and collects what its children leave behind.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "cannot become a subreaper:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func child(role string) {
	name, argument, _ := strings.Cut(role, ":")
	terminated := make(chan os.Signal, 1)
	started := make(chan os.Signal, 1)
	// Every role but those that ignore it ends well when asked to.
	if name == "stubborn" || name == "lingerer" {
		signal.Ignore(syscall.SIGTERM)
	} else if name != "plain" {
		signal.Notify(terminated, syscall.SIGTERM)
	}
	signal.Notify(started, syscall.SIGUSR1)
	armed()
	switch name {
	case "ready": // ready at once
		notify("READY=1\nSTATUS=at work")
	case "armed": // ready when it gets SIGUSR1
		notify("STATUS=armed")
		<-started
		notify("READY=1")
	case "exit": // ends with a status
		fmt.Println("last words of", argument)
		status, _ := strconv.Atoi(argument)
		os.Exit(status)
	case "crash": // ready, then ends badly when it gets SIGUSR1
		notify("READY=1")
		<-started
		os.Exit(7)
	case "mute": // never ready
	case "stubborn": // ready, but ends for SIGKILL only
		notify("READY=1")
		<-make(chan int)
	case "lingerer":
		<-make(chan int)
	case "hang": // ready, then no sign of life
		notify("READY=1\nSTATUS=the disk stalls")
	case "alive": // gives signs of life until it gets SIGUSR1; says so when it lived for twice the watchdog's time of one second
		notify("READY=1")
		for ticker, since := time.NewTicker(20*time.Millisecond), time.Now(); ; {
			select {
			case <-ticker.C:
				notify("WATCHDOG=1")
				if time.Since(since) > 2*time.Second {
					notify("STATUS=ticking")
				}
				continue
			case <-started:
			case <-terminated:
				os.Exit(0)
			}
			break
		}
	case "parent": // has a child that ignores SIGTERM
		notify("READY=1\nSTATUS=" + strconv.Itoa(fork("lingerer")))
	case "family": // has a child that ends when it is asked to
		fork("mute")
		notify("READY=1")
	case "handover": // names its child the main process and ends
		pid := strconv.Itoa(fork("mute"))
		notify("READY=1\nMAINPID=" + pid + "\nSTATUS=" + pid)
		os.Exit(0)
	case "limits":
		data, err := os.ReadFile("/proc/self/oom_score_adj")
		fmt.Println(strings.TrimSpace(string(data)), err)
		notify("READY=1")
	case "plain":
		select {}
	default:
		fmt.Println("unknown role", role)
		os.Exit(99)
	}
	<-terminated
	os.Exit(0)
}

// fork starts a child and returns when it handles signals as its role says.
func fork(role string) int {
	read, write, err := os.Pipe()
	if err != nil {
		fmt.Println(err)
		os.Exit(98)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CHILD="+role, "ARMED=3")
	cmd.ExtraFiles = []*os.File{write}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		os.Exit(98)
	}
	write.Close()
	_, _ = io.ReadAll(read) // until the child has closed its end
	return cmd.Process.Pid
}

// armed tells the parent, when it waits, that the signal handlers are in place.
func armed() {
	if os.Getenv("ARMED") != "" {
		_ = os.NewFile(3, "armed").Close()
		os.Unsetenv("ARMED")
	}
}

func notify(text string) {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		os.Exit(97)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		fmt.Println(err)
		os.Exit(96)
	}
}

// reaper is a Spawner as PID 1 has one: it collects children, and those of others that became its own.
type reaper struct {
	mu        sync.Mutex
	waiting   map[int]chan<- syscall.WaitStatus
	collected chan struct{} // closed and replaced whenever some child was collected
}

func newReaper(t *testing.T) *reaper {
	r := &reaper{waiting: map[int]chan<- syscall.WaitStatus{}, collected: make(chan struct{})}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	over := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				r.collect()
			case <-over:
				return
			}
		}
	}()
	t.Cleanup(func() { signal.Stop(ended); close(over) })
	return r
}

func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			break
		}
		if waiting, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			waiting <- status
		}
	}
	close(r.collected)
	r.collected = make(chan struct{})
}

func (r *reaper) Start(cmd *exec.Cmd) (<-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.waiting[cmd.Process.Pid] = ended
	return ended, nil
}

// sessions are Groups for machines without control groups: processes of one session, which is what the supervisor starts.
type sessions struct{ reaper *reaper }

func (s sessions) Group(*Unit) (Group, error) { return &session{reaper: s.reaper}, nil }

type session struct {
	reaper *reaper
	id     int
}

func (s *session) Place(cmd *exec.Cmd) (func(), error) {
	return func() {
		if cmd.Process != nil {
			s.id = cmd.Process.Pid
		}
	}, nil
}

func (s *session) Contains(pid int) bool {
	id, err := unix.Getsid(pid)
	return err == nil && id == s.id
}

func (s *session) Signal(sig syscall.Signal) error {
	if err := syscall.Kill(-s.id, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

func (s *session) Kill() error { return s.Signal(syscall.SIGKILL) }

func (s *session) AwaitEmpty(within time.Duration) bool {
	limit := time.After(within)
	for {
		s.reaper.mu.Lock()
		collected := s.reaper.collected
		s.reaper.mu.Unlock()
		if err := syscall.Kill(-s.id, 0); errors.Is(err, syscall.ESRCH) {
			return true
		}
		select {
		case <-collected:
		case <-limit:
			return false
		}
	}
}

func (s *session) OOMKills() int { return 0 }

// cgroupParent returns a new control group for a test. Without control groups the test is skipped; in CI it fails.
func cgroupParent(t *testing.T) string {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") != "" {
		missing = t.Fatalf
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if fields[2] != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(fields[1], "skerry-test-")
		if err != nil {
			missing("cannot make a control group (this test needs root): %v", err)
		}
		t.Cleanup(func() { removeCgroups(t, dir) })
		return dir
	}
	missing("no cgroup2 file system is mounted here")
	return ""
}

func removeCgroups(t *testing.T, dir string) {
	children, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	if err != nil {
		t.Error(err)
	}
	for _, path := range append(children, filepath.Join(dir, "cgroup.procs")) {
		group := &cgroup{filepath.Dir(path)}
		if err := group.Kill(); err != nil {
			t.Error(err)
		}
		if !group.AwaitEmpty(killWait) {
			t.Errorf("%s still has processes", group.dir)
		}
		if err := os.Remove(group.dir); err != nil {
			t.Errorf("cannot remove control group: %v", err)
		}
	}
}

// bench is a supervisor with the units of one test.
type bench struct {
	*Supervisor
	t       *testing.T
	dir     string // of the notification sockets
	context context.Context

	mu      sync.Mutex
	history []string        // "unit state", without repetitions
	output  strings.Builder // of all units
	traces  strings.Builder // of those that hung
}

func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.output.Write(p)
}

// traces is where the traces of processes that hung go to.
type traces struct{ *bench }

func (t traces) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.traces.Write(p)
}

// start parses units from the lines of [Service] that matter; "After=" and its kind go to [Unit].
func start(t *testing.T, groups func(*reaper) Groups, units map[string]string) *bench {
	t.Helper()
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	var parsed []*Unit
	for name, lines := range units {
		head, body := "[Unit]\n", "[Service]\n"
		for line := range strings.SplitSeq(lines, "\n") {
			if key, _, _ := strings.Cut(line, "="); directives[key].section == "Unit" {
				head += line + "\n"
			} else {
				body += line + "\n"
			}
		}
		if !strings.Contains(body, "ExecStart=") {
			body += "ExecStart=" + self + "\n"
		}
		u, err := ParseUnit(name+".service", []byte(head+body))
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, u)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("the test took too long"))
	t.Cleanup(cancel)
	b := &bench{t: t, context: ctx}
	// Not t.TempDir: with the name of the test in it, it can be too long for a socket.
	if b.dir, err = os.MkdirTemp("", "notify"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.dir) })
	b.Supervisor, err = New(parsed, Options{
		NotifyDir: b.dir, Environ: os.Environ(), Logger: testLogger(t),
		Output: func(unit string) io.Writer {
			if strings.HasSuffix(unit, traceSuffix) {
				return traces{b}
			}
			return b
		},
		Changed: func(s Status) {
			b.mu.Lock()
			defer b.mu.Unlock()
			line := s.Unit + " " + string(s.State)
			if len(b.history) == 0 || b.history[len(b.history)-1] != line {
				b.history = append(b.history, line)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	reaper := newReaper(t)
	b.options.Spawner, b.options.Groups = reaper, groups(reaper)
	b.Start()
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if !b.isStopped() {
				_ = b.Stop(ctx)
			}
		}
	})
	return b
}

func (b *bench) isStopped() bool {
	for _, name := range b.order {
		select {
		case <-b.runners[name].stop:
			return true
		default:
		}
	}
	return false
}

// await waits for a unit to fulfil a condition and returns its status.
func (b *bench) await(unit, what string, condition func(Status) bool) Status {
	b.t.Helper()
	var found Status
	err := b.Wait(b.context, func(units []Status) bool {
		for _, u := range units {
			if u.Unit == unit && condition(u) {
				found = u
				return true
			}
		}
		return false
	})
	if err != nil {
		b.t.Fatalf("unit %s is not %s: %v\n%+v\n%s", unit, what, err, b.Status(), b.output.String())
	}
	return found
}

func (b *bench) awaitState(unit string, state State) Status {
	b.t.Helper()
	return b.await(unit, string(state), func(s Status) bool { return s.State == state })
}

func (b *bench) past() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.history, "\n")
}
