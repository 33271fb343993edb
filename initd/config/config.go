// Package config reads what an operator says about one device: a file in the style of cloud-init that starts with the
// line "#cloud-config", with the keys people know from there and one section "skerry" for the node.
//
// A file is held against everything that can be known about it, and all its mistakes are reported at once, each with file,
// line and column. Several sources are merged key by key (see Load); a source with a mistake is left out as a whole, and
// then the device still boots, with network and device API, but does not join or start a cluster: half a configuration
// could make a server of a node that was meant to be an agent.
//
// A key is added in three places: a field with a yaml tag here or in upgrade.go, a row in the table of checks (checks.go), and, if it
// matters to the Kubernetes runtime, a line in Node (node.go). The package does no device I/O beyond reading the named
// files and builds on every system, because the builder validates the same files on a workstation.
package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Config is one source, or several merged. The zero value is not meaningful: use Default, Parse or Load.
//
// The jsonschema tags are read by package schema only.
type Config struct {
	// Hostname is a DNS name in lower case (RFC 1123) of at most 63 characters. Empty means DefaultHostname.
	Hostname string `yaml:"hostname" jsonschema:"description=Name of the device and of its node; made from the machine id when left out"`
	NTP      NTP    `yaml:"ntp" jsonschema:"description=Where the time comes from"`
	Skerry   Skerry `yaml:"skerry" jsonschema:"description=The Kubernetes node"`

	// ignored are the keys of cloud-init that were given and have no effect.
	ignored []Problem
	// origin says where each key was written, by path (see At). A key that is not in it has its default value.
	origin map[string]Position
}

// NTP says where the time comes from.
type NTP struct {
	// Enabled is true unless it is switched off.
	Enabled bool `yaml:"enabled" jsonschema:"description=Set the clock from the network,default=true"`
	// Servers are single hosts, Pools are names that stand for many hosts. Both empty means: what DHCP offers, else the
	// built-in pool.
	Servers []string `yaml:"servers" jsonschema:"description=Time servers by name or address"`
	Pools   []string `yaml:"pools" jsonschema:"description=Names that stand for many time servers"`
}

// A Role is what the node does in its cluster.
type Role string

// The roles of a node.
const (
	// RoleServer runs the control plane and also pods.
	RoleServer Role = "server"
	// RoleAgent runs pods for the server that it joined.
	RoleAgent Role = "agent"
)

// Skerry is the section about the Kubernetes node.
type Skerry struct {
	Role Role `yaml:"role" jsonschema:"description=What the node does: server runs the control plane and pods; agent joins a server and runs pods,default=server,enum=server,enum=agent"`
	// Server is the https URL of the server that an agent joins.
	Server string `yaml:"server" jsonschema:"description=Where an agent finds its server; the port is 6443 when left out,example=https://10.0.0.5:6443"`
	// Token is the secret that joins nodes to the cluster, in the short or the full form (see cluster/token). A server
	// without one makes its own.
	Token string `yaml:"token" jsonschema:"description=The secret that lets nodes join; a server makes its own when left out"`
	// TLSSAN are further names and addresses that the API server's certificate is valid for.
	TLSSAN []string `yaml:"tls-san" jsonschema:"description=Further names and addresses for the API server's certificate"`
	// Disable names system workloads that are not deployed; see Addons.
	Disable []string `yaml:"disable" jsonschema:"description=System workloads to leave out"`
	// NodeLabels are given to the node when it registers.
	NodeLabels Labels `yaml:"node-labels" jsonschema:"description=Labels of the node as keys with values or as a list of key=value"`
	// NodeTaints are given to the node when it registers, each key[=value]:effect.
	NodeTaints []string `yaml:"node-taints" jsonschema:"description=Taints of the node: key=value:effect"`
	Health     Health   `yaml:"health" jsonschema:"description=What makes a new version good enough to be kept"`
	Update     Update   `yaml:"update" jsonschema:"description=Where upgrades come from by themselves"`
}

// Addons are the system workloads that disable can name.
var Addons = []string{"coredns", "local-storage", "metrics-server"}

// Labels are Kubernetes labels by key.
type Labels map[string]string

// List renders labels as sorted "key=value" words.
func (l Labels) List() []string {
	var words []string
	for k, v := range l {
		words = append(words, k+"="+v)
	}
	slices.Sort(words)
	return words
}

// Default is the configuration of a device that was told nothing: a server with its own cluster.
func Default() *Config {
	return &Config{
		NTP: NTP{Enabled: true},
		Skerry: Skerry{
			Role: RoleServer, Health: Health{Deadline: defaultDeadline}, Update: Update{Interval: defaultInterval},
		},
		origin: map[string]Position{},
	}
}

// At says where a key was written, by its path such as "skerry.tls-san[1]", "skerry.node-labels.zone" or
// "skerry.health.checks[0].name"; ok is false when no source gave it.
func (c *Config) At(path string) (at Position, ok bool) {
	at, ok = c.origin[path]
	return at, ok
}

// Ignored are the keys of cloud-init that were given and have no effect, with the reasons: not mistakes, but a person may have
// hoped for more.
func (c *Config) Ignored() []Problem { return c.ignored }

// DefaultHostname is "skerry-" and the first 6 hex digits of the machine id, so that devices flashed with one image differ.
func DefaultHostname(machineID string) string {
	id := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'f' {
			return r
		}
		return -1
	}, strings.ToLower(machineID))
	return "skerry-" + id[:min(6, len(id))]
}

// A Position is a place in a source. Line and Column count from 1; Line 0 stands for the source as a whole.
type Position struct {
	Source       string
	Line, Column int
}

func (p Position) String() string {
	if p.Line == 0 {
		return p.Source
	}
	return fmt.Sprintf("%s:%d:%d", p.Source, p.Line, p.Column)
}

// A Problem is one mistake, worded for the person who wrote the file.
type Problem struct {
	At      Position
	Message string
}

func (p Problem) Error() string { return p.At.String() + ": " + p.Message }

// Problems are all mistakes of one or more sources; as an error, each is a line of its own.
type Problems []Problem

func (p Problems) Error() string {
	var lines []string
	for _, problem := range p {
		lines = append(lines, problem.Error())
	}
	return strings.Join(lines, "\n")
}

// err is nil when there are none, and sorted by position otherwise.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		if a.At.Line != b.At.Line {
			return a.At.Line - b.At.Line
		}
		return a.At.Column - b.At.Column
	})
	return p
}

// keysOf lists the keys of a section in the order of its declaration.
func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// join makes the path of a key inside a section.
func join(section, key string) string {
	if section == "" {
		return key
	}
	return section + "." + key
}
