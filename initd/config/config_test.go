package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const complete = `#cloud-config
# what a fleet's file looks like
hostname: gate-7.example.com
ntp:
  enabled: true
  servers: [10.0.0.1, time.example.com]
  pools:
    - pool.example.com
skerry:
  role: agent
  server: https://10.0.0.5
  token: correct-horse-battery
  node-labels:
    zone: north
    example.com/bays: 4
    example.com/spare:
  node-taints:
    - dedicated=camera:NoSchedule
    - example.com/wet:NoExecute
`

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("user-data", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseReadsEveryKey(t *testing.T) {
	got := mustParse(t, complete)
	want := Default()
	want.Hostname = "gate-7.example.com"
	want.NTP = NTP{Enabled: true, Servers: []string{"10.0.0.1", "time.example.com"}, Pools: []string{"pool.example.com"}}
	want.Skerry = Skerry{
		Role: RoleAgent, Server: "https://10.0.0.5", Token: "correct-horse-battery",
		NodeLabels: Labels{"zone": "north", "example.com/bays": "4", "example.com/spare": ""},
		NodeTaints: []string{"dedicated=camera:NoSchedule", "example.com/wet:NoExecute"},
		Health:     Default().Skerry.Health, Update: Default().Skerry.Update,
	}
	want.origin = got.origin
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	at, ok := got.At("skerry.node-taints[1]")
	if want := (Position{"user-data", 19, 7}); !ok || at != want {
		t.Errorf("the second taint is at %v, want %v", at, want)
	}
}

func TestParseAcceptsWhatEditorsMakeOfAFile(t *testing.T) {
	want := mustParse(t, complete)
	for name, text := range map[string]string{
		"carriage returns":        strings.ReplaceAll(complete, "\n", "\r\n"),
		"byte order mark":         "\xef\xbb\xbf" + complete,
		"blanks after the header": strings.Replace(complete, "#cloud-config\n", "#cloud-config  \n", 1),
		"labels as a list": strings.Replace(complete, "    zone: north\n    example.com/bays: 4\n    example.com/spare:\n",
			"    - zone=north\n    - example.com/bays=4\n    - example.com/spare=\n", 1),
	} {
		t.Run(name, func(t *testing.T) {
			got := mustParse(t, text)
			got.origin = want.origin
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestNothingSaidIsAServer(t *testing.T) {
	for _, text := range []string{"#cloud-config", "#cloud-config\n", "#cloud-config\n# nothing\n", "#cloud-config\nskerry:\n  # role: agent\nntp:\n", "#cloud-config\n---\n"} {
		got := mustParse(t, text)
		got.origin = map[string]Position{}
		if want := Default(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}

// Mistakes are given with the file and the whole text that the operator reads.
func TestMistakes(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, test := range []struct{ name, text, want string }{
		{"no header", "hostname: a\n", `user-data:1:1: the first line must be "#cloud-config"`},
		{"empty file", "", `user-data:1:1: the first line must be "#cloud-config"`},
		{"script", "#!/bin/sh\n", `user-data:1:1: the first line must be "#cloud-config"`},
		{"UTF-16", "\xff\xfe#\x00c\x00", `user-data:1:1: the file is UTF-16 text; save it as UTF-8`},
		{"Latin-1", "#cloud-config\n# a\nhostname: caf\xe9\n", `user-data:3:1: the line is not UTF-8 text; save the file as UTF-8`},
		{"too large", "#cloud-config\n" + strings.Repeat("#", MaxSize), `user-data:1:1: the file has 262158 bytes, at most 262144 are read`},
		{"two documents", "#cloud-config\nhostname: a\n---\nhostname: b\n", `user-data:3:1: a second document starts here; one file holds one`},
		{"not keys", "#cloud-config\n- a\n", `user-data:2:1: keys with values are expected here, not a list; allowed here: hostname, ntp, skerry`},
		{"near key", "#cloud-config\nskerry:\n  tls-sans: [a]\n", `user-data:3:3: unknown key "tls-sans"; did you mean "tls-san"? allowed here: role, server, token, tls-san, disable, node-labels, node-taints, health, update`},
		{"far key", "#cloud-config\nmounts: [vim]\n", `user-data:2:1: unknown key "mounts"; allowed here: hostname, ntp, skerry`},
		{"key twice", "#cloud-config\nhostname: a\nhostname: b\n", `user-data:3:1: key "hostname" was already given in line 2`},
		{"alias", "#cloud-config\nhostname: &a b\nntp:\n  servers: *a\n", `user-data:4:12: aliases are not supported: write the value out`},
		{"hostname capital", "#cloud-config\nhostname: Gate\n", `user-data:2:11: hostname "Gate" has capital letters; write "gate"`},
		{"hostname underscore", "#cloud-config\nhostname: a_b\n", `user-data:2:11: hostname "a_b" is not valid: letters a-z, digits and '-' (not first or last), in parts separated by '.'`},
		{"hostname long", "#cloud-config\nhostname: " + long + "\n", `user-data:2:11: hostname "` + long + `" has 64 characters, at most 63 are possible`},
		{"hostname truth", "#cloud-config\nhostname: true\n", `user-data:2:11: a text is expected here, not the truth value true; quote it if it is meant as text`},
		{"hostname nothing", "#cloud-config\nhostname:\n", `user-data:2:10: a text is expected here, not nothing`},
		{"truth as text", "#cloud-config\nntp:\n  enabled: maybe\n", `user-data:3:12: true or false is expected here, not the text "maybe"`},
		{"truth of old YAML", "#cloud-config\nntp:\n  enabled: on\n", `user-data:3:12: true or false is expected here, not the text "on"`},
		{"server with scheme", "#cloud-config\nntp:\n  servers: [ntp://a]\n", `user-data:3:13: "ntp://a" is neither a host name nor an address; write it without scheme, port and path`},
		{"bad address", "#cloud-config\nntp:\n  servers: [10.0.0.300]\n", `user-data:3:13: "10.0.0.300" is neither a host name nor an address; write it without scheme, port and path`},
		{"pool is a name", "#cloud-config\nntp:\n  pools: ['10.0.0.1']\n", `user-data:3:11: "10.0.0.1" is neither a host name nor an address; write it without scheme, port and path`},
		{"list wanted", "#cloud-config\nskerry:\n  tls-san: k.example.com\n", `user-data:3:12: a list is expected here, not the text "k.example.com"; write: [k.example.com]`},
		{"list item twice", "#cloud-config\nskerry:\n  tls-san: [a, a]\n", `user-data:3:16: "a" was already given in line 3`},
		{"role", "#cloud-config\nskerry:\n  role: agnet\n", `user-data:3:9: unknown role "agnet"; did you mean "agent"? allowed here: server, agent`},
		{"disable", "#cloud-config\nskerry:\n  disable: [traefik]\n", `user-data:3:13: unknown system workload "traefik"; allowed here: coredns, local-storage, metrics-server`},
		{"plain http", "#cloud-config\nskerry:\n  server: http://a:6443\n", `user-data:3:11: server "http://a:6443" is not a URL of the form https://HOST:6443`},
		{"server path", "#cloud-config\nskerry:\n  server: https://a:6443/x\n", `user-data:3:11: server "https://a:6443/x" must name the server only: https://a:6443`},
		{"server port", "#cloud-config\nskerry:\n  server: https://a:66443\n", `user-data:3:11: server "https://a:66443" has no valid port: 1 to 65535`},
		{"short token", "#cloud-config\nskerry:\n  token: abc\n", `user-data:3:10: the token has 3 characters; at least 8 are required, 32 random ones are a good choice`},
		{"token with blank", "#cloud-config\nskerry:\n  token: abc def ghi\n", `user-data:3:10: the token contains white space or characters beyond ASCII`},
		{"label key", "#cloud-config\nskerry:\n  node-labels: {-a: b}\n", `user-data:3:17: label key "-a": a name has 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit first and last`},
		{"label prefix", "#cloud-config\nskerry:\n  node-labels: {A/a: b}\n", `user-data:3:17: label key "A/a": what stands before '/' must be a DNS name in lower case`},
		{"label value", "#cloud-config\nskerry:\n  node-labels: {a: b c}\n", `user-data:3:17: label value "b c": at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last`},
		{"label reserved", "#cloud-config\nskerry:\n  node-labels: [node-role.kubernetes.io/edge=]\n", `user-data:3:17: label "node-role.kubernetes.io/edge": a node may not set labels in node-role.kubernetes.io on itself; use a domain of your own, or kubectl label node`},
		{"label without value", "#cloud-config\nskerry:\n  node-labels: [a]\n", `user-data:3:17: label "a" has no value: write a=VALUE, or a= for an empty one`},
		{"label twice", "#cloud-config\nskerry:\n  node-labels: [a=b, a=c]\n", `user-data:3:22: label "a" was already given in line 3`},
		{"labels text", "#cloud-config\nskerry:\n  node-labels: a=b\n", `user-data:3:16: keys with values, or a list of key=value, are expected here, not the text "a=b"`},
		{"taint effect", "#cloud-config\nskerry:\n  node-taints: ['a=b:noschedule']\n", `user-data:3:17: taint "a=b:noschedule": the effect is written NoSchedule`},
		{"taint unknown effect", "#cloud-config\nskerry:\n  node-taints: ['a=b:Never']\n", `user-data:3:17: taint "a=b:Never": unknown effect "Never"; allowed here: NoSchedule, PreferNoSchedule, NoExecute`},
		{"taint without effect", "#cloud-config\nskerry:\n  node-taints: [a=b]\n", `user-data:3:17: taint "a=b" has no effect: write it as key=value:effect or key:effect, with effect one of NoSchedule, PreferNoSchedule, NoExecute`},
		{"several at once", "#cloud-config\nhostname: A\nskerry:\n  role: x\n  colour: red\n",
			"user-data:2:11: hostname \"A\" has capital letters; write \"a\"\n" +
				"user-data:4:9: unknown role \"x\"; allowed here: server, agent\n" +
				"user-data:5:3: unknown key \"colour\"; allowed here: role, server, token, tls-san, disable, node-labels, node-taints, health, update"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse("user-data", []byte(test.text))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			if err.Error() != test.want {
				t.Errorf("got\n%s\nwant\n%s", err, test.want)
			}
		})
	}
}

// The words are the YAML library's; that there is a position, and a config is not returned, is ours.
func TestBrokenYAMLHasAPosition(t *testing.T) {
	_, err := Parse("user-data", []byte("#cloud-config\nhostname: [a\nntp: {\n"))
	var problems Problems
	if !errors.As(err, &problems) || problems[0].At.Line < 2 {
		t.Errorf("got %v, want a problem in line 2 or later", err)
	}
}

func TestEveryTextHasACheck(t *testing.T) {
	for _, c := range []struct {
		of     reflect.Type
		checks map[string]func(string) error
	}{{reflect.TypeFor[Config](), checks}, {reflect.TypeFor[Network](), networkChecks}} {
		used := map[string]bool{}
		use := func(at string) {
			used[at] = true
			if c.checks[at] == nil {
				t.Errorf("%s has no row in checks", at)
			}
		}
		var walk func(t reflect.Type, path string)
		walk = func(typ reflect.Type, path string) {
			for i := range typ.NumField() {
				f := typ.Field(i)
				key := f.Tag.Get("yaml")
				if key == "" || f.Type == reflect.TypeFor[Labels]() || f.Type.Kind() == reflect.Bool {
					continue
				}
				at, typ := join(path, key), f.Type
				if typ.Kind() == reflect.Map {
					use(at + "{}")
				}
				if typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
					at, typ = at+"[]", typ.Elem()
				}
				if typ.Kind() == reflect.Pointer {
					typ = typ.Elem()
				}
				if typ.Kind() == reflect.Struct {
					walk(typ, at)
					continue
				}
				use(at)
			}
		}
		walk(c.of, "")
		for path := range c.checks {
			if !used[path] {
				t.Errorf("checks has a row for %s, which is no text of %v", path, c.of)
			}
		}
	}
}

func TestFirstSourceWinsByKey(t *testing.T) {
	strong, err := Parse("strong", []byte("#cloud-config\nntp:\n  enabled: false\nskerry:\n  disable: []\n  node-labels: {a: '1'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	weak, err := Parse("weak", []byte("#cloud-config\nhostname: weak\nntp:\n  servers: [10.0.0.1]\nskerry:\n  token: weak-token\n  disable: [coredns]\n  node-labels: {b: '2'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := Merge(strong, weak)
	want := Default()
	want.Hostname = "weak"
	want.NTP = NTP{Enabled: false, Servers: []string{"10.0.0.1"}}
	want.Skerry.Token, want.Skerry.Disable, want.Skerry.NodeLabels = "weak-token", []string{}, Labels{"a": "1"}
	places := map[string]string{}
	for path, at := range got.origin {
		places[path] = at.String()
	}
	wantPlaces := map[string]string{
		"hostname": "weak:2:11", "ntp": "strong:3:3", "ntp.enabled": "strong:3:12", "ntp.servers": "weak:4:12", "ntp.servers[0]": "weak:4:13",
		"skerry": "strong:5:3", "skerry.token": "weak:6:10", "skerry.disable": "strong:5:12", "skerry.node-labels": "strong:6:16", "skerry.node-labels.a": "strong:6:17",
	}
	if !reflect.DeepEqual(places, wantPlaces) {
		t.Errorf("places\ngot  %v\nwant %v", places, wantPlaces)
	}
	want.origin = got.origin
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestLoadLeavesABadSourceOutAndHoldsTheNode(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"/boot/user-data":             "#cloud-config\nhostname: mine\nskerry:\n  rôle: agent\n",
		"/usr/share/skerry/user-data": "#cloud-config\nhostname: baked\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := Load(ReadFiles(root)...)
	if l.Config.Hostname != "baked" {
		t.Errorf("hostname %q, want the one of the source without mistakes", l.Config.Hostname)
	}
	_, err := l.Node("baked")
	want := "cannot start the node: the configuration in /boot/user-data has mistakes; nothing of the cluster was changed. Correct it and reboot: " +
		"network and device API are up\n/boot/user-data:4:3: unknown key \"rôle\"; did you mean \"role\"? allowed here: role, server, token, tls-san, disable, node-labels, node-taints, health, update"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestReadFilesReportsWhatIsNoFile(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "boot/user-data"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := Load(ReadFiles(root)...)
	if got, want := l.Problems.Error(), "/boot/user-data: cannot read the file: it is not a regular file"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if l := Load(ReadFiles(t.TempDir())...); l.Problems != nil || l.Config.Skerry.Role != RoleServer {
		t.Errorf("without any file: %+v", l)
	}
}

func TestKeysThatDoNotGoTogether(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"agent alone", "#cloud-config\nskerry:\n  role: agent\n",
			"f:3:9: an agent needs \"server\": the URL of the server to join, such as https://10.0.0.5:6443\n" +
				"f:3:9: an agent needs \"token\": skerry node token shows the server's, which has it in /var/lib/rancher/k3s/server/node-token"},
		{"server's keys on an agent", "#cloud-config\nskerry:\n  role: agent\n  server: https://a\n  token: 0123456789\n  tls-san: [a]\n  disable: [coredns]\n",
			"f:6:12: \"tls-san\" has a meaning on a server only; remove it or set role: server\n" +
				"f:7:12: \"disable\" has a meaning on a server only; remove it or set role: server"},
		{"server with server", "#cloud-config\nskerry:\n  server: https://a\n", "f:3:11: \"server\" has a meaning on an agent only; set role: agent to join it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse("f", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Check(); err == nil || err.Error() != test.want {
				t.Errorf("got\n%v\nwant\n%s", err, test.want)
			}
			if _, err := Load(Source{Name: "f", Data: []byte(test.text)}).Node("n"); err == nil || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("the node starts anyway: %v", err)
			}
		})
	}
}

func TestNodeFiles(t *testing.T) {
	n, err := mustParse(t, complete).Node("gate-7.example.com")
	if err != nil {
		t.Fatal(err)
	}
	const want = `# Written by init on every boot from the device's configuration: changes here are lost.
node-name: gate-7.example.com
server: https://10.0.0.5:6443
token: correct-horse-battery
node-label:
- example.com/bays=4
- example.com/spare=
- zone=north
node-taint:
- dedicated=camera:NoSchedule
- example.com/wet:NoExecute
`
	if string(n.Config) != want {
		t.Errorf("got\n%s\nwant\n%s", n.Config, want)
	}
	if got, want := string(n.Env), "SKERRY_ROLE=agent\n"; got != want {
		t.Errorf("environment %q, want %q", got, want)
	}
}

func TestDefaultHostname(t *testing.T) {
	for id, want := range map[string]string{
		"0A1b2c3d4e5f60718293a4b5c6d7e8f9\n":   "skerry-0a1b2c",
		"0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9": "skerry-0a1b2c",
		"0a1b":                                 "skerry-0a1b",
	} {
		if got := DefaultHostname(id); got != want || checkHostname(got) != nil {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
	}
}

// Whatever is in the file, the parser returns, with positions inside the file; what it accepts can be rendered again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(complete))
	f.Add([]byte(upgrades))
	f.Add([]byte("#cloud-config\nskerry: {health: {checks: [{name: a, http: }, , {}, [{}]]}, update: {window: , rate: 1KiB}}\n"))
	f.Add([]byte("#cloud-config\nskerry: {node-labels: [a=b], ? [x] : y, <<: {a: b}}\n"))
	f.Add([]byte("#cloud-config\n:\r0"))
	f.Add([]byte("#cloud-config\n&a [*a, !!binary x, 0o7, .inf]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			if c.Check() == nil {
				if _, err := c.Node("n"); err != nil {
					t.Errorf("accepted but not rendered: %v", err)
				}
			}
			if merged := Merge(c, c); !reflect.DeepEqual(merged, c) {
				t.Errorf("merging it with itself changes it:\n%+v\n%+v", c, merged)
			}
			return
		}
		var problems Problems
		if !errors.As(err, &problems) {
			t.Fatalf("%T is not of type Problems", err)
		}
		// A carriage return alone is a line break, too (YAML 1.2.2, section 5.4).
		last := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 2
		for _, p := range problems {
			if p.At.Line < 1 || p.At.Line > last || p.At.Column < 1 {
				t.Errorf("%v is not in the file", p)
			}
		}
	})
}
