// Package localpath makes and removes the directories behind volumes of the storage class local-path. It is
// the applet `skerryd local-path-provisioner`, and takes the place of rancher's local-path-provisioner: same
// provisioner name, storage class, config.json, directory names and annotations, so volumes of a K3s cluster go on working.
//
// One pod of a cluster runs `start`. It makes volumes of its own node itself; for another node it makes a helper pod
// there, which runs `helper` (docs/decisions/0021). PersistentVolumes are pinned to their node.
package localpath

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// ProvisionerName is what storage classes name; upstream's, so that classes of K3s users work.
const ProvisionerName = "rancher.io/local-path"

const usage = `usage: local-path-provisioner start [flags]
       local-path-provisioner helper create|remove --storage DIR --directory NAME`

// Run executes the applet's command line; `start` ends when ctx is done.
func Run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("cannot run local-path-provisioner: no command\n" + usage)
	}
	switch args[0] {
	case "start":
		return start(ctx, args[1:])
	case "helper":
		return help(args[1:])
	}
	return fmt.Errorf("cannot run local-path-provisioner: unknown command %q\n%s", args[0], usage)
}

func start(ctx context.Context, args []string) error {
	var kubeconfig, name string
	p := provisioner{}
	h := helpers{}
	fs := flag.NewFlagSet("local-path-provisioner start", flag.ContinueOnError)
	fs.StringVar(&p.configPath, "config", "/etc/config/config.json", "file with nodePathMap")
	fs.StringVar(&name, "provisioner", ProvisionerName, "name that storage classes use for this provisioner")
	fs.StringVar(&p.nodeName, "node", os.Getenv("NODE_NAME"), "node this process runs on (default $NODE_NAME); empty: use helper pods for all nodes")
	fs.StringVar(&p.storagePath, "storage", "", "storage directory of that node, mounted here at the same path; empty: use helper pods")
	fs.StringVar(&h.namespace, "namespace", "kube-system", "namespace for helper pods")
	fs.StringVar(&h.image, "helper-image", "skerry.internal/pause:1", "image of helper pods")
	fs.StringVar(&h.binary, "helper-binary", "/usr/bin/skerryd", "path of skerryd on the nodes, mounted into helper pods")
	fs.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig (default: the pod's service account)")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("cannot start local-path-provisioner: unexpected argument %q", fs.Arg(0))
	}
	if _, err := loadConfig(p.configPath); err != nil {
		return fmt.Errorf("cannot start local-path-provisioner: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("cannot start local-path-provisioner: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("cannot start local-path-provisioner: %w", err)
	}
	p.client, h.client = client, client
	p.onNode = h.run

	slog.Info("serving storage class", "provisioner", name, "node", p.nodeName, "storage", p.storagePath)
	controller.NewProvisionController(ctx, client, name, &p,
		// One replica, Recreate, and operations that may be repeated: a lease would only cost a write every two seconds.
		controller.LeaderElection(false),
		// Else deleting a volume object before its claim would leave the data behind.
		controller.AddFinalizer(true),
		controller.Threadiness(2),
	).Run(ctx)
	return nil
}

func help(args []string) error {
	if len(args) == 0 {
		return errors.New("cannot run local-path-provisioner helper: no operation\n" + usage)
	}
	var storage, directory string
	fs := flag.NewFlagSet("local-path-provisioner helper", flag.ContinueOnError)
	fs.StringVar(&storage, "storage", "", "storage directory")
	fs.StringVar(&directory, "directory", "", "name of the volume's directory in it")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	if storage == "" || directory == "" || fs.NArg() > 0 {
		return errors.New("cannot run local-path-provisioner helper: --storage and --directory are needed, and nothing else\n" + usage)
	}
	return operation(args[0]).run(storage, directory)
}
