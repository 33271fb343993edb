// Package cri dispatches the programs that containerd executes for each pod: its shim, the CNI plugins, and on hosts
// without a pause image what holds a pod's namespaces. They are one small program of their own, because containerd's
// plugin registry is global: in the binary of the daemon a shim would load the daemon's plugins, and each pod would
// hold its memory.
package cri

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin" // the shim's service
	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/skerryos/skerry/initd/cluster/upstream/bridge"
	"github.com/skerryos/skerry/initd/cluster/upstream/hostlocal"
	"github.com/skerryos/skerry/initd/cluster/upstream/loopback"
	"github.com/skerryos/skerry/initd/cluster/upstream/portmap"
)

// programs are all but the shim, by the name that they are called by.
var programs = map[string]func(){
	"bridge":     bridge.Main,
	"host-local": hostlocal.Main,
	"loopback":   loopback.Main,
	"portmap":    portmap.Main,
	"pause":      pause,
}

// Main runs the program that args[0] names. Everything else is the shim: it executes its own resolved path,
// which is not the link that it was called by.
func Main(args []string) {
	if run, ok := programs[filepath.Base(args[0])]; ok {
		run()
		return
	}
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}

// pause holds a pod's namespaces until it is asked to end, and reaps what a shared process namespace leaves to it.
func pause() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for pid := 1; pid > 0; { // one signal may stand for several children
			pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
	}
}
