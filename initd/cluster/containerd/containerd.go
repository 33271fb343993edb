// Package containerd finds, configures and, on hosts where nobody else does, starts containerd.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skerryos/skerry/initd/cluster/durable"
	"github.com/skerryos/skerry/initd/cluster/nodeconfig"
)

// Files of the runtime that other programs know.
const (
	StateDir = "/run/skerry/containerd"
	Socket   = StateDir + "/containerd.sock"
	CNIConf  = "/etc/cni/net.d"
	// registries holds one folder with a hosts.toml for each registry, see containerd's docs/hosts.md.
	registries = "/etc/skerry/registries"
)

// Tools are the programs that containerd calls.
type Tools struct {
	Runtime string   // crun or runc
	Shim    string   // containerd-shim-runc-v2
	CNIBin  []string // folders of CNI plugins
}

// links are the names by which skerry-cri is executed, and below which folder.
var links = []string{"containerd-shim-runc-v2", "cni/bridge", "cni/host-local", "cni/loopback", "cni/portmap"}

// FindTools looks for the programs of a node: beside this program, then where a Skerry image has them, then in PATH. On a
// host that has skerry-cri beside this program and nothing else, it makes its links in linkDir.
func FindTools(linkDir string) (Tools, error) {
	self, err := os.Executable()
	if err != nil {
		return Tools{}, fmt.Errorf("cannot find this program's own file: %w", err)
	}
	beside := filepath.Dir(self)
	t := Tools{
		Runtime: chooseRuntime(find(beside, "crun"), find(beside, "runc")),
		Shim:    find(beside, "containerd-shim-runc-v2"),
	}
	for _, dir := range []string{filepath.Join(beside, "cni"), "/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			t.CNIBin = append(t.CNIBin, dir)
		}
	}
	if cri := filepath.Join(beside, "skerry-cri"); t.Shim == "" || len(t.CNIBin) == 0 {
		if _, err := os.Stat(cri); err == nil {
			for _, l := range links {
				if err := durable.Link(cri, filepath.Join(linkDir, l)); err != nil {
					return t, err
				}
			}
			t.Shim, t.CNIBin = filepath.Join(linkDir, links[0]), []string{filepath.Join(linkDir, "cni")}
		}
	}
	var missing []string
	if t.Runtime == "" {
		missing = append(missing, "an OCI runtime (crun or runc)")
	}
	if t.Shim == "" || len(t.CNIBin) == 0 {
		missing = append(missing, "containerd's shim and CNI plugins (skerry-cri beside skerryd)")
	}
	if len(missing) > 0 {
		return t, fmt.Errorf("cannot run containers: missing %s; looked in %s, /usr/bin, /usr/lib/cni, /opt/cni/bin and PATH; install it, or use --disable-agent", strings.Join(missing, ", "), beside)
	}
	return t, nil
}

// chooseRuntime takes crun unless that is one from before its version 1.9, which refuses the runtime specification that
// containerd writes, and runc is there. Such a crun does not know "features" yet. With one program there is no choice
// and nothing is executed.
func chooseRuntime(crun, runc string) string {
	switch {
	case crun == "":
		return runc
	case runc == "":
		return crun
	case exec.Command(crun, "features").Run() != nil:
		return runc
	default:
		return crun
	}
}

func find(dir, name string) string {
	for _, p := range []string{filepath.Join(dir, name), filepath.Join("/usr/bin", name)} {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	return ""
}

// WriteConfig writes containerd's configuration for state below dataDir and returns its path. It sets PATH for the
// containerd that this process is about to become.
func WriteConfig(dataDir, pauseImage string) (string, error) {
	t, err := FindTools(filepath.Join(dataDir, "agent", "bin"))
	if err != nil {
		return "", err
	}
	// containerd finds the shim by its name. A path in the configuration would make it ask the shim, at each pod, for what it
	// knows of the name.
	if err := os.Setenv("PATH", filepath.Dir(t.Shim)+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		return "", fmt.Errorf("cannot set PATH: %w", err)
	}
	c := nodeconfig.Containerd{
		Root: filepath.Join(dataDir, "agent", "containerd"), State: StateDir, Socket: Socket, PauseImage: pauseImage,
		Runtime: t.Runtime, CNIBin: t.CNIBin, CNIConf: CNIConf, RegistryConfig: registries,
	}
	if err := os.MkdirAll(CNIConf, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the folder of network configurations: %w", err)
	}
	path := filepath.Join(StateDir, "config.toml")
	return path, durable.WriteFile(path, c.Config(), 0o644)
}

// Run starts "skerryd containerd" as a child and waits for its end. When ctx ends the child is asked to stop; containers
// go on running. The child dies with this process, so that the next one can start its own.
func Run(ctx context.Context, dataDir, pauseImage string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program's own file: %w", err)
	}
	// The kernel sends the death signal when the thread that started the child ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, self, "containerd", "--data-dir", dataDir, "--pause-image", pauseImage)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return fmt.Errorf("containerd: %w", err)
}

// Wait returns when containerd answers at endpoint (unix:///path) as a container runtime. After a power cut it takes connections
// long before: it looks after its containers first, and kubelet would not wait for that.
func Wait(ctx context.Context, endpoint string) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		// No connection is tried again as fast as containerd starts.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1, MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: time.Second}))
	if err != nil {
		return fmt.Errorf("cannot ask containerd at %s: %w", endpoint, err)
	}
	defer conn.Close()
	service := cri.NewRuntimeServiceClient(conn)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	told := time.Now()
	for {
		_, err := service.Version(ctx, &cri.VersionRequest{})
		if err == nil {
			return nil
		}
		if time.Since(told) > 10*time.Second {
			slog.Warn("waiting for containerd", "endpoint", endpoint, "reason", err)
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w", err)
		case <-tick.C:
		}
	}
}
