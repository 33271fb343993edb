package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// keeperURL is the server with the volume, by the name that its headless Service gives the pod.
const keeperURL = "http://keeper-0.keeper:8080/data/"

// store puts a value under a name; the answer comes when it is on disk. Busybox' wget has no PUT, so it is spelt out.
func store(ctx context.Context, k kubectl, name, value string) error {
	request := fmt.Sprintf(`PUT /data/%s HTTP/1.1\r\nHost: keeper\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s`, name, len(value), value)
	out, err := k.try(ctx, "exec", "client", "--", "sh", "-c", `printf '`+request+`' | nc keeper-0.keeper 8080`)
	if err == nil && !strings.Contains(out, " 204 ") {
		err = fmt.Errorf("the keeper answers %q", out)
	}
	return err
}

// expectStored checks a stored value, once name resolution and pods are back.
func expectStored(t *testing.T, k kubectl, name, value string) {
	t.Helper()
	eventually(t, time.Minute, "stored value "+name, func(ctx context.Context) error {
		got, err := k.try(ctx, "exec", "client", "--", "wget", "-q", "-O-", "-T5", keeperURL+name)
		if err == nil && got != value {
			err = fmt.Errorf("it is %q, want %q", got, value)
		}
		return err
	})
}

func writeVolume(t *testing.T, n *node) {
	k := n.client(t)
	k.apply(t, "volume.yaml")
	k.rollout(t, "statefulset/keeper")
	eventually(t, time.Minute, "store a value", func(ctx context.Context) error { return store(ctx, k, "first", "one") })
	expectStored(t, k, "first", "one")
	if got := k.do(t, "get", "pvc", "data-keeper-0", "-o", "jsonpath={.status.phase}"); got != "Bound" {
		t.Errorf("the claim is %s, want Bound", got)
	}
}

