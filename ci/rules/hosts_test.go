package rules

import (
	"bytes"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// hosts are all that files of the repository may name in a URL, each with the reason. A leading dot stands for any host of
// that domain. Package registries and mirrors are not among them: where packages come from is each machine's own
// setting, and images of ours are named skerry.internal.
var hosts = map[string]string{
	".example.com":                 "reserved for examples (RFC 2606)",
	".example.org":                 "reserved for examples (RFC 2606)",
	".example":                     "reserved for examples (RFC 2606)",
	".invalid":                     "reserved for what must not resolve (RFC 2606)",
	".test":                        "reserved for tests (RFC 2606)",
	".internal":                    "reserved for private use; names of ours that no server has",
	".cluster.local":               "inside of a cluster",
	"localhost":                    "this host",
	"snapshot.debian.org":          "the archive at the lock's date, for hosts without a mirror of their own",
	"www.debian.org":               "reference",
	"wiki.debian.org":              "reference",
	"www.apache.org":               "licence",
	"www.gnu.org":                  "licence",
	"spdx.org":                     "licence",
	"cyclonedx.org":                "format of the bill of materials",
	"json-schema.org":              "format of the configuration's schema",
	"reproducible-builds.org":      "reference",
	"uapi-group.org":               "reference",
	"www.freedesktop.org":          "reference",
	"systemd.io":                   "reference",
	".keeper":                      "a Service of the end-to-end tests",
	".svc":                         "inside of a cluster",
	"bford.info":                   "reference",
	"gitlab.com":                   "reference to a project's home page",
	"learn.microsoft.com":          "reference",
	"erofs.docs.kernel.org":        "reference",
	"docs.kernel.org":              "reference",
	"docs.u-boot.org":              "reference",
	"www.kernel.org":               "reference",
	"www.raspberrypi.com":          "reference",
	"containerd.io":                "reference",
	"kubernetes.io":                "reference",
	"github.com":                   "reference to a project's home page",
	"www.rfc-editor.org":           "reference",
	"datatracker.ietf.org":         "reference",
	"semver.org":                   "reference",
	"keepachangelog.com":           "reference",
	"cloudinit.readthedocs.io":     "reference",
	"netplan.readthedocs.io":       "reference",
	"pkg.go.dev":                   "reference",
	"go.dev":                       "reference",
	"uefi.org":                     "reference",
	"refspecs.linuxfoundation.org": "reference",
}

var (
	urlPattern = regexp.MustCompile(`\b(?:https?|ftp)://[^\s"'` + "`" + `<>()\[\]{}|\\,]+`)
	// servicePattern matches names that servers of packages and images have, wherever they stand.
	servicePattern = regexp.MustCompile(`(?i)\b(?:(?:[a-z0-9]+-)*(?:go)?(?:proxy|mirrors?|registry)(?:-[a-z0-9]+)*|deb|archive|ftp|index|packages)\.(?:[a-z0-9-]+\.)+(?:com|org|net|io|dev|cn|eu|de)\b`)
)

// suspicious returns the hosts in the text that may not be named.
func suspicious(text string) []string {
	var found []string
	for _, match := range urlPattern.FindAllString(text, -1) {
		// What is put in at run time, such as host or port, is not named.
		match, _, _ = strings.Cut(match, "%")
		match, _, _ = strings.Cut(match, "$")
		u, err := url.Parse(strings.TrimRight(match, ".:;*"))
		if err != nil || !allowedHost(u.Hostname()) {
			found = append(found, match)
		}
	}
	for _, match := range servicePattern.FindAllString(text, -1) {
		if !allowedHost(match) {
			found = append(found, match)
		}
	}
	return found
}

func allowedHost(host string) bool {
	// Addresses are of tests; one word is a name in a cluster or on a socket.
	if !strings.Contains(host, ".") || strings.Trim(host, "0123456789.") == "" || strings.Contains(host, ":") {
		return true
	}
	if _, ok := hosts[host]; ok {
		return true
	}
	for h := range hosts {
		if strings.HasPrefix(h, ".") && strings.HasSuffix("."+host, h) {
			return true
		}
	}
	return false
}

func TestHosts(t *testing.T) {
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		// Sums and versions of Go modules name modules, not servers; keys and captured test data are not ours to word.
		if filepath.Ext(file) == ".sum" || filepath.Base(file) == "go.mod" || filepath.Ext(file) == ".asc" ||
			slices.Contains(strings.Split(filepath.ToSlash(file), "/"), "testdata") {
			continue
		}
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // deleted and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(b, 0) >= 0 {
			continue // not text
		}
		for i, line := range strings.Split(string(b), "\n") {
			for _, found := range suspicious(line) {
				t.Errorf("%s:%d: %s is not a host that may be named here; see the table in ci/rules/hosts_test.go", file, i+1, found)
			}
		}
	}
}

func TestSuspicious(t *testing.T) {
	const dot = "." // so that this file does not name what it looks for
	tests := map[string]bool{
		"see https://kubernetes.io/docs/x.":         false,
		"http://127.0.0.1:6443/readyz":              false,
		"http://[::1]:80/":                          false,
		"https://device/v1/status":                  false,
		"http://a.b.example.com:8080/x":             false,
		`"https://" + host`:                         false,
		`fmt.Sprintf("https://%s:%d", host, port)`:  false,
		"skerry.internal/test/web:1":                false,
		"https://unknown" + dot + "org/x":           true,
		"use goproxy" + dot + "corp.net please":     true,
		"deb" + dot + "distribution.org/pool":       true,
		"my-registry" + dot + "company.io/image":    true,
		"https://kubernetes.io" + dot + "other.net": true,
	}
	for text, want := range tests {
		if got := suspicious(text); (len(got) > 0) != want {
			t.Errorf("%s: got %q", text, got)
		}
	}
}
