package config

import (
	"fmt"
	"net"
	"net/url"

	"go.yaml.in/yaml/v4"
)

// Where init writes the files of a Node on the device.
const (
	// NodeConfigPath holds the token: mode 0600.
	NodeConfigPath = "/etc/skerry/config.yaml"
	NodeEnvPath    = "/run/skerry/node.env"
)

// Node is what the Kubernetes runtime is told. Both files are derived anew on every boot.
type Node struct {
	// Config is the content of NodeConfigPath: YAML with the flag names of skerryd as keys, as K3s' config.yaml has them.
	Config []byte
	// Env is the content of NodeEnvPath, the environment file of skerryd's unit: SKERRY_ROLE=server or agent.
	Env []byte
}

// nodeConfig is the runtime's configuration file, in the order in which it is written. Keys in the singular are flags that
// can be repeated.
type nodeConfig struct {
	NodeName   string   `yaml:"node-name"`
	Server     string   `yaml:"server,omitempty"`
	Token      string   `yaml:"token,omitempty"`
	TLSSAN     []string `yaml:"tls-san,omitempty"`
	Disable    []string `yaml:"disable,omitempty"`
	NodeLabels []string `yaml:"node-label,omitempty"`
	NodeTaints []string `yaml:"node-taint,omitempty"`
}

// serverPort is where an API server listens unless the URL says otherwise.
const serverPort = "6443"

// Node renders the files of the Kubernetes runtime for the device's hostname (Hostname, or DefaultHostname). It fails when
// Check fails.
func (c *Config) Node(hostname string) (*Node, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := c.Skerry
	server := s.Server
	if server != "" {
		u, err := url.Parse(server)
		if err != nil {
			return nil, fmt.Errorf("cannot read server %q: %w", server, err)
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), serverPort)
		}
		u.Path = ""
		server = u.String()
	}
	data, err := yaml.Dump(nodeConfig{
		NodeName: hostname, Server: server, Token: s.Token, TLSSAN: s.TLSSAN,
		Disable: s.Disable, NodeLabels: s.NodeLabels.List(), NodeTaints: s.NodeTaints,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot render %s: %w", NodeConfigPath, err)
	}
	return &Node{
		Config: append([]byte("# Written by init on every boot from the device's configuration: changes here are lost.\n"), data...),
		Env:    []byte("SKERRY_ROLE=" + string(s.Role) + "\n"),
	}, nil
}
