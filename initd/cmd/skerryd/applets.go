package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	containerdmain "github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/skerryos/skerry/initd/cluster/addons/coredns"
	"github.com/skerryos/skerry/initd/cluster/addons/localpath"
	"github.com/skerryos/skerry/initd/cluster/addons/metricsserver"
	"github.com/skerryos/skerry/initd/cluster/containerd"
	"github.com/skerryos/skerry/initd/cluster/images"
	"github.com/skerryos/skerry/initd/cluster/settings"
	"github.com/skerryos/skerry/initd/cluster/upstream/crictl"
)

// applets are the programs inside this one whose command line is not ours. Each gets its own name as args[0] and
// returns its exit code.
var applets = map[string]func(args []string) int{
	"kubectl":                runKubectl,
	"crictl":                 runCrictl,
	"ctr":                    runCtr,
	"containerd":             runContainerd,
	"coredns":                workload("coredns", coredns.Run),
	"local-path-provisioner": workload("local-path-provisioner", localpath.Run),
	"metrics-server":         workload("metrics-server", metricsserver.Run),
}

func appletNames() []string { return slices.Sorted(maps.Keys(applets)) }

func runKubectl(args []string) int {
	os.Args = args
	if os.Getenv("KUBECONFIG") == "" {
		if _, err := os.Stat(settings.DefaultKubeconfig); err == nil {
			os.Setenv("KUBECONFIG", settings.DefaultKubeconfig)
		}
	}
	logs.GlogSetter(kubectl.GetLogVerbosity(args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints, and exits with kubectl's own codes
	}
	return 0
}

func runCrictl(args []string) int {
	// Asked for what is not set, crictl tries one socket after the other and warns of each.
	if os.Getenv("CONTAINER_RUNTIME_ENDPOINT") == "" {
		os.Setenv("CONTAINER_RUNTIME_ENDPOINT", "unix://"+containerd.Socket)
	}
	os.Args = args
	crictl.Main() // exits by itself when it fails
	return 0
}

func runCtr(args []string) int {
	for name, value := range map[string]string{"CONTAINERD_ADDRESS": containerd.Socket, "CONTAINERD_NAMESPACE": images.Namespace} {
		if os.Getenv(name) == "" {
			os.Setenv(name, value)
		}
	}
	return fail("ctr", ctr.New().Run(context.Background(), args))
}

// runContainerd is containerd with its own command line when that names a configuration or a subcommand, and else with
// the configuration of a Skerry node.
func runContainerd(args []string) int {
	fs := flag.NewFlagSet("containerd", flag.ContinueOnError)
	fs.SetOutput(discard{})
	dataDir := fs.String("data-dir", settings.DefaultDataDir, "")
	pause := fs.String("pause-image", settings.DefaultPauseImage, "")
	if err := fs.Parse(args[1:]); err == nil && fs.NArg() == 0 {
		config, err := containerd.WriteConfig(*dataDir, *pause)
		if err != nil {
			return fail("containerd", err)
		}
		args = []string{"containerd", "--config", config, "--log-level", "warn"}
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	return fail("containerd", containerdmain.App().Run(context.Background(), args))
}

// workload is a program of an add-on's pod. It ends when the pod is stopped.
func workload(name string, run func(context.Context, []string) error) func([]string) int {
	return func(args []string) int {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return fail(name, run(ctx, args[1:]))
	}
}

func fail(name string, err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(name), err)
		return 1
	}
}
