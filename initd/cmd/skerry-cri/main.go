// Skerry-cri is what containerd executes for each pod, in one small program: under the name of a CNI plugin (bridge,
// host-local, loopback, portmap) it is that plugin, under any other name it is containerd's shim for OCI runtimes.
// It is called by containerd alone and takes its arguments from there.
package main

import (
	"os"

	"github.com/skerryos/skerry/initd/cluster/cri"
)

func main() { cri.Main(os.Args) }
