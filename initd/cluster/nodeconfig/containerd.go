package nodeconfig

import (
	"fmt"
	"strings"
)

// Containerd is what containerd's configuration is made from. Paths are absolute.
type Containerd struct {
	Root, State, Socket string
	PauseImage          string
	Runtime             string // the OCI runtime, crun or runc
	CNIBin              []string
	CNIConf             string
	// RegistryConfig is a folder of hosts.toml files, one folder for each registry.
	RegistryConfig string
}

// unused are plugins that a Kubernetes node never calls. Each costs memory or start-up time.
var unused = []string{
	"io.containerd.nri.v1.nri",
	"io.containerd.tracing.processor.v1.otlp",
	"io.containerd.internal.v1.tracing",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.differ.v1.erofs",
	"io.containerd.mount-handler.v1.erofs",
}

// Config gives the file for containerd's --config, in its format 4.
func (c Containerd) Config() []byte {
	quote := func(list []string) string {
		q := make([]string, len(list))
		for i, s := range list {
			q[i] = fmt.Sprintf("%q", s)
		}
		return "[" + strings.Join(q, ", ") + "]"
	}
	// %q is TOML's basic string for the printable paths that these are.
	return fmt.Appendf(nil, `version = 4
root = %q
state = %q
disabled_plugins = %s

# How long shims may take to answer a containerd that was started again. One that is taken for dead loses its pod, and on a small
# machine with much to do the default of a few seconds does not suffice.
[timeouts]
"io.containerd.timeout.shim.load" = "60s"
"io.containerd.timeout.shim.cleanup" = "60s"
"io.containerd.timeout.task.state" = "60s"

[plugins."io.containerd.server.v1.grpc"]
address = %q
[plugins."io.containerd.server.v1.ttrpc"]
address = %q

[plugins."io.containerd.internal.v1.opt"]
path = %q

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
# A power cut must not leave a layer of which half the files are empty.
image_pull_with_sync_fs = true
use_local_image_pull = true # the transfer service cannot do that
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = %q
[plugins."io.containerd.cri.v1.images".registry]
config_path = %q

[plugins."io.containerd.cri.v1.runtime"]
netns_mounts_under_state_dir = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
# The name that RuntimeClass objects expect, whichever program is behind it.
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = %q
SystemdCgroup = false
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = %s
conf_dir = %q
use_internal_loopback = true
`, c.Root, c.State, quote(unused), c.Socket, c.Socket+".ttrpc", c.Root+"/opt", c.PauseImage, c.RegistryConfig, c.Runtime, quote(c.CNIBin), c.CNIConf)
}