// containers are the running containers of the workloads by pod, with how often each was restarted: what must not change while
// something else is broken.
func containers(ctx context.Context, k kubectl) (string, error) {
	return k.try(ctx, "get", "pods", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
}

func serviceNamed(state v1.State, name string) (v1.Service, error) {
	for _, s := range state.Services {
		if s.Name == name {
			return s, nil
		}
	}
	return v1.Service{}, fmt.Errorf("the device has no service %s", name)
}

// killedServices kills the process of each supervised service in turn, as the kernel's out-of-memory killer would, and wants it
// back while the pods and process 1 go on.
func killedServices(t *testing.T, n *node) {
	k := n.client(t)
	state, err := n.Device.Status(patience(t, 10*time.Second))
	must(t, err)
	if len(state.Services) < 3 {
		t.Errorf("there are %d services, want containerd, skerryd and api", len(state.Services))
	}
	for _, s := range state.Services {
		t.Run(s.Name, func(t *testing.T) { killService(t, n, k, s) })
	}
}

func killService(t *testing.T, n *node, k kubectl, before v1.Service) {
	pods, err := containers(patience(t, time.Minute), k)
	must(t, err)
	boots, uptime := n.boots(), kernelUptime(t, k)
	started := startOfClient(t, k)

	// containerd's shims are in its control group, each the parent of a pod: they must live. The connection of exec goes through
	// skerryd, so it breaks when that is killed: whether it was killed shows below.
	kill := fmt.Sprintf("for p in $(cat /host/cgroup/system/%s/cgroup.procs); do grep -qx skerry-cri /proc/$p/comm || kill -9 $p; done", before.Name)
	_, execError := k.try(patience(t, 20*time.Second), "exec", "host", "--", "sh", "-c", kill)

	begun := time.Now()
	eventually(t, time.Minute, before.Name+" is back", func(ctx context.Context) error {
		state, err := n.Device.Status(ctx)
		if err != nil {
			return err
		}
		s, err := serviceNamed(state, before.Name)
		if err != nil {
			return err
		}
		if s.Restarts <= before.Restarts {
			return errors.Join(fmt.Errorf("it was restarted %d times, as before", s.Restarts), execError)
		}
		if s.State != "ready" || state.Phase != v1.Ready {
			return fmt.Errorf("it is %s, the machine %s: %s", s.State, state.Phase, state.Message)
		}
		return nil
	})
	t.Logf("%s is ready again %.1f s after the kill", before.Name, time.Since(begun).Seconds())

	eventually(t, time.Minute, "exec after the kill", func(ctx context.Context) error {
		_, err := k.try(ctx, "exec", "client", "--", "wget", "-q", "-O-", "-T5", "http://web/")
		return err
	})
	t.Logf("exec works again %.1f s after the kill", time.Since(begun).Seconds())
	// The API may still show what was before the kill, the process itself cannot.
	if now := startOfClient(t, k); now != started {
		t.Errorf("process 1 of pod client was started %s ticks after the kernel, and before the kill it was one of %s", now, started)
	}
	eventually(t, time.Minute, "containers after the kill", func(ctx context.Context) error {
		now, err := containers(ctx, k)
		if err == nil && now != pods {
			err = fmt.Errorf("they are\n%s\nand were\n%s", now, pods)
		}
		return err
	})
	if now := kernelUptime(t, k); n.boots() != boots || now < uptime {
		t.Errorf("the machine restarted: uptime was %v and is %v", uptime, now)
	}
}

// startOfClient is when process 1 of pod client was started, in ticks after the kernel: field 22 of proc_pid_stat(5).
func startOfClient(t *testing.T, k kubectl) string {
	t.Helper()
	stat := strings.Fields(k.do(t, "exec", "client", "--", "cat", "/proc/1/stat"))
	if len(stat) < 22 {
		t.Fatalf("/proc/1/stat of pod client is %q", stat)
	}
	return stat[21]
}

func kernelUptime(t *testing.T, k kubectl) time.Duration {
	t.Helper()
	var seconds float64
	if _, err := fmt.Sscan(k.do(t, "exec", "host", "--", "cat", "/proc/uptime"), &seconds); err != nil {
		t.Fatalf("cannot read the uptime: %v", err)
	}
	return time.Duration(seconds * float64(time.Second))
}

// recovered checks that the node and all that was on it are back after a restart of the machine.
func recovered(t *testing.T, n *node) kubectl {
	t.Helper()
	n.waitReady(t)
	k := n.client(t)
	k.rollout(t, "deployment/web")
	k.rollout(t, "statefulset/keeper")
	k.do(t, "wait", "pod/client", "pod/host", "--for=condition=Ready", "--timeout="+limit(t, 50*time.Second).String())
	service(t, n)
	return k
}

func cleanReboot(t *testing.T, n *node) {
	from := n.Console.Next()
	must(t, n.Device.Reboot(patience(t, 10*time.Second)))
	n.waitConsole(t, from, bootLoader, time.Minute)
	for _, l := range n.Console.Lines(from) {
		if strings.Contains(l.Text, "problem") {
			t.Errorf("on the way down and up: %s", l.Text)
		}
	}
	k := recovered(t, n)
	expectStored(t, k, "first", "one")
}

func powerCut(t *testing.T, n *node) {
	k := n.client(t)
	eventually(t, time.Minute, "store a value", func(ctx context.Context) error { return store(ctx, k, "second", "two") })
	// An object that the API server has accepted must survive as well as a file that was synced.
	k.do(t, "create", "configmap", "accepted", "--from-literal=key=value")
	n.Kill()
	n.start()
	k = recovered(t, n)
	expectStored(t, k, "first", "one")
	expectStored(t, k, "second", "two")
	if got := k.do(t, "get", "configmap", "accepted", "-o", "jsonpath={.data.key}"); got != "value" {
		t.Errorf("the object that was accepted before the power cut holds %q", got)
	}
}

// fullDisk fills the data partition to the last block.
func fullDisk(t *testing.T, n *node) {
	k := n.client(t)
	k.apply(t, "filler.yaml")
	eventually(t, time.Minute, "the device reports its full disk", func(ctx context.Context) error {
		state, err := n.Device.Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range state.Problems {
			if strings.Contains(p, "data partition") && strings.Contains(p, "full") {
				t.Logf("problem: %s", p)
				return nil
			}
		}
		return fmt.Errorf("it is %s, with problems %q", state.Phase, state.Problems)
	})
	// The filler frees the disk by itself. Nothing has to be restarted by hand then.
	n.waitReady(t)
	eventually(t, time.Minute, "write to the cluster again", func(ctx context.Context) error {
		_, err := k.try(ctx, "create", "configmap", "after-full-disk")
		return err
	})
}

func powerButton(t *testing.T, n *node) {
	from := n.Console.Next()
	ctx := patience(t, time.Minute)
	must(t, n.PowerButton(ctx))
	if err := n.Wait(ctx); err != nil {
		t.Fatalf("%v; console: %q", err, n.Console.Last())
	}
	for _, l := range n.Console.Lines(from) {
		if strings.Contains(l.Text, "problem") {
			t.Errorf("on the way down: %s", l.Text)
		}
	}
}
