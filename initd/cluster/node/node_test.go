package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestMoved(t *testing.T) {
	var none netip.Addr
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	tests := []struct {
		name         string
		have, chosen netip.Addr
		held         bool
		want         bool
	}{
		{"nothing changed", a, a, true, false},
		{"another link has a better route", a, b, true, false},
		{"new lease", a, b, false, true},
		{"cable pulled", a, none, false, false},
		{"started without a cable, still none", fallback.Addr(), none, true, false},
		{"started without a cable, fallback is what is chosen", fallback.Addr(), fallback.Addr(), true, false},
		{"cable plugged", fallback.Addr(), a, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := moved(tt.have, tt.chosen, tt.held); got != tt.want {
				t.Errorf("moved %v, want %v", got, tt.want)
			}
		})
	}
}

func TestUncleanStop(t *testing.T) {
	dir := t.TempDir()
	start := func(want bool, when string) {
		t.Helper()
		if unclean, err := markRunning(dir); err != nil || unclean != want {
			t.Errorf("%s: unclean %v, %v; want %v", when, unclean, err, want)
		}
	}
	start(false, "first start")
	start(false, "killed and started again in the same boot")
	if err := os.WriteFile(filepath.Join(dir, runningFile), []byte("boot before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(true, "after a power cut")
	if err := markStopped(dir); err != nil {
		t.Fatal(err)
	}
	start(false, "after a clean stop")
}

func TestConfigFiles(t *testing.T) {
	dir := t.TempDir()
	c := Config{
		Name: "n1", AgentDir: filepath.Join(dir, "agent"), RunDir: filepath.Join(dir, "run"), ResolvConf: "/etc/resolv.conf",
		ClientCA: "/ca.crt", Kubeconfig: "/k", Cluster: Cluster{ClusterCIDR: "10.42.0.0/16", ClusterDNS: "10.43.0.10", ClusterDomain: "cluster.local"},
		Taints: []string{"a=b:NoSchedule"}, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Labels: []string{"x=y"},
		KubeletArgs: []string{"max-pods=7", "--v=2", "fail-cgroupv1=false"}, // whatever this machine has
	}
	if err := c.writeFiles(); err != nil {
		t.Fatal(err)
	}
	n := &node{Config: c}
	s, err := n.kubeletServer(t.Context())
	if err != nil {
		t.Fatalf("kubelet refuses what we write: %v", err)
	}
	if s.MaxPods != 7 {
		t.Errorf("max-pods %d: the operator's argument does not win", s.MaxPods)
	}
	if !s.ServerTLSBootstrap || s.CgroupDriver != "cgroupfs" || !s.KubeletConfiguration.SeccompDefault || len(s.RegisterWithTaints) != 1 {
		t.Errorf("kubelet reads %+v", s.KubeletConfiguration)
	}
	if s.NodeIP != "192.0.2.1" || s.NodeLabels["x"] != "y" || s.HostnameOverride != "n1" {
		t.Errorf("kubelet reads %+v", s.KubeletFlags)
	}
	n.KubeletArgs = []string{"no-such-flag=1"}
	if _, err := n.kubeletServer(t.Context()); err == nil {
		t.Error("an unknown argument was taken")
	}
}

func TestLikelyCIDR(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "pod-cidr")
	tests := []struct {
		name    string
		cached  string
		founder bool
		want    string
	}{
		{"of the last run", "10.42.7.0/24\n", true, "10.42.7.0/24"},
		{"founder's first start", "", true, "10.42.0.0/24"},
		{"founder, damaged note", "10.4", true, "10.42.0.0/24"},
		{"joined node's first start", "", false, "invalid Prefix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(cache, []byte(tt.cached), 0o644); err != nil {
				t.Fatal(err)
			}
			n := &node{Config: Config{Founder: tt.founder, Cluster: Cluster{ClusterCIDR: "10.42.0.0/16"}}}
			if got := n.likelyCIDR(lastCIDR(cache)).String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
