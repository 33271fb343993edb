package nodeconfig

import "net/netip"

// CNIFile is the name of our network configuration; containerd takes the first in order of names.
const CNIFile = "00-skerry.conflist"

// Bridge is the link that the pods of a node are on.
const Bridge = "cni0"

// Network is the pod network of one node.
type Network struct {
	PodCIDR netip.Prefix // this node's part of the cluster's pod network
	MTU     int          // of links between pods and the bridge
	// LeaseDir is where host-local notes the addresses in use. It must be on a tmpfs: after a power cut no pod is left,
	// and notes that outlive them would use up the network.
	LeaseDir string
}

// Conflist gives the CNI configuration. It has no ipMasq: the bridge plugin would masquerade traffic to the pods of other
// nodes too; package node does it for the whole cluster's network instead.
func (n Network) Conflist() ([]byte, error) {
	return marshal(map[string]any{
		"cniVersion": "1.0.0",
		"name":       "skerry",
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": Bridge, "mtu": n.MTU,
				"isGateway": true, "isDefaultGateway": true,
				"forceAddress": true, // the node may get another part of the network
				"hairpinMode":  true, // a pod reaches itself through its own Service
				"ipam": map[string]any{
					"type":    "host-local",
					"dataDir": n.LeaseDir,
					"ranges":  []any{[]any{map[string]any{"subnet": n.PodCIDR.String()}}},
				},
			},
			map[string]any{"type": "portmap", "backend": "nftables", "capabilities": map[string]any{"portMappings": true}},
		},
	})
}
