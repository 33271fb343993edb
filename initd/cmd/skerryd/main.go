// Skerryd is Kubernetes for one machine: control plane, node and the tools that go with them, in one program.
//
//	skerryd server     run a cluster's control plane, and a node beside it
//	skerryd agent      run a node and join it to a server
//	skerryd containerd run containerd as the two above expect it
//	skerryd kubectl, crictl, ctr
//
// A link to it with the name of a command is that command. "skerryd help" lists all of them, and each explains itself
// with --help. Settings come from flags, from SKERRY_TOKEN, SKERRY_TOKEN_FILE, SKERRY_URL and SKERRY_CONFIG_FILE in the
// environment, and from /etc/skerry/config.yaml with the drop-ins beside it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	name := filepath.Base(os.Args[0])
	if run, ok := applets[name]; ok {
		os.Exit(run(os.Args))
	}
	if len(os.Args) > 1 {
		if run, ok := applets[os.Args[1]]; ok {
			os.Exit(run(os.Args[1:]))
		}
	}
	if err := rootCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "skerryd:", err)
		os.Exit(1)
	}
}
