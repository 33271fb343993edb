package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"

	"github.com/skerryos/skerry/builder/node"
	"github.com/skerryos/skerry/builder/vm"
)

// announceReady says how to use the machine once it is ready: with its cluster, and as a device.
func announceReady(ctx context.Context, m *vm.VM, file string, say func(string, ...any)) {
	if _, err := m.Device.WaitReady(ctx); err != nil {
		return // the machine or we end first; the console has told why
	}
	fetchKubeconfig(ctx, m, file, say)
	at := deviceAddress(m.Config)
	// Between us and the machine is nobody, so its key need not be taken on trust; and a machine with a new disk has another key
	// than the one before at the same address.
	fingerprint, err := node.Fingerprint(ctx, at)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		say("the device API is not on the network; does the image have an authority? (%v)", err)
	default:
		say("skerry node status -n %s --fingerprint %s", at, fingerprint)
	}
}

// fetchKubeconfig writes the administrator's kubeconfig to file if the machine has one, and says so. An agent never has one.
func fetchKubeconfig(ctx context.Context, m *vm.VM, file string, say func(string, ...any)) {
	b, err := m.Device.Kubeconfig(ctx)
	if err == nil {
		b, err = redirectKubeconfig(b, fmt.Sprintf("https://127.0.0.1:%d", m.Config.Forwards[0].Host))
	}
	if err == nil {
		err = renameio.WriteFile(file, b, 0o600)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		say("ready after %v, but there is no kubeconfig: %v", m.Uptime().Round(time.Second), err)
	default:
		say("ready after %v: kubectl --kubeconfig %s get nodes", m.Uptime().Round(time.Second), short(file))
	}
}

// redirectKubeconfig makes every cluster of a kubeconfig be at the URL server, and leaves all else as it is.
func redirectKubeconfig(kubeconfig []byte, server string) ([]byte, error) {
	var config map[string]any
	if err := yaml.Unmarshal(kubeconfig, &config); err != nil {
		return nil, fmt.Errorf("cannot read the device's kubeconfig: %w", err)
	}
	clusters, _ := config["clusters"].([]any)
	if len(clusters) == 0 {
		return nil, fmt.Errorf("cannot read the device's kubeconfig: it has no clusters")
	}
	for _, c := range clusters {
		named, _ := c.(map[string]any)
		cluster, ok := named["cluster"].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("cannot read the device's kubeconfig: a cluster has no fields")
		}
		cluster["server"] = server
	}
	b, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("cannot write the kubeconfig: %w", err)
	}
	return b, nil
}
