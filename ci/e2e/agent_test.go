package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/builder/vm"
	v1 "github.com/skerryos/skerry/initd/api/v1"
)

// Addresses that the router of QEMU's network gives to machines, in the order in which they ask.
const serverAddress, agentAddress = "10.0.2.15", "10.0.2.16"

// fleetToken is written into configurations before there is a cluster.
const fleetToken = "a-token-of-the-fleet"

// A pair is a server and an agent in its cluster, on one network.
type pair struct {
	server, agent *device
	release       string // the bundle of another version
}

// TestAgent joins a machine to another one's cluster, over a network that both are on, and takes it through what may happen to either.
func TestAgent(t *testing.T) {
	p := newPair(t)
	steps := []struct {
		name string
		run  func(*testing.T, pair)
	}{
		{"agent joins", joined},
		{"pods of both nodes reach each other", reach},
		{"logs and metrics of the agent", seeAgent},
		{"volume on the agent", volumeOnAgent},
		{"power cut of the agent", cutAgent},
		{"power cut of the server", cutServer},
		{"upgrade of the agent moves its pods", upgradeAgent},
		{"agent follows a server that was reset", followServer},
	}
	for _, step := range steps {
		begun := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.run(t, p) }) {
			p.server.keepState()
			p.agent.keepState()
			t.FailNow()
		}
		t.Logf("%6.1f s  %s", time.Since(begun).Seconds(), step.name)
	}
}

// newPair switches on a server, and beside it an agent that its configuration tells where the server is.
func newPair(t *testing.T) pair {
	t.Helper()
	own, err := os.UserConfigDir()
	must(t, err)
	workstation := filepath.Join(own, "skerry")
	sockets, remove, err := vm.PrepareSockets()
	must(t, err)
	t.Cleanup(remove)
	ethernet, err := vm.NewSwitch(sockets, 3)
	must(t, err)
	t.Cleanup(ethernet.Close)
	port, err := vm.FreePort(0)
	must(t, err)
	image := filepath.Join(*build, imageName)
	p := pair{release: nodeRelease(t, "node-second")}
	p.server = newManaged(t, image, workstation, func(c *vm.Config) {
		c.Port, c.Router = ethernet.Port(0), ethernet.Port(1)
		c.Forwards = append(c.Forwards, vm.Forward{Host: port, Guest: v1.Port, Address: agentAddress})
		writeBootFile(t, c.Disk, "user-data", "#cloud-config\nhostname: first\nskerry:\n  token: "+fleetToken+"\n")
	})
	p.server.waitConsole(t, 0, `\| `+serverAddress+` `, time.Minute)
	n := newNodeIn(t, "TestAgent-agent", image, diskBytes, func(c *vm.Config) {
		c.CPUs, c.Number, c.Port, c.Forwards = parallelCPUs, 1, ethernet.Port(2), nil
		writeBootFile(t, c.Disk, "user-data", "#cloud-config\nhostname: second\nskerry:\n  role: agent\n  server: https://"+serverAddress+":6443\n  node-labels: {site: north}\n  token: "+fleetToken+"\n")
	})
	p.agent = &device{node: n, address: fmt.Sprintf("127.0.0.1:%d", port), home: filepath.Join(n.folder, "workstation")}
	must(t, os.CopyFS(filepath.Join(p.agent.home, "skerry"), os.DirFS(workstation)))
	return p
}

