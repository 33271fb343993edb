// Package cri dispatches the programs that containerd executes for each pod: its shim and the CNI plugins. They are one
// small program of their own, because containerd's plugin registry is global: in the binary of the daemon a shim would
// load the daemon's plugins, and each pod would hold its memory.
package cri

import (
	"context"
	"path/filepath"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin" // the shim's service
	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/skerryos/skerry/initd/cluster/upstream/bridge"
	"github.com/skerryos/skerry/initd/cluster/upstream/hostlocal"
	"github.com/skerryos/skerry/initd/cluster/upstream/loopback"
	"github.com/skerryos/skerry/initd/cluster/upstream/portmap"
)

// plugins are the CNI plugins by the name of their link.
var plugins = map[string]func(){
	"bridge":     bridge.Main,
	"host-local": hostlocal.Main,
	"loopback":   loopback.Main,
	"portmap":    portmap.Main,
}

// Main runs the program that args[0] names. Everything that is no plugin is the shim: it executes its own resolved path,
// which is not the link that it was called by.
func Main(args []string) {
	if run, ok := plugins[filepath.Base(args[0])]; ok {
		run()
		return
	}
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}
