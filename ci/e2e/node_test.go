package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const gibibyte = 1 << 30

// diskBytes leaves room for data that tests can fill in seconds.
const diskBytes = 4 * gibibyte

// TestNode takes one machine through a life: first boot, workloads, killed services, reboot, power cut, upgrades, full disk, reset.
// Each step goes on from the last, so a step that fails ends the test.
func TestNode(t *testing.T) {
	second := nodeRelease(t, "node-second")
	origin := newOrigin(t)
	d := newManagedNode(t, origin)
	n := d.node
	steps := []struct {
		name string
		run  func(*testing.T, *node)
	}{
		{"ready with nothing typed", ready},
		{"API server is healthy", healthy},
		{"Service answers by address and name", service},
		{"exec, cp, logs, port-forward", streams},
		{"metrics", metrics},
		{"root file system is read-only", readOnlyRoot},
		{"volume is written", writeVolume},
		{"killed services come back", killedServices},
		{"clean reboot keeps data", cleanReboot},
		{"power cut keeps data", powerCut},
		{"upgrade to slot b keeps workloads and volumes", func(t *testing.T, _ *node) { upgradedNode(t, d, push, second, "0.2.0", "b") }},
		{"upgrade from a URL back to slot a", func(t *testing.T, _ *node) {
			upgradedNode(t, d, origin.pull, nodeRelease(t, "node-third"), "0.3.0", "a")
		}},
		{"upgrade from a USB stick to slot b", func(t *testing.T, _ *node) { upgradedNode(t, d, plugIn, nodeRelease(t, "node-fourth"), "0.4.0", "b") }},
		{"version without an API server is rolled back", func(t *testing.T, _ *node) { rolledBackNode(t, d) }},
		{"snapshot is restored", func(t *testing.T, _ *node) { restoredSnapshot(t, d) }},
		{"full disk is reported and survived", fullDisk},
		{"reset makes a new cluster", func(t *testing.T, _ *node) { resetCluster(t, d) }},
		{"power button switches off", powerButton},
	}
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, n) }) {
			select {
			case <-n.Ended():
			default:
				n.keepState()
			}
			t.FailNow()
		}
	}
}

