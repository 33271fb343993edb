package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"strings"
)

// sysctls are what the pod network needs of the kernel, and why.
var sysctls = []struct{ key, value, why string }{
	{"net/ipv4/ip_forward", "1", "traffic between pods and the outside world is routed"},
	{"net/bridge/bridge-nf-call-iptables", "1", "traffic from pod to Service to pod on one bridge passes kube-proxy's rules"},
	{"net/bridge/bridge-nf-call-ip6tables", "1", "the same for IPv6"},
}

// modules are what an ordinary host may not have loaded yet; on a Skerry image init has done so.
var modules = []string{"overlay", "br_netfilter", "nf_tables", "vxlan"}

// prepareHost sets what kubelet, kube-proxy and the CNI plugins take for granted.
func prepareHost() error {
	if _, err := os.Stat("/proc/sys/net/bridge"); errors.Is(err, fs.ErrNotExist) {
		if path, err := exec.LookPath("modprobe"); err == nil {
			if out, err := exec.Command(path, append([]string{"-a"}, modules...)...).CombinedOutput(); err != nil {
				slog.Warn("cannot load kernel modules", "modules", modules, "reason", strings.TrimSpace(string(out)))
			}
		}
	}
	for _, s := range sysctls {
		path := "/proc/sys/" + s.key
		have, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(have)) == s.value {
			continue
		}
		if err == nil {
			err = os.WriteFile(path, []byte(s.value), 0o644)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(s.key, "net/bridge/"):
			// Without the module, Services work except between pods of one node.
			slog.Warn("the kernel lacks br_netfilter: a pod may not reach a Service whose pod is on the same node", "sysctl", s.key)
		case err != nil:
			return fmt.Errorf("cannot set %s to %s (%s): %w", s.key, s.value, s.why, err)
		}
	}
	return nil
}
