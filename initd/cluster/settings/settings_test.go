package settings

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// load reads settings as the program does: arguments, environment, and files in a folder of their own. The file c.yaml
// is the one that --config names.
func load(t *testing.T, role Role, files map[string]string, env map[string]string, args ...string) (*Settings, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fs := pflag.NewFlagSet(string(role), pflag.ContinueOnError)
	s := Flags(fs, role)
	args = append([]string{"--config=" + filepath.Join(dir, "c.yaml"), "--node-name=n1"}, args...)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return s, s.Load(fs, func(k string) string { return strings.ReplaceAll(env[k], "DIR", dir) })
}

func TestPrecedence(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		env   map[string]string
		args  []string
		get   func(*Settings) string
		want  string
	}{
		{"default", map[string]string{"c.yaml": ""}, nil, nil, func(s *Settings) string { return s.ServiceCIDR + " " + s.ClusterDNS }, "10.43.0.0/16 10.43.0.10"},
		{"file", map[string]string{"c.yaml": "token: a"}, nil, nil, func(s *Settings) string { return s.Token }, "a"},
		{"environment over file", map[string]string{"c.yaml": "token: a"}, map[string]string{"SKERRY_TOKEN": "b"}, nil, func(s *Settings) string { return s.Token }, "b"},
		{"flag over environment", map[string]string{"c.yaml": "token: a"}, map[string]string{"SKERRY_TOKEN": "b"}, []string{"--token=c"}, func(s *Settings) string { return s.Token }, "c"},
		{"token file", map[string]string{"c.yaml": "", "tok": "from-file\n"}, map[string]string{"SKERRY_TOKEN_FILE": "DIR/tok"}, nil, func(s *Settings) string { return s.Token }, "from-file"},
		{"token over token file", map[string]string{"c.yaml": "token: a", "tok": "b"}, map[string]string{"SKERRY_TOKEN_FILE": "DIR/tok"}, nil, func(s *Settings) string { return s.Token }, "a"},
		{"drop-in replaces", map[string]string{"c.yaml": "tls-san: [a, b]", "c.yaml.d/10.yaml": "tls-san: [c]"}, nil, nil, func(s *Settings) string { return strings.Join(s.TLSSAN, " ") }, "c"},
		{"drop-in adds", map[string]string{"c.yaml": "tls-san: [a, b]", "c.yaml.d/10.yaml": "tls-san+: [c]"}, nil, nil, func(s *Settings) string { return strings.Join(s.TLSSAN, " ") }, "a b c"},
		{"drop-ins in order", map[string]string{"c.yaml": "", "c.yaml.d/20.yaml": "token: y", "c.yaml.d/10.yaml": "token: x"}, nil, nil, func(s *Settings) string { return s.Token }, "y"},
		{"flag replaces a file's list", map[string]string{"c.yaml": "node-label: [a=1]"}, nil, []string{"--node-label=b=2"}, func(s *Settings) string { return strings.Join(s.NodeLabels, " ") }, "b=2"},
		{"list as a scalar with commas", map[string]string{"c.yaml": "disable: coredns,metrics-server"}, nil, nil, func(s *Settings) string { return strings.Join(s.Disable, " ") }, "coredns metrics-server"},
		{"comma inside a list item stays", map[string]string{"c.yaml": "kubelet-arg: ['eviction-hard=a<1,b<2']"}, nil, nil, func(s *Settings) string { return strings.Join(s.KubeletArgs, " ") }, "eviction-hard=a<1,b<2"},
		{"IPv6 address second", map[string]string{"c.yaml": "node-ip: [192.0.2.1, '2001:db8::1']"}, nil, nil, func(s *Settings) string { return strings.Join(s.NodeIP, " ") }, "192.0.2.1 2001:db8::1"},
		{"boolean and number", map[string]string{"c.yaml": "disable-agent: true\nhttps-listen-port: 7443"}, nil, nil, (*Settings).Endpoint, "https://127.0.0.1:7443"},
		{"mode as YAML writes it", map[string]string{"c.yaml": `write-kubeconfig-mode: "0644"`}, nil, nil, func(s *Settings) string { m, _ := s.KubeconfigMode(); return m.String() }, "-rw-r--r--"},
		{"comments only", map[string]string{"c.yaml": "# nothing\n"}, nil, nil, func(s *Settings) string { return s.NodeName }, "n1"},
		{"upper-case name", map[string]string{"c.yaml": ""}, nil, []string{"--node-name=Pi-Roof"}, func(s *Settings) string { return s.NodeName }, "pi-roof"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := load(t, Server, tt.files, tt.env, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.get(s); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	agent := []string{"--server=https://192.0.2.1:6443", "--token=x"}
	tests := []struct {
		name string
		role Role
		file string
		args []string
		want []string // all must be in the message
	}{
		{"unknown key", Server, "a: 1\ntls-sans: [x]", nil, []string{"c.yaml:1:1", `"a"`}},
		{"mistyped key", Server, "\ntls-sans: [x]", nil, []string{"c.yaml:2:1", `did you mean "tls-san"?`}},
		{"server's key on an agent", Agent, "disable: [coredns]", agent, []string{`"disable"`, "skerryd agent has no such setting"}},
		{"list for one value", Server, "token: [a]", nil, []string{"c.yaml:1:1", `"token"`, "simple value"}},
		{"mapping for a list", Server, "tls-san: {a: b}", nil, []string{`"tls-san"`, "list"}},
		{"list inside a list", Server, "tls-san:\n- [a]", nil, []string{"line 2", "simple value"}},
		{"adding to a value", Server, "token+: a", nil, []string{"not a list"}},
		{"no mapping", Server, "- a", nil, []string{"c.yaml:1", "key: value"}},
		{"no YAML", Server, "a: [", nil, []string{"c.yaml"}},
		{"no number", Server, "https-listen-port: x", nil, []string{"https-listen-port"}},
		{"port", Server, "https-listen-port: 70000", nil, []string{"70000", "1 to 65535"}},
		{"node name", Server, "", []string{"--node-name=a_b"}, []string{`"a_b"`, "--node-name"}},
		{"relative data folder", Server, "data-dir: data", nil, []string{"absolute"}},
		{"address", Server, "node-ip: 10.0.0", nil, []string{"10.0.0", "IP address"}},
		{"IPv6 address first", Server, "node-ip: ['2001:db8::1', 192.0.2.1]", nil, []string{`"2001:db8::1"`, "IPv4", "before it"}},
		{"IPv6 address on an agent", Agent, "node-ip: '2001:db8::1'", agent, []string{`"2001:db8::1"`, "IPv4"}},
		{"label", Server, "node-label: [a]", nil, []string{`"a"`, "key=value"}},
		{"taint", Server, "node-taint: ['a=b:Never']", nil, []string{"NoSchedule"}},
		{"networks overlap", Server, "service-cidr: 10.42.128.0/17", nil, []string{"overlap"}},
		{"pod network too small", Server, "cluster-cidr: 10.42.0.0/24", nil, []string{"/24 of it"}},
		{"IPv6 pods", Server, "cluster-cidr: fd00::/48", nil, []string{"IPv4"}},
		{"DNS outside of services", Server, "cluster-dns: 10.42.0.10", nil, []string{"10.43.0.0/16"}},
		{"backend", Server, "flannel-backend: udp", nil, []string{"vxlan, host-gw or none"}},
		{"durability", Server, "datastore-sync: off", nil, []string{"full or normal"}},
		{"mode", Server, "write-kubeconfig-mode: rw", nil, []string{"octal"}},
		{"token", Server, "token: 'a b'", nil, []string{"white space"}},
		{"agent without server", Agent, "token: x", nil, []string{"--server https://"}},
		{"agent with http", Agent, "token: x\nserver: http://a", nil, []string{"--server https://"}},
		{"agent without token", Agent, "server: https://a:6443", nil, []string{"node-token"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.role, map[string]string{"c.yaml": tt.file}, nil, tt.args...)
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := load(t, Server, nil, nil); err == nil {
		t.Error("a file that was asked for is missing and nobody said so")
	}
	fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
	s := Flags(fs, Server)
	if err := fs.Set("node-name", "n1"); err != nil {
		t.Fatal(err)
	}
	s.ConfigFile = filepath.Join(t.TempDir(), "none.yaml") // as the default file is on a new host
	if err := s.Load(fs, func(string) string { return "" }); err != nil {
		t.Errorf("the default file may be missing: %v", err)
	}
}

// TestNamesOfK3s holds the flags that K3s has too against its documentation: renaming one breaks its users' files.
func TestNamesOfK3s(t *testing.T) {
	k3s := strings.Fields(`config debug v bind-address https-listen-port advertise-address tls-san data-dir cluster-cidr service-cidr
		service-node-port-range cluster-dns cluster-domain flannel-backend token token-file write-kubeconfig write-kubeconfig-mode
		kube-apiserver-arg kube-controller-manager-arg kube-scheduler-arg disable disable-kube-proxy node-name node-label node-taint
		container-runtime-endpoint pause-image node-ip node-external-ip resolv-conf flannel-iface kubelet-arg kube-proxy-arg`)
	own := []string{"disable-agent", "datastore-sync"}
	fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
	Flags(fs, Server)
	var have []string
	fs.VisitAll(func(f *pflag.Flag) { have = append(have, f.Name) })
	for _, n := range k3s {
		if !slices.Contains(have, n) {
			t.Errorf("K3s' --%s is gone", n)
		}
	}
	for _, n := range have {
		if !slices.Contains(k3s, n) && !slices.Contains(own, n) {
			t.Errorf("--%s is neither one of K3s nor a deliberate one of ours", n)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("token: a\ntls-san: [x, y]\n")
	f.Add("tls-san+: a,b")
	f.Add("? [a]\n: b")
	f.Add("<<: &x {a: *x}")
	f.Fuzz(func(t *testing.T, content string) {
		fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
		Flags(fs, Server)
		values := map[string][]string{}
		if parse([]byte(content), "f", fs, Server, values) == nil {
			for name, list := range values {
				if _, isList := fs.Lookup(name).Value.(pflag.SliceValue); !isList && len(list) != 1 {
					t.Errorf("%s has %d values", name, len(list))
				}
			}
		}
	})
}
