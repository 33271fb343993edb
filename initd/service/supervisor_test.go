package service

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// onBoth runs a test with sessions, which every machine has, and with control groups, which the device has.
func onBoth(t *testing.T, test func(t *testing.T, groups func(*reaper) Groups)) {
	t.Run("sessions", func(t *testing.T) { test(t, func(r *reaper) Groups { return sessions{r} }) })
	t.Run("cgroups", func(t *testing.T) {
		parent := cgroupParent(t)
		groups, err := NewCgroups(parent)
		if err != nil {
			t.Fatal(err)
		}
		test(t, func(*reaper) Groups { return groups })
	})
}

func onSessions(r *reaper) Groups { return sessions{r} }

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestUnitsStartAfterEachOtherAndStopInReverse(t *testing.T) {
	onBoth(t, func(t *testing.T, groups func(*reaper) Groups) {
		b := start(t, groups, map[string]string{
			"first":  "Type=notify\nEnvironment=CHILD=armed",
			"second": "After=first.service\nType=notify\nEnvironment=CHILD=ready",
			"third":  "After=second.service\nType=simple\nEnvironment=CHILD=mute",
		})
		armed := b.await("first", "armed", func(s Status) bool { return s.Text == "armed" })
		for _, u := range b.Status()[1:] {
			if u.State != Waiting {
				t.Errorf("%s is %s while first starts", u.Unit, u.State)
			}
		}
		if err := syscall.Kill(armed.PID, syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if err := b.WaitUp(b.context); err != nil {
			t.Fatal(err)
		}
		if s := b.await("second", "at work", func(s Status) bool { return s.Text == "at work" }); s.PID == 0 || s.Restarts != 0 {
			t.Errorf("second is %+v", s)
		}
		if err := b.Stop(b.context); err != nil {
			t.Error(err)
		}
		want := "first starting\nfirst ready\nsecond starting\nsecond ready\nthird ready\n" +
			"third stopping\nthird stopped\nsecond stopping\nsecond stopped\nfirst stopping\nfirst stopped"
		if got := b.past(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if alive(armed.PID) {
			t.Errorf("process %d lives on", armed.PID)
		}
	})
}

func TestWantedUnitStartsBesideAndStopsAfter(t *testing.T) {
	b := start(t, onSessions, map[string]string{
		"base": "Type=notify\nEnvironment=CHILD=mute",
		"user": "Wants=base.service\nType=notify\nEnvironment=CHILD=ready",
	})
	b.awaitState("user", Ready)
	b.awaitState("base", Starting) // it is never ready: user did not wait for it
	if err := b.Stop(b.context); err != nil {
		t.Error(err)
	}
	if want := "user stopping\nuser stopped\nbase stopping\nbase stopped"; !strings.HasSuffix(b.past(), want) {
		t.Errorf("got\n%s\nwant at the end\n%s", b.past(), want)
	}
}

func TestConditions(t *testing.T) {
	for _, test := range []struct{ lines, state, reason string }{
		{"ConditionPathExists=/nonexistent", "done", "not started, because /nonexistent does not exist"},
		{"ConditionPathExists=!/dev", "done", "not started, because /dev exists"},
		{"AssertPathExists=/nonexistent", "failed", "not started, because /nonexistent does not exist"},
		{"ConditionPathExists=/dev\nAssertPathExists=!/nonexistent", "ready", ""},
	} {
		t.Run(strings.ReplaceAll(test.lines, "\n", " "), func(t *testing.T) {
			// It would run at once, and again and again, if it was not held back.
			b := start(t, onSessions, map[string]string{"thing": test.lines + "\nRestart=always\nRestartSec=1ms\nEnvironment=CHILD=mute"})
			s := b.await("thing", "past its start", func(s Status) bool { return s.State != Waiting })
			if string(s.State) != test.state || s.Reason != test.reason {
				t.Errorf("got %s, %q, want %s, %q", s.State, s.Reason, test.state, test.reason)
			}
			if s.State == Failed {
				if err := b.WaitUp(b.context); errorText(err) != "services failed: thing: "+test.reason {
					t.Errorf("got %v", err)
				}
			}
			if err := b.Stop(b.context); err != nil {
				t.Error(err)
			}
		})
	}
}

// A disk that answers with an error may come back; a unit that was "done" would never be looked at again.
func TestConditionThatNobodyKnows(t *testing.T) {
	path := "/" + strings.Repeat("x", 256)
	b := start(t, onSessions, map[string]string{"thing": "ConditionPathExists=" + path + "\nRestart=always\nRestartSec=1h\nEnvironment=CHILD=mute"})
	s := b.awaitState("thing", Restarting)
	if want := "not started, because nobody can tell whether " + path + " exists: lstat " + path + ": file name too long"; s.Reason != want {
		t.Errorf("got %q, want %q", s.Reason, want)
	}
}

func TestCrashedServiceComesBack(t *testing.T) {
	onBoth(t, func(t *testing.T, groups func(*reaper) Groups) {
		b := start(t, groups, map[string]string{
			"thing": "Type=notify\nRestart=always\nRestartSec=5ms\nEnvironment=CHILD=ready",
			"other": "After=thing.service\nType=notify\nEnvironment=CHILD=ready",
		})
		if err := b.WaitUp(b.context); err != nil {
			t.Fatal(err)
		}
		before := b.awaitState("thing", Ready)
		other := b.awaitState("other", Ready)
		if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		after := b.await("thing", "started again", func(s Status) bool { return s.Restarts == 1 && s.State == Ready })
		if after.PID == before.PID || after.Reason != "ended by signal 9 (killed)" {
			t.Errorf("after the crash: %+v", after)
		}
		if now := b.awaitState("other", Ready); now.PID != other.PID {
			t.Error("the unit that comes after it was restarted, too")
		}
	})
}

func TestServiceThatKeepsFailingBacksOff(t *testing.T) {
	b := start(t, onSessions, map[string]string{"thing": "Restart=on-failure\nRestartSec=2ms\nEnvironment=CHILD=exit:3"})
	s := b.await("thing", "restarted four times", func(s Status) bool { return s.Restarts >= 4 && s.State == Restarting })
	if s.Reason != "ended with exit status 3" {
		t.Errorf("reason %q", s.Reason)
	}
	// The fifth delay is 2 ms doubled four times.
	if delay := s.NextStart.Sub(s.Since).Round(time.Millisecond); delay != 32*time.Millisecond {
		t.Errorf("delay %v, want 32ms", delay)
	}
}

func TestEndWithoutRestart(t *testing.T) {
	for _, test := range []struct{ lines, state, reason string }{
		{"Environment=CHILD=exit:0", "done", "ended with exit status 0"},
		{"Environment=CHILD=exit:4", "failed", "ended with exit status 4"},
		{"Type=oneshot\nEnvironment=CHILD=exit:0", "done", "ended with exit status 0"},
		{"Type=oneshot\nRestart=always\nRestartSec=1ms\nEnvironment=CHILD=exit:0", "done", "ended with exit status 0"},
		{"Type=oneshot\nEnvironment=CHILD=exit:5", "failed", "ended with exit status 5"},
		{"Type=notify\nEnvironment=CHILD=exit:0", "failed", "ended with exit status 0 before it was ready"},
		{"ExecStart=/nonexistent/program", "failed", "cannot start /nonexistent/program: fork/exec /nonexistent/program: no such file or directory"},
		{"ExecStart=/bin/true $MISSING", "failed", "cannot expand the command line of thing.service: variable MISSING is not set"},
		{"EnvironmentFile=/nonexistent/env\nEnvironment=CHILD=exit:0", "failed", "cannot read environment file /nonexistent/env: open /nonexistent/env: no such file or directory"},
	} {
		t.Run(strings.ReplaceAll(test.lines, "\n", " "), func(t *testing.T) {
			b := start(t, onSessions, map[string]string{"thing": test.lines})
			s := b.await("thing", "at its end", func(s Status) bool { return s.State == Done || s.State == Failed })
			if string(s.State) != test.state || s.Reason != test.reason || s.PID != 0 {
				t.Errorf("got %s, %q, want %s, %q", s.State, s.Reason, test.state, test.reason)
			}
		})
	}
}

func TestRequiredUnitThatFails(t *testing.T) {
	b := start(t, onSessions, map[string]string{
		"base":  "Type=oneshot\nEnvironment=CHILD=exit:1",
		"needs": "Requires=base.service\nEnvironment=CHILD=mute",
		"after": "After=base.service\nEnvironment=CHILD=mute",
	})
	b.awaitState("after", Ready)
	s := b.awaitState("needs", Failed)
	if want := "not started, because unit base, which it requires, failed"; s.Reason != want {
		t.Errorf("reason %q, want %q", s.Reason, want)
	}
	err := b.WaitUp(b.context)
	if want := "services failed: base: ended with exit status 1; needs: not started, because unit base, which it requires, failed"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestServiceThatIsNeverReady(t *testing.T) {
	b := start(t, onSessions, map[string]string{"thing": "Type=notify\nTimeoutStartSec=50ms\nEnvironment=CHILD=mute"})
	if s := b.awaitState("thing", Failed); s.Reason != "it was not ready after 50ms" {
		t.Errorf("reason %q", s.Reason)
	}
}

func TestServiceThatHangs(t *testing.T) {
	onBoth(t, func(t *testing.T, groups func(*reaper) Groups) {
		b := start(t, groups, map[string]string{"thing": "Type=notify\nWatchdogSec=100ms\nRestart=on-watchdog\nRestartSec=1ms\nEnvironment=CHILD=hang"})
		s := b.await("thing", "restarted", func(s Status) bool { return s.Restarts == 1 && s.State == Ready })
		if s.Reason != "it gave no sign of life for 100ms; the last that it said: the disk stalls" {
			t.Errorf("reason %q", s.Reason)
		}
		// SIGABRT makes a Go program say where it hangs: that is what the signal is for.
		b.mu.Lock()
		defer b.mu.Unlock()
		if !strings.Contains(b.traces.String(), "SIGABRT: abort") || strings.Contains(b.output.String(), "SIGABRT") {
			t.Errorf("the trace is not apart from the output: it is %q, the output %q", b.traces.String(), b.output.String())
		}
	})
}

func TestSignsOfLifeKeepAServiceRunning(t *testing.T) {
	b := start(t, onSessions, map[string]string{"thing": "Type=notify\nWatchdogSec=1s\nRestart=on-failure\nRestartSec=1ms\nEnvironment=CHILD=alive"})
	s := b.await("thing", "ticking", func(s Status) bool { return s.Text == "ticking" })
	if s.Restarts != 0 {
		t.Errorf("it was restarted although it gave signs of life: %+v", s)
	}
	since := time.Now()
	if err := syscall.Kill(s.PID, syscall.SIGUSR1); err != nil { // from now on it is silent
		t.Fatal(err)
	}
	b.await("thing", "restarted", func(s Status) bool { return s.Restarts == 1 })
	if silent := time.Since(since); silent < 900*time.Millisecond {
		t.Errorf("ended after %v of silence, before its time", silent)
	}
}

func TestMessagesOfStrangersAreDropped(t *testing.T) {
	b := start(t, onSessions, map[string]string{"thing": "Type=notify\nEnvironment=CHILD=armed"})
	s := b.await("thing", "armed", func(s Status) bool { return s.Text == "armed" })
	conn, err := net.Dial("unixgram", filepath.Join(b.dir, "thing"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("READY=1\nSTATUS=forged")); err != nil {
		t.Fatal(err)
	}
	// The socket keeps the order: when the service's own message has come, the other one has been looked at.
	if err := syscall.Kill(s.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if s := b.awaitState("thing", Ready); s.Text != "armed" {
		t.Errorf("text %q", s.Text)
	}
	if want := "thing starting\nthing ready"; b.past() != want {
		t.Errorf("got\n%s", b.past())
	}
}

func TestKillModes(t *testing.T) {
	onBoth(t, func(t *testing.T, groups func(*reaper) Groups) {
		for _, test := range []struct {
			mode, stop string
			lives      bool // the process that the service started and that ignores SIGTERM
			err        string
		}{
			{"control-group", "TimeoutStopSec=50ms", false, "unit thing did not stop in time and was killed"},
			{"mixed", "TimeoutStopSec=10s", false, ""},
			{"process", "TimeoutStopSec=10s", true, ""},
		} {
			t.Run(test.mode, func(t *testing.T) {
				b := start(t, groups, map[string]string{"thing": "Type=notify\nKillMode=" + test.mode + "\n" + test.stop + "\nEnvironment=CHILD=parent"})
				s := b.await("thing", "a parent", func(s Status) bool { return s.State == Ready && s.Text != "" })
				lingerer, err := strconv.Atoi(s.Text)
				if err != nil {
					t.Fatal(err)
				}
				err = b.Stop(b.context)
				if got := errorText(err); got != test.err {
					t.Errorf("stop: got %q, want %q", got, test.err)
				}
				if alive(s.PID) {
					t.Error("the main process lives on")
				}
				// A killed orphan is gone as soon as the reaper has seen it.
				if !test.lives {
					awaitGone(t, b, lingerer)
				} else if !alive(lingerer) {
					t.Error("what the service started has ended, too")
				} else if err := syscall.Kill(lingerer, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestWholeFamilyIsAskedToEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, groups func(*reaper) Groups) {
		b := start(t, groups, map[string]string{"thing": "Type=notify\nTimeoutStopSec=3s\nEnvironment=CHILD=family"})
		b.awaitState("thing", Ready)
		if err := b.Stop(b.context); err != nil {
			t.Errorf("the child was not asked: %v", err)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func awaitGone(t *testing.T, b *bench, pid int) {
	t.Helper()
	r := b.options.Spawner.(*reaper)
	for {
		r.mu.Lock()
		collected := r.collected
		r.mu.Unlock()
		if !alive(pid) {
			return
		}
		select {
		case <-collected:
		case <-b.context.Done():
			t.Errorf("process %d lives on", pid)
			return
		}
	}
}

func TestStubbornServiceIsKilled(t *testing.T) {
	onBoth(t, func(t *testing.T, groups func(*reaper) Groups) {
		for name, lines := range map[string]string{"by its own limit": "TimeoutStopSec=50ms", "by the device's limit": "TimeoutStopSec=1h"} {
			t.Run(name, func(t *testing.T) {
				b := start(t, groups, map[string]string{"thing": "Type=notify\n" + lines + "\nEnvironment=CHILD=stubborn"})
				s := b.awaitState("thing", Ready)
				ctx, cancel := context.WithTimeout(b.context, 200*time.Millisecond)
				defer cancel()
				if err := b.Stop(ctx); errorText(err) != "unit thing did not stop in time and was killed" {
					t.Errorf("stop: %v", err)
				}
				if alive(s.PID) {
					t.Error("it lives on")
				}
			})
		}
	})
}

func TestRestartByHand(t *testing.T) {
	b := start(t, onSessions, map[string]string{
		"thing": "Type=notify\nEnvironment=CHILD=ready",
		"short": "Type=oneshot\nEnvironment=CHILD=exit:2",
	})
	before := b.awaitState("thing", Ready)
	b.awaitState("short", Failed)
	for _, unit := range []string{"thing", "short"} {
		if err := b.Restart(b.context, unit); err != nil {
			t.Fatal(err)
		}
	}
	b.await("thing", "another process", func(s Status) bool { return s.State == Ready && s.PID != before.PID })
	b.await("short", "started again", func(s Status) bool { return s.State == Failed && strings.Count(b.past(), "short failed") == 2 })
	if err := b.Restart(b.context, "other"); errorText(err) != "cannot restart unit other: there is no such unit; there are: short, thing" {
		t.Errorf("unknown unit: %v", err)
	}
	if err := b.Stop(b.context); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(b.context, "thing"); errorText(err) != "cannot restart unit thing: the services are being stopped" {
		t.Errorf("after stop: %v", err)
	}
}

func TestServiceNamesAnotherMainProcess(t *testing.T) {
	onBoth(t, func(t *testing.T, groups func(*reaper) Groups) {
		b := start(t, groups, map[string]string{"thing": "Type=notify\nRestart=always\nRestartSec=1ms\nEnvironment=CHILD=handover"})
		s := b.await("thing", "led by another process", func(s Status) bool { return strconv.Itoa(s.PID) == s.Text })
		if s.Restarts != 0 || s.State != Ready {
			t.Errorf("got %+v", s)
		}
		if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s = b.await("thing", "restarted", func(s Status) bool { return s.Restarts == 1 && s.State == Ready })
		if want := "the main process that the service named has ended"; s.Reason != want {
			t.Errorf("reason %q, want %q", s.Reason, want)
		}
		if err := b.Stop(b.context); err != nil {
			t.Error(err)
		}
	})
}

func TestOutputAndLimits(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	hard := strconv.FormatUint(limit.Max, 10)
	b := start(t, onSessions, map[string]string{
		// Not a Go program: those raise their soft limit.
		"files":  "Type=oneshot\nLimitNOFILE=123:" + hard + "\nExecStart=/bin/sh -c 'ulimit -Sn; ulimit -Hn; echo $0 $1' \"${WHO} there\" $WHO\nEnvironment=WHO=me",
		"memory": "After=files.service\nType=notify\nOOMScoreAdjust=321\nEnvironment=CHILD=limits",
	})
	b.awaitState("memory", Ready)
	if err := b.Stop(b.context); err != nil {
		t.Fatal(err)
	}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	if now != limit {
		t.Errorf("the supervisor's own limit is %+v now, it was %+v", now, limit)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if got, want := b.output.String(), "123\n"+hard+"\nme there me\n321 <nil>\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}

func TestCgroupLimits(t *testing.T) {
	// The files that the kernel offers depend on its controllers; what is written to them is the point here.
	parent := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n"} {
		if err := os.WriteFile(filepath.Join(parent, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := NewCgroups(parent)
	if err != nil {
		t.Fatal(err)
	}
	for name, min := range map[string]uint64{"a": 64 << 20, "b": 1 << 20} {
		if _, err := groups.Group(&Unit{Name: name, Resources: Resources{MemoryMin: &min, MemoryMax: ptr(Unlimited), CPUWeight: ptr(uint64(50))}}); err != nil {
			t.Fatal(err)
		}
	}
	var got bytes.Buffer
	for _, file := range []string{"cgroup.subtree_control", "memory.min", "a/memory.min", "a/memory.max", "a/cpu.weight", "b/memory.min"} {
		data, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(file + " " + string(data) + "\n")
	}
	// The plain file keeps the last controller that was enabled; the kernel's adds them up.
	want := "cgroup.subtree_control +pids\nmemory.min 68157440\na/memory.min 67108864\na/memory.max max\na/cpu.weight 50\nb/memory.min 1048576\n"
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestParseMessage(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, test := range []struct {
		text string
		want message
	}{
		{"READY=1", message{ready: true}},
		{"READY=0\nSTOPPING=1\n", message{stopping: true}},
		{"WATCHDOG=1", message{alive: true}},
		{"WATCHDOG=trigger", message{hung: true}},
		{"MAINPID=42\nMAINPID=x", message{mainPID: 42}},
		{"MAINPID=1", message{}},
		{"EXTEND_TIMEOUT_USEC=1500000", message{extend: 1500 * time.Millisecond}},
		{"EXTEND_TIMEOUT_USEC=-1\nFDSTORE=1\nBARRIER=1\nrubbish", message{}},
		{"STATUS=tab\there \x1b[31mred\xff", message{status: text("tab here  [31mred?")}},
		{"STATUS=" + strings.Repeat("é", 150), message{status: text(strings.Repeat("é", 100))}},
		{"STATUS=", message{status: text("")}},
	} {
		got := parseMessage(test.text)
		if (got.status == nil) != (test.want.status == nil) || got.status != nil && *got.status != *test.want.status {
			t.Errorf("%q: status %v", test.text, got.status)
		}
		got.status, test.want.status = nil, nil
		if got != test.want {
			t.Errorf("%q: got %+v, want %+v", test.text, got, test.want)
		}
	}
}
