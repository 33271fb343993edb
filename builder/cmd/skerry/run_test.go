package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// installFakeQEMU puts an emulator that refuses to start, and a firmware's descriptor, where `run` looks for them, and
// nothing else.
func installFakeQEMU(t *testing.T) {
	prefix := t.TempDir()
	files := map[string]string{
		"bin/qemu-system-x86_64":  "#!/bin/sh\necho 'no machine today' >&2\nexit 3\n",
		"bin/qemu-system-aarch64": "#!/bin/sh\nexit 3\n",
		"code.fd":                 "code",
		"vars.fd":                 "variables",
		"share/qemu/firmware/60-test.json": `{"interface-types": ["uefi"], "features": [],
			"targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
			"mapping": {"device": "flash", "executable": {"filename": "` + prefix + `/code.fd", "format": "raw"},
				"nvram-template": {"filename": "` + prefix + `/vars.fd", "format": "raw"}}}`,
	}
	for name, text := range files {
		path := filepath.Join(prefix, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", filepath.Join(prefix, "bin"))
}

// skerryRun executes "skerry run" with the arguments.
func skerryRun(t *testing.T, args ...string) (stdout, stderr string, err error) {
	var out, complaints bytes.Buffer
	c := root()
	c.SetArgs(append([]string{"run"}, args...))
	c.SetOut(&out)
	c.SetErr(&complaints)
	err = c.ExecuteContext(t.Context())
	return out.String(), complaints.String(), err
}

func TestRunErrors(t *testing.T) {
	tests := []struct {
		name  string
		args  []string
		image bool // there is an image
		qemu  bool // QEMU is installed
		want  []string
	}{
		{"unknown board", []string{"--board", "vax"}, true, true, []string{`unknown board "vax"`, "x86-64"}},
		{"unknown accelerator", []string{"--accel", "warp"}, true, true, []string{`"warp"`, "auto, kvm, hvf, tcg"}},
		{"no processor", []string{"--cpus", "0"}, true, true, []string{"--cpus 1 or more"}},
		{"memory without a unit", []string{"--memory", "2048"}, true, true, []string{"--memory", "such as 512MiB"}},
		{"board that QEMU does not emulate", []string{"--board", "rpi5-arm64"}, true, true, []string{"cannot run board rpi5-arm64: QEMU does not emulate it", "--direct"}},
		{"kernel arguments of a board", []string{"--board", "rpi-arm64", "--append", "debug"}, true, true, []string{"cannot run board rpi-arm64 with --append", "--direct"}},
		{"no image of a board", []string{"--board", "rpi-arm64"}, true, true, []string{"there is no", "skerry-rpi-arm64.img"}},
		{"no QEMU", nil, true, false, []string{"qemu-system-x86_64", "install QEMU"}},
		{"no image", nil, false, true, []string{"skerry-x86-64.img", "make image"}},
		{"no kernel", []string{"--direct"}, false, true, []string{"make image"}},
		{"disk too small", []string{"--disk-size", "1GiB"}, true, true,
			[]string{"a disk of 1 GiB is too small for board x86-64", "nothing was written", "--disk-size"}},
		{"QEMU fails", nil, true, true, []string{"cannot start a virtual machine", "no machine today"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out := t.TempDir()
			if test.image {
				if err := os.WriteFile(filepath.Join(out, "skerry-x86-64.img"), make([]byte, 512), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if test.qemu {
				installFakeQEMU(t)
			} else {
				t.Setenv("PATH", t.TempDir())
			}
			_, _, err := skerryRun(t, append([]string{"--output", out, "--accel", "tcg"}, test.args...)...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got error %q, want one with %q", err, want)
				}
			}
			// A disk that was thrown away is gone, and nothing pretends to be a kept one.
			if left, _ := filepath.Glob(filepath.Join(out, "run", "*", "*.img*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if left, _ := filepath.Glob(filepath.Join(out, "run", "*", "temporary-*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestRunFindsTheDiskOfAnEarlierVersion(t *testing.T) {
	installFakeQEMU(t)
	out := t.TempDir()
	for _, name := range []string{"skerry-x86-64.img", "run/disk.img"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(out, "run"), 0o755), os.WriteFile(filepath.Join(out, name), make([]byte, 512), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := skerryRun(t, "--output", out, "--accel", "tcg", "--keep")
	if err == nil || !strings.Contains(err.Error(), "a disk that an earlier version kept is in "+filepath.Join(out, "run", "disk.img")) {
		t.Errorf("got %v", err)
	}
}

func TestRunDryRun(t *testing.T) {
	installFakeQEMU(t)
	out := t.TempDir()
	got, said, err := skerryRun(t, "--output", out, "--accel", "tcg", "--dry-run", "--memory", "1GiB", "--append", "skerry.loglevel=debug")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"/bin/qemu-system-x86_64 -name skerry ", " -m 1024 ", "-accel tcg,thread=multi", out + "/run/x86-64/temporary/disk.img",
		"/code.fd ", out + "/run/x86-64/temporary/firmware-variables.fd", "-:6443", "-:7443", "kernel-cmdline-extra=skerry.loglevel=debug",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the command line lacks %q:\n%s", want, got)
		}
	}
	forward := regexp.MustCompile(`tcp:127\.0\.0\.1:(\d+)-:7443`).FindStringSubmatch(got)
	if forward == nil || !strings.HasSuffix(said, "\nskerry: once it runs: skerry node status -n 127.0.0.1:"+forward[1]+"\n") {
		t.Errorf("the device API is forwarded by %q, and said is %q", forward, said)
	}
	if files, _ := filepath.Glob(filepath.Join(out, "run", "*")); len(files) > 0 {
		t.Errorf("the dry run wrote %q", files)
	}
}

func TestPumpKeys(t *testing.T) {
	tests := []struct{ name, typed, sent, pressed string }{
		{"plain", "ls\r\x03", "ls\r\x03", ""},
		{"button", "a\x01pb", "ab", "p"},
		{"escape itself", "\x01a\x01\x01", "\x01\x01", ""},
		{"unknown", "\x01qz", "z", ""},
		{"twice", "\x01r\x01x", "", "rx"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var sent, pressed bytes.Buffer
			buttons := map[byte]func(){}
			for _, key := range []byte("prx") {
				buttons[key] = func() { pressed.WriteByte(key) }
			}
			// One byte at a time too, as a person types.
			for _, r := range []io.Reader{strings.NewReader(test.typed), oneByte{strings.NewReader(test.typed)}} {
				sent.Reset()
				pressed.Reset()
				pumpKeys(r, &sent, buttons)
				if sent.String() != test.sent || pressed.String() != test.pressed {
					t.Errorf("sent %q, pressed %q; want %q, %q", &sent, &pressed, test.sent, test.pressed)
				}
			}
		})
	}
}

type oneByte struct{ io.Reader }

func (r oneByte) Read(b []byte) (int, error) { return r.Reader.Read(b[:1]) }

func TestRedirectKubeconfig(t *testing.T) {
	got, err := redirectKubeconfig([]byte(`apiVersion: v1
kind: Config
clusters:
- name: skerry
  cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: QQ==}
users:
- name: admin
  user: {client-key-data: Qg==}
`), "https://127.0.0.1:40000")
	if err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: v1
clusters:
    - cluster:
        certificate-authority-data: QQ==
        server: https://127.0.0.1:40000
      name: skerry
kind: Config
users:
    - name: admin
      user:
        client-key-data: Qg==
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for name, broken := range map[string]string{
		"not YAML": "{", "no clusters": "kind: Config", "empty cluster": "clusters: [{name: x}]",
	} {
		if _, err := redirectKubeconfig([]byte(broken), "https://127.0.0.1:1"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
