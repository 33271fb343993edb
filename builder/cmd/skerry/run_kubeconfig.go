package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"

	"github.com/skerryos/skerry/builder/vm"
)

// fetchKubeconfig writes the administrator's kubeconfig to file as soon as the machine has one, and says so.
func fetchKubeconfig(ctx context.Context, m *vm.VM, port int, file string, say func(string, ...any)) {
	b, err := awaitKubeconfig(ctx, m.Device)
	if err == nil {
		b, err = redirectKubeconfig(b, fmt.Sprintf("https://127.0.0.1:%d", port))
	}
	if err == nil {
		err = renameio.WriteFile(file, b, 0o600)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		say("cannot fetch the kubeconfig: %v", err)
		return
	}
	say("kubectl --kubeconfig %s get nodes", short(file))
}

// awaitKubeconfig asks until there is a kubeconfig. An agent never has one.
func awaitKubeconfig(ctx context.Context, d *vm.Device) ([]byte, error) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		b, err := d.Kubeconfig(ctx)
		if err == nil {
			return b, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
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