func joined(t *testing.T, p pair) {
	p.server.waitReady(t)
	p.agent.waitReady(t)
	wellBehaved(t, p.agent)
	t.Logf("the server is on for %.1f s, the agent for %.1f s", p.server.Uptime().Seconds(), p.agent.Uptime().Seconds())
	k := p.server.node.client(t)
	got := k.do(t, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
	if got != "first=True second=True" {
		t.Errorf("the nodes are %q", got)
	}
	token, _, err := p.server.skerry(t, 20*time.Second, "node", "token")
	if err != nil || !strings.HasPrefix(token, "K10") || !strings.HasSuffix(token, "::server:"+fleetToken+"\n") {
		t.Errorf("the server's token is %q, %v", token, err)
	}
	if got := k.do(t, "get", "nodes", "-l", "site=north", "-o", "name"); got != "node/second" {
		t.Errorf("the node with the agent's label is %q", got)
	}
}

// wellBehaved wants that nothing on a device had to be started a second time since it was switched on.
func wellBehaved(t *testing.T, d *device) {
	t.Helper()
	state, err := d.Device.Status(patience(t, 10*time.Second))
	must(t, err)
	for _, s := range state.Services {
		if s.Restarts > 0 {
			text, _ := d.Device.Log(patience(t, 10*time.Second), s.Name)
			t.Errorf("%s was started %d times again:\n%s", s.Name, s.Restarts, text)
		}
	}
	if len(state.Problems) > 0 {
		t.Errorf("problems: %q", state.Problems)
	}
}

// reach makes the pod on each node ask the Service until the pods of both nodes have answered, and each pod by its address.
func reach(t *testing.T, p pair) {
	k := p.server.node.client(t)
	k.apply(t, "everywhere.yaml")
	k.rollout(t, "daemonset/everywhere")
	var pods []string
	eventually(t, time.Minute, "a pod on each node", func(ctx context.Context) error {
		// After a power cut those of before are listed for a while.
		out, err := k.try(ctx, "wait", "pods", "-l", "app=everywhere", "--for=condition=Ready", "--timeout=10s")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		out, err = k.try(ctx, "get", "pods", "-l", "app=everywhere", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.podIP} {end}`)
		if pods = strings.Fields(out); err == nil && len(pods) != 2 {
			err = fmt.Errorf("there are pods %q, want one on each of two nodes", pods)
		}
		if err != nil {
			return err
		}
		for _, pod := range pods {
			name, _, _ := strings.Cut(pod, "=")
			address, err := k.try(ctx, "exec", name, "-c", "shell", "--", "sh", "-c", "echo $ADDRESS")
			if err == nil && pod != name+"="+address {
				err = fmt.Errorf("pod %s has address %s", pod, address)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	var names []string
	for _, pod := range pods {
		name, _, _ := strings.Cut(pod, "=")
		names = append(names, name)
	}
	ask := func(ctx context.Context, from, host string) (string, error) {
		return k.try(ctx, "exec", from, "-c", "shell", "--", "wget", "-q", "-O-", "-T5", "http://"+host+"/")
	}
	for _, from := range names {
		for _, pod := range pods {
			name, address, _ := strings.Cut(pod, "=")
			eventually(t, time.Minute, from+" asks "+pod, func(ctx context.Context) error {
				answer, err := ask(ctx, from, address+":8080")
				if err == nil && answer != name {
					err = fmt.Errorf("%q answers", answer)
				}
				return err
			})
		}
		allAnswer(t, from+" asks the Service", names, func(ctx context.Context) (string, error) { return ask(ctx, from, "everywhere") })
	}
}

// seeAgent asks for what the API server gets from the agent's kubelet, which has let the cluster issue its serving certificate.
func seeAgent(t *testing.T, p pair) {
	k := p.server.node.client(t)
	pod := k.do(t, "get", "pods", "-l", "app=everywhere", "--field-selector", "spec.nodeName=second", "-o", "jsonpath={.items[0].metadata.name}")
	if got := k.do(t, "logs", pod, "-c", "shell"); got != "begun" {
		t.Errorf("the log of pod %s is %q", pod, got)
	}
	eventually(t, time.Minute, "kubectl top node", func(ctx context.Context) error {
		out, err := k.try(ctx, "top", "node", "--no-headers")
		if err == nil && (strings.Count(out, "\n") != 1 || strings.Contains(out, "unknown")) {
			err = fmt.Errorf("it prints %q", out)
		}
		return err
	})
}

// volumeOnAgent starts workloads that find place on the agent only.
func volumeOnAgent(t *testing.T, p pair) {
	k := p.server.node.client(t)
	k.do(t, "cordon", "first")
	service(t, p.server.node)
	writeVolume(t, p.server.node)
	k.do(t, "uncordon", "first")
	if got := k.do(t, "get", "pods", "-l", "app in (web,keeper)", "-o", "jsonpath={.items[*].spec.nodeName}"); got != "second second second" {
		t.Errorf("the pods are on nodes %q", got)
	}
}

func cutAgent(t *testing.T, p pair) {
	k := p.server.node.client(t)
	eventually(t, time.Minute, "store a value", func(ctx context.Context) error { return store(ctx, k, "second", "two") })
	p.agent.Kill()
	p.agent.start()
	p.agent.waitReady(t)
	expectStored(t, k, "first", "one")
	expectStored(t, k, "second", "two")
	reach(t, p)
}

// cutServer wants the agent's pods to go on as the same processes, without a server and with it again.
func cutServer(t *testing.T, p pair) {
	started := startOfClient(t, p.server.node.client(t))
	p.server.Kill()
	p.server.start()
	p.server.waitReady(t)
	k := p.server.node.client(t)
	eventually(t, time.Minute, "the agent is Ready for the server", func(ctx context.Context) error {
		_, err := k.try(ctx, "wait", "nodes", "--all", "--for=condition=Ready", "--timeout=5s")
		return err
	})
	expectStored(t, k, "second", "two")
	if now := startOfClient(t, k); now != started {
		t.Errorf("process 1 of pod client was started %s ticks after the kernel, and before the server's power cut it was one of %s", now, started)
	}
	reach(t, p)
}

// upgradeAgent upgrades the agent alone. Pods that may live elsewhere do so meanwhile; the one whose volume is on the agent waits for it.
func upgradeAgent(t *testing.T, p pair) {
	k := p.server.node.client(t)
	_, _, err := p.agent.skerry(t, nodeUpgradeTime, "node", "upgrade", p.release)
	must(t, err)
	s := p.agent.state(t)
	must(t, committed(s, "0.2.0"))
	if s.Slot != "b" {
		t.Errorf("slot %s runs, want b", s.Slot)
	}
	log, _, err := p.agent.skerry(t, 20*time.Second, "node", "logs", "init", "--previous-boot")
	if err != nil || strings.Contains(log, "not drained") {
		t.Errorf("the drain: %v\n%s", err, log)
	}
	k.rollout(t, "deployment/web")
	if got := k.do(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"); got != "first first" {
		t.Errorf("after the drain the pods are on nodes %q", got)
	}
	eventually(t, time.Minute, "the agent takes pods again", func(ctx context.Context) error {
		got, err := k.try(ctx, "get", "node", "second", "-o", `jsonpath={.spec.unschedulable}{.metadata.annotations.skerry\.internal/upgrade-version}`)
		if err == nil && got != "0.2.0" {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	})
	eventually(t, time.Minute, "the Event of the upgrade", func(ctx context.Context) error {
		got, err := k.try(ctx, "get", "events", "--field-selector", "involvedObject.name=second,reason=UpgradeCommitted", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(got, "to 0.2.0") {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
	wellBehaved(t, p.agent)
	k.rollout(t, "statefulset/keeper")
	k.do(t, "wait", "pod/client", "--for=condition=Ready", "--timeout="+limit(t, 50*time.Second).String())
	expectStored(t, k, "second", "two")
	reach(t, p)
}

// followServer resets the server, which makes a new cluster; nobody tells the agent.
func followServer(t *testing.T, p pair) {
	reset(t, p.server, "data")
	k := p.server.node.client(t)
	eventually(t, 3*time.Minute, "the agent is in the new cluster", func(ctx context.Context) error {
		_, err := k.try(ctx, "wait", "node/second", "--for=condition=Ready", "--timeout=5s")
		return err
	})
	p.agent.waitReady(t)
	reach(t, p)
	if got := k.do(t, "get", "pods", "-o", "name"); strings.Count(got, "\n") != 1 || strings.Count(got, "pod/everywhere-") != 2 {
		t.Errorf("there are pods of before: %s", got)
	}
}
