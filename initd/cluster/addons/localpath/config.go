package localpath

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
)

// anyOtherNode is the key, upstream's, of the paths for nodes that have no entry of their own.
const anyOtherNode = "DEFAULT_PATH_FOR_NON_LISTED_NODES"

// errNodeTakesNoVolumes marks a node whose list of paths is empty: the scheduler should choose another.
var errNodeTakesNoVolumes = errors.New("the node takes no volumes")

// config says in which directories of which node volumes live: config.json of the ConfigMap local-path-config, in
// upstream's format.
type config struct {
	NodePathMap []nodePaths `json:"nodePathMap"`
}

type nodePaths struct {
	Node  string   `json:"node"`
	Paths []string `json:"paths"`
}

// loadConfig reads the file anew. It is called for each volume: kubelet updates the mounted ConfigMap in place, and volumes are
// rare, so there is nothing to watch and nothing to go stale.
func loadConfig(path string) (config, error) {
	var c config
	file, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("cannot read configuration: %w", err)
	}
	defer file.Close()
	d := json.NewDecoder(file)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("cannot read configuration %s: %w", path, err)
	}
	if err := c.validate(); err != nil {
		return c, fmt.Errorf("cannot use configuration %s: %w", path, err)
	}
	return c, nil
}

func (c config) validate() error {
	seen := map[string]bool{}
	for _, n := range c.NodePathMap {
		if n.Node == "" {
			return fmt.Errorf("an entry of nodePathMap has no node; use %s for all other nodes", anyOtherNode)
		}
		if seen[n.Node] {
			return fmt.Errorf("node %s is listed twice", n.Node)
		}
		seen[n.Node] = true
		for _, p := range n.Paths {
			if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
				return fmt.Errorf("path %q of node %s must be absolute, without \"..\", and not /", p, n.Node)
			}
		}
	}
	return nil
}

// paths are the storage directories of a node.
func (c config) paths(node string) ([]string, error) {
	for _, key := range []string{node, anyOtherNode} {
		i := slices.IndexFunc(c.NodePathMap, func(n nodePaths) bool { return n.Node == key })
		if i < 0 {
			continue
		}
		if len(c.NodePathMap[i].Paths) == 0 {
			return nil, fmt.Errorf("node %s: %w: its list of paths in nodePathMap is empty", node, errNodeTakesNoVolumes)
		}
		return c.NodePathMap[i].Paths, nil
	}
	return nil, fmt.Errorf("node %s: %w: nodePathMap has neither it nor %s", node, errNodeTakesNoVolumes, anyOtherNode)
}

// choose returns the storage directory for a new volume: wanted, when the storage class names one, else one that
// follows from the volume's name, so that a second try after a failure comes to the same directory.
func (c config) choose(node, volume, wanted string) (string, error) {
	paths, err := c.paths(node)
	if err != nil {
		return "", err
	}
	if wanted != "" {
		if !slices.Contains(paths, wanted) {
			return "", fmt.Errorf("node %s: %w: storage class wants nodePath %s, nodePathMap allows %q", node, errNodeTakesNoVolumes, wanted, paths)
		}
		return wanted, nil
	}
	h := fnv.New32a()
	h.Write([]byte(volume))
	return paths[int(h.Sum32()%uint32(len(paths)))], nil
}
