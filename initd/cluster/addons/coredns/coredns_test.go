package coredns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestMain lets the test binary be the applet: CoreDNS keeps state of the process, so each test runs a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("COREDNS_TEST") == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := Run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func applet(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	out := &bytes.Buffer{}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "COREDNS_TEST=1")
	cmd.Dir = t.TempDir()
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

func corefile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort is a port that nobody listens on, by UDP or TCP.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// ask repeats the question until somebody answers it, for at most ten seconds.
func ask(t *testing.T, port int, name string) *dns.Msg {
	t.Helper()
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client := dns.Client{Timeout: time.Second}
	for {
		answer, _, err := client.ExchangeContext(ctx, question, fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return answer
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no answer for %s: %v", name, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// An upstream server, a hosts file, and the shape of the Corefile of the cluster, with its imports that bring nothing.
func TestServe(t *testing.T) {
	upstream, port := freePort(t), freePort(t)
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("192.0.2.7 node-a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	custom := t.TempDir()
	for _, name := range []string{"none.override", "none.server"} {
		if err := os.WriteFile(filepath.Join(custom, name), []byte("# nothing\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, firstOut := applet(t, "-conf", corefile(t, fmt.Sprintf(".:%d {\n bind 127.0.0.1\n hosts {\n 192.0.2.53 outside.example.com\n }\n}\n", upstream)))
	second, out := applet(t, "-conf", corefile(t, fmt.Sprintf(`
.:%d {
    bind 127.0.0.1
    errors
    hosts %s {
        ttl 60
        fallthrough
    }
    rewrite name alias.example.com outside.example.com
    cache 30
    loop
    reload
    import %s/*.override
    forward . 127.0.0.1:%d
    loadbalance
}
import %[3]s/*.server
`, port, hosts, custom, upstream)))
	for _, cmd := range []*exec.Cmd{first, second} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Process.Kill()
		ask(t, map[*exec.Cmd]int{first: upstream, second: port}[cmd], "ready.example.com")
	}
	for name, want := range map[string]string{"node-a": "192.0.2.7", "outside.example.com": "192.0.2.53", "alias.example.com": "192.0.2.53"} {
		answer := ask(t, port, name)
		if len(answer.Answer) != 1 || !strings.HasSuffix(answer.Answer[0].String(), want) {
			t.Errorf("%s: %v", name, answer)
		}
	}
	for _, cmd := range []*exec.Cmd{second, first} {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("ended with %v:\n%s%s", err, out, firstOut)
		}
	}
	if strings.Contains(out.String(), "WARNING") || !strings.Contains(out.String(), "CoreDNS-1.") {
		t.Errorf("output is\n%s", out)
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no file":      {[]string{"-conf", "/not/there"}, "cannot load the Corefile"},
		"syntax":       {[]string{"-conf", corefile(t, ".:0 {\n hosts {\n")}, "cannot serve"},
		"no plugin":    {[]string{"-conf", corefile(t, ".:0 {\n route53 example.org.:Z1\n}\n")}, "route53"},
		"argument":     {[]string{"serve"}, `unexpected argument "serve"`},
		"unknown flag": {[]string{"-config", "x"}, "-config"},
		"log format":   {[]string{"-log-format", "xml"}, `-log-format is "xml"`},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, out := applet(t, c.args...)
			if err := cmd.Run(); err == nil || !strings.Contains(out.String(), c.want) {
				t.Errorf("ended with %v, want %q:\n%s", err, c.want, out)
			}
		})
	}
}

func TestPlugins(t *testing.T) {
	cmd, out := applet(t, "-plugins")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range strings.Fields("errors health ready kubernetes hosts prometheus forward cache loop reload loadbalance log rewrite file") {
		if !strings.Contains(out.String(), "\n"+name+"\n") {
			t.Errorf("plugin %s is missing:\n%s", name, out)
		}
	}
}
