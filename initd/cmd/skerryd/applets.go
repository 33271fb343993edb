package main

import (
	"context"
	"fmt"
	"os"

	containerd "github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

// applets are the programs inside this one whose command line is not ours. Each gets its own name as args[0] and
// returns its exit code.
var applets = map[string]func(args []string) int{
	"kubectl":    runKubectl,
	"ctr":        runCtr,
	"containerd": runContainerd,
}

func runKubectl(args []string) int {
	os.Args = args
	defaultKubeconfig()
	logs.GlogSetter(kubectl.GetLogVerbosity(args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints and exits with kubectl's own codes
	}
	return 0
}

func runCtr(args []string) int {
	if err := ctr.New().Run(context.Background(), args); err != nil {
		fmt.Fprintln(os.Stderr, "ctr:", err)
		return 1
	}
	return 0
}

func runContainerd(args []string) int {
	if err := containerd.App().Run(context.Background(), args); err != nil {
		fmt.Fprintln(os.Stderr, "containerd:", err)
		return 1
	}
	return 0
}
