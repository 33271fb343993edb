package nodeconfig

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs; look at the change and run the test with -update\ngot:\n%s", path, got)
	}
}

func TestGoldenFiles(t *testing.T) {
	server := Kubelet{
		ClientCA: "/d/server/tls/client-ca.crt", TLSCert: "/d/agent/serving-kubelet.crt", TLSKey: "/d/agent/serving-kubelet.key",
		Endpoint: "unix:///run/c.sock", ClusterDNS: "10.43.0.10", ClusterDomain: "cluster.local", ResolvConf: "/etc/resolv.conf",
		StaticPods: "/d/agent/pod-manifests", VolumePlugins: "/d/agent/volumeplugins", Taints: []string{"a=b:NoSchedule", "c:NoExecute"},
	}
	agent := server
	agent.TLSCert, agent.TLSKey, agent.Taints, agent.RotateCertificates = "", "", nil, true
	tests := []struct {
		name string
		make func() ([]byte, error)
	}{
		{"kubelet-server.json", server.Config},
		{"kubelet-agent.json", agent.Config},
		{"kube-proxy.json", KubeProxy{"/d/agent/kubelet.kubeconfig", "10.42.0.0/16", "n1"}.Config},
		{"skerry.conflist", Network{netip.MustParsePrefix("10.42.3.0/24"), 1450, "/run/skerry/cni/leases"}.Conflist},
		{"containerd.toml", func() ([]byte, error) {
			return Containerd{
				Root: "/d/agent/containerd", State: "/run/skerry/containerd", Socket: "/run/skerry/containerd/containerd.sock", PauseImage: "skerry.internal/pause:1",
				Runtime: "/usr/bin/crun", CNIBin: []string{"/usr/lib/cni"}, CNIConf: "/etc/cni/net.d", RegistryConfig: "/etc/skerry/registries",
			}.Config(), nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.make()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name, got)
		})
	}
}

func TestTaintWithoutEffect(t *testing.T) {
	if _, err := (Kubelet{Taints: []string{"a=b"}}).Config(); err == nil {
		t.Error("a taint without an effect was taken")
	}
}

func TestResolvConf(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"usual", map[string]string{"/etc/resolv.conf": "search x\nnameserver 192.0.2.1\n"}, "/etc/resolv.conf"},
		{"systemd-resolved", map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.53", "/run/r": "nameserver 192.0.2.1"}, "/run/r"},
		{"loopback beside a real one", map[string]string{"/etc/resolv.conf": "nameserver 127.0.0.1\nnameserver 192.0.2.1"}, ""},
		{"IPv6 loopback", map[string]string{"/etc/resolv.conf": "nameserver ::1"}, ""},
		{"IPv6", map[string]string{"/etc/resolv.conf": "nameserver 2001:db8::1"}, "/etc/resolv.conf"},
		{"empty", map[string]string{"/etc/resolv.conf": "# none\nnameserver\n"}, ""},
		{"missing", nil, ""},
		{"comment", map[string]string{"/etc/resolv.conf": "#nameserver 127.0.0.1\nnameserver 192.0.2.1"}, "/etc/resolv.conf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, content := ResolvConf([]string{"/etc/resolv.conf", "/run/r"}, func(p string) ([]byte, error) {
				if s, ok := tt.files[p]; ok {
					return []byte(s), nil
				}
				return nil, errors.New("no such file")
			})
			if got != tt.want || (got == "") != usableServer(content) {
				t.Errorf("path %q, content %q; want path %q", got, content, tt.want)
			}
		})
	}
}

func TestNodeAddress(t *testing.T) {
	a := netip.MustParseAddr
	eth0 := Link{2, "eth0", []netip.Addr{a("fe80::1"), a("192.0.2.10"), a("192.0.2.11"), a("2001:db8::10")}}
	v6 := Link{2, "eth0", []netip.Addr{a("fe80::1"), a("2001:db8::10")}}
	wlan0 := Link{3, "wlan0", []netip.Addr{a("198.51.100.5")}}
	lo := Link{1, "lo", []netip.Addr{a("127.0.0.1"), a("203.0.113.1")}}
	cni := Link{9, "cni0", []netip.Addr{a("10.42.0.1")}}
	tests := []struct {
		name   string
		links  []Link
		routes []Route
		want   string
	}{
		{"default route names its source", []Link{lo, eth0, wlan0}, []Route{{Link: 2, Source: a("192.0.2.11")}}, "192.0.2.11"},
		{"default route without source", []Link{lo, eth0, wlan0}, []Route{{Link: 2}}, "192.0.2.10"},
		{"lower metric wins", []Link{lo, eth0, wlan0}, []Route{{Link: 2, Metric: 600}, {Link: 3, Metric: 100}}, "198.51.100.5"},
		{"IPv6 before IPv4 on the link", []Link{{2, "eth0", []netip.Addr{a("2001:db8::10"), a("192.0.2.10")}}}, []Route{{Link: 2}}, "192.0.2.10"},
		{"default route over a link with IPv6 alone", []Link{v6, wlan0}, []Route{{Link: 2}, {Link: 3, Metric: 600}}, "198.51.100.5"},
		{"router advertisement before the DHCP lease", []Link{lo, v6}, nil, ""},
		{"IPv6 alone, named by a route", []Link{lo, v6}, []Route{{Link: 2, Source: a("2001:db8::10")}}, ""},
		{"IPv6 in front, no default route", []Link{lo, v6, wlan0}, nil, "198.51.100.5"},
		{"source that is gone", []Link{lo, eth0}, []Route{{Link: 2, Source: a("192.0.2.99")}}, "192.0.2.10"},
		{"no default route", []Link{lo, cni, eth0}, nil, "192.0.2.10"},
		{"route over a link without address", []Link{lo, {4, "ppp0", nil}, wlan0}, []Route{{Link: 4}}, "198.51.100.5"},
		{"only the pod network", []Link{lo, cni}, nil, ""},
		{"link-local only", []Link{{2, "eth0", []netip.Addr{a("169.254.7.7"), a("fe80::1")}}}, nil, ""},
		{"nothing", nil, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if r := NodeAddress(tt.links, tt.routes); r.IsValid() {
				got = r.String()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