func ready(t *testing.T, n *node) {
	n.waitReady(t)
	t.Logf("the device is ready after %.1f s", n.Uptime().Seconds())
	timeline, err := n.Device.Timeline(patience(t, 10*time.Second))
	must(t, err)
	for _, s := range timeline.Steps {
		t.Logf("%-10s %-20s %7.2f s to %7.2f s %s", s.Stage, s.Name, s.Start, s.End, s.Error)
		if s.Error != "" {
			t.Errorf("step %s failed: %s", s.Name, s.Error)
		}
	}
	got := n.client(t).do(t, "get", "nodes", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`)
	if got != "True" {
		t.Errorf("condition Ready of the nodes is %q, want one True", got)
	}
	eventually(t, time.Minute, "the node's role", func(ctx context.Context) error {
		got, err := n.client(t).try(ctx, "get", "nodes", "-l", "node-role.kubernetes.io/control-plane=true", "-o", "name")
		if err == nil && !strings.HasPrefix(got, "node/") {
			err = fmt.Errorf("nodes of the control plane are %q", got)
		}
		return err
	})
}

func healthy(t *testing.T, n *node) {
	got := n.client(t).do(t, "get", "--raw", "/readyz?verbose")
	for _, line := range strings.Split(got, "\n") {
		if !strings.HasPrefix(line, "[+]") && !strings.HasSuffix(line, "check passed") {
			t.Errorf("readyz says %q", line)
		}
	}
	if !strings.Contains(got, "[+]poststarthook/start-system-namespaces-controller ok") {
		t.Errorf("readyz does not list its checks:\n%s", got)
	}
}

func service(t *testing.T, n *node) {
	k := n.client(t)
	k.apply(t, "web.yaml")
	k.apply(t, "host.yaml")
	k.rollout(t, "deployment/web")
	k.do(t, "wait", "pod/client", "pod/host", "--for=condition=Ready", "--timeout="+limit(t, 50*time.Second).String())
	pods := strings.Fields(k.do(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
	if len(pods) != 2 {
		t.Fatalf("there are pods %q, want two", pods)
	}
	address := k.do(t, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	for _, host := range []string{address, "web", "web.default.svc.cluster.local"} {
		allAnswer(t, "http://"+host+" from a pod", pods, func(ctx context.Context) (string, error) {
			return k.try(ctx, "exec", "client", "--", "wget", "-q", "-O-", "-T5", "http://"+host+"/")
		})
	}
}

// allAnswer asks until each of the pods has answered with its name: a Service that knows only some of them is broken.
func allAnswer(t *testing.T, what string, pods []string, ask func(context.Context) (string, error)) {
	t.Helper()
	answered := map[string]bool{}
	eventually(t, time.Minute, what, func(ctx context.Context) error {
		answer, err := ask(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(pods, answer) {
			return fmt.Errorf("%q answers, which is none of the pods %q", answer, pods)
		}
		if answered[answer] = true; len(answered) < len(pods) {
			return fmt.Errorf("only %q has answered", answer)
		}
		return nil
	})
}

func streams(t *testing.T, n *node) {
	k := n.client(t)
	if got := k.do(t, "exec", "client", "--", "sh", "-c", "echo out; hostname"); got != "out\nclient" {
		t.Errorf("exec printed %q", got)
	}
	if _, err := k.try(patience(t, 10*time.Second), "exec", "client", "--", "sh", "-c", "exit 3"); err == nil || !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("exec of a command that fails: %v, want its exit code", err)
	}
	t.Run("cp", func(t *testing.T) { copyFiles(t, k) })
	t.Run("port-forward", func(t *testing.T) { forwardPort(t, k) })
	t.Run("logs -f", func(t *testing.T) { followLogs(t, k) })
}

func copyFiles(t *testing.T, k kubectl) {
	content := make([]byte, 1<<20)
	rand.Read(content)
	dir := t.TempDir()
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	must(t, os.WriteFile(there, content, 0o644))
	k.do(t, "cp", there, "client:/copied")
	k.do(t, "cp", "client:/copied", back)
	got, err := os.ReadFile(back)
	must(t, err)
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back of %d, or others", len(got), len(content))
	}
}

// stream starts a kubectl that goes on until the test's end, and returns its output.
func stream(t *testing.T, k kubectl, args ...string) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithCancel(patience(t, time.Minute))
	cmd := k.command(ctx, args...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // it was killed, and says so
	return bufio.NewReader(out)
}

func forwardPort(t *testing.T, k kubectl) {
	out := stream(t, k, "port-forward", "service/web", ":80")
	line, err := out.ReadString('\n')
	must(t, err)
	var port int
	if _, err := fmt.Sscanf(line, "Forwarding from 127.0.0.1:%d ->", &port); err != nil {
		t.Fatalf("port-forward says %q", line)
	}
	client := http.Client{Timeout: limit(t, 10*time.Second)}
	response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	if !strings.HasPrefix(string(body), "web-") {
		t.Errorf("%q answers through the forwarded port, want a pod of web", body)
	}
}

// The pod client writes "tick N" each second: lines must come that were not there when following began.
func followLogs(t *testing.T, k kubectl) {
	out := stream(t, k, "logs", "-f", "--tail=1", "client")
	var numbers []int
	for range 3 {
		line, err := out.ReadString('\n')
		must(t, err)
		var number int
		if _, err := fmt.Sscanf(line, "tick %d\n", &number); err != nil {
			t.Fatalf("logs -f prints %q", line)
		}
		numbers = append(numbers, number)
	}
	if numbers[1] != numbers[0]+1 || numbers[2] != numbers[1]+1 {
		t.Errorf("logs -f prints ticks %d, want three in a row", numbers)
	}
}

func metrics(t *testing.T, n *node) {
	k := n.client(t)
	eventually(t, time.Minute, "kubectl top node", func(ctx context.Context) error {
		out, err := k.try(ctx, "top", "node", "--no-headers")
		if err == nil && len(strings.Fields(out)) != 5 {
			err = fmt.Errorf("it prints %q", out)
		}
		return err
	})
}

func readOnlyRoot(t *testing.T, n *node) {
	k := n.client(t)
	mounts := k.do(t, "exec", "host", "--", "cat", "/proc/1/mounts")
	for _, line := range strings.Split(mounts, "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] != "/" {
			continue
		}
		if f[2] != "erofs" || !slices.Contains(strings.Split(f[3], ","), "ro") || !strings.Contains(f[0], "dm-") && !strings.Contains(f[0], "mapper") {
			t.Errorf("the root is mounted as %q, want erofs, read-only, from a verity device", line)
		}
		return
	}
	t.Errorf("process 1 has no root mount:\n%s", mounts)
}
