// Package rules holds what must be true of the repository as a whole: who may import whom, how small process 1 is, and
// which hosts are named.
package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/skerryos/skerry/"

// A rule says what some packages must not import. Patterns are import paths, those of this module without its name; an
// element of two dots and a dot ("...") at the end stands for any rest, as in the go command.
type rule struct {
	name   string
	reason string
	// of are the packages that the rule is about, but not those in except.
	of, except []string
	// never are what they must not import: directly, or by anything that they import if deep is set.
	never []string
	deep  bool
	// allowed are parts of never that are let through.
	allowed []string
}

// kubernetes is the code that only the cluster's packages may link.
var kubernetes = []string{"k8s.io/...", "sigs.k8s.io/...", "github.com/containerd/...", "github.com/k3s-io/...", "github.com/coredns/...", "github.com/flannel-io/..."}

var rules = []rule{
	{
		name:   "devices know nothing of the builder",
		reason: "what is on the device owns the formats that devices in the field depend on; the builder follows it, never the other way round",
		of:     []string{"initd/..."},
		never:  []string{module + "builder/...", module + "ci/..."},
		deep:   true,
	},
	{
		name: "only the cluster's packages link Kubernetes",
		reason: "any fatal error in there must end a process that is restarted, not the machine's process 1 nor the builder; " +
			"and it is 180 MB of code",
		of:     []string{"..."},
		except: []string{"initd/cluster/...", "initd/cmd/skerryd", "initd/cmd/skerry-cri"},
		never:  kubernetes,
		deep:   true,
	},
	{
		name:   "siblings on the device are wired in main",
		reason: "each can be read, tested and replaced without the others; main hands them to each other by constructor arguments",
		of:     []string{"initd/..."},
		except: []string{"initd/cmd/...", "initd/cluster/...", "initd/config/schema", "initd/health", "initd/update", "initd/update/...", "initd/slot/slottest",
			"initd/network/discovery/discoverytest"}, // the networks of its and the builder's tests
		never:   []string{module + "initd/..."},
		allowed: []string{module + "initd/api/v1", module + "initd/version"},
	},
	{
		name:    "an upgrade joins bundle and slot, and nothing else",
		reason:  "its table says what is done to which of the two in which order; everything else it is given by main",
		of:      []string{"initd/update"},
		never:   []string{module + "initd/..."},
		allowed: []string{module + "initd/bundle", module + "initd/slot"},
	},
	{
		name:    "where upgrades come from drives an upgrade, and nothing else",
		reason:  "pull and stick differ in how they find a bundle; disks, times and the restart they are given by main",
		of:      []string{"initd/update/follow", "initd/update/stick"},
		never:   []string{module + "initd/..."},
		allowed: []string{module + "initd/bundle", module + "initd/update"},
	},
	{
		name:    "health knows what an operator can ask for, and nothing else",
		reason:  "its verdict ends a trial: what every device must have working is handed in by main, and nothing of Kubernetes is linked",
		of:      []string{"initd/health"},
		never:   []string{module + "initd/..."},
		allowed: []string{module + "initd/config"},
	},
	{
		name:   "only init touches boot state",
		reason: "which slot boots next is decided in one place, or a power cut finds two that disagree",
		of:     []string{"..."},
		except: []string{"initd/slot", "initd/slot/slottest", "initd/cmd/init", "initd/update", "initd/update/updatetest"},
		never:  []string{module + "initd/slot"},
	},
	{
		name: "the device is touched at its boundary",
		reason: "what decides is tested without a machine; disks, mounts, modules and power are machine's, processes and control " +
			"groups service's, links and addresses network's",
		of:     []string{"initd/..."},
		except: []string{"initd/machine", "initd/service", "initd/network", "initd/api", "initd/cluster/...", "initd/cmd/..."},
		never:  []string{"syscall", "golang.org/x/sys/...", "github.com/u-root/..."},
	},
	{
		name:   "the plan does no input or output",
		reason: "the same arguments must give the same plan on every machine, or its digest cannot key a cache",
		of:     []string{"builder/plan"},
		never:  []string{"os", "os/...", "io/fs", "io/ioutil", "net", "net/...", "syscall", "path/filepath", "time", "math/rand", "math/rand/...", module + "builder/fetch", module + "builder/artifact"},
	},
	{
		name:   "only fetch uses the workstation's network",
		reason: "what is fetched is verified there; an input that came another way would not be in the lock",
		of:     []string{"builder/..."},
		// vm speaks to its own QEMU over sockets of this host, node to devices: nothing from there comes into an image.
		except: []string{"builder/fetch", "builder/fetch/...", "builder/vm", "builder/node/..."},
		never:  []string{"net", "net/http", "net/http/..."},
	},
	{
		name:   "nothing that the builder makes depends on QEMU",
		reason: "images are built where no emulator is installed",
		of:     []string{"builder/plan", "builder/profile", "builder/fetch", "builder/artifact", "builder/image"},
		never:  []string{module + "builder/vm"},
		deep:   true,
	},
	{
		name:   "tests' helpers stay out of programs",
		reason: "package testing registers flags and weighs on every program",
		of:     []string{"builder/cmd/...", "initd/cmd/init", "initd/cmd/skerry-cri", "initd/cmd/pause"},
		never:  []string{"testing", "testing/...", module + "ci/..."},
		deep:   true,
	},
}

// A pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath    string
	Imports, Deps []string
}

// listed are all packages of the module as they are built for a device. `go list` reads them and compiles nothing.
func listed(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"...")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &complaints)
	}
	var packages []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// matches says whether an import path is meant by one of the patterns.
func matches(importPath string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, any := strings.CutSuffix(pattern, "...")
		if any {
			return strings.HasPrefix(importPath+"/", prefix)
		}
		return importPath == pattern
	})
}

// violations are the rule's violations among the packages, as "package imports package".
func (r rule) violations(packages []pkg) []string {
	var found []string
	for _, p := range packages {
		own := strings.TrimPrefix(p.ImportPath, module)
		if !matches(own, r.of) || matches(own, r.except) {
			continue
		}
		imports := p.Imports
		if r.deep {
			imports = p.Deps
		}
		for _, i := range imports {
			if matches(i, r.never) && !matches(i, r.allowed) {
				found = append(found, own+" imports "+i)
			}
		}
	}
	return found
}

func TestImports(t *testing.T) {
	packages := listed(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			covered := slices.ContainsFunc(packages, func(p pkg) bool { return matches(strings.TrimPrefix(p.ImportPath, module), r.of) })
			if !covered {
				t.Errorf("the rule is about no package (%q): did one move?", r.of)
			}
			found := r.violations(packages)
			for i, v := range found {
				if i == 10 {
					t.Errorf("and %d more", len(found)-i)
					break
				}
				t.Error(v)
			}
			if len(found) > 0 {
				t.Logf("this is not allowed because: %s", r.reason)
			}
		})
	}
}

// The rules are held against made-up packages, so that it is known that they can be broken.
func TestRulesCanFail(t *testing.T) {
	tests := []struct {
		name string
		rule rule
		pkg  pkg
		want string
	}{
		{"direct", rule{of: []string{"a/..."}, never: []string{"os"}},
			pkg{module + "a/b", []string{"fmt", "os"}, []string{"io"}}, "a/b imports os"},
		{"not deep", rule{of: []string{"a/..."}, never: []string{"io"}},
			pkg{module + "a/b", []string{"fmt"}, []string{"io"}}, ""},
		{"deep", rule{of: []string{"a/..."}, never: []string{"k8s.io/..."}, deep: true},
			pkg{module + "a", []string{"fmt"}, []string{"k8s.io/api/core/v1"}}, "a imports k8s.io/api/core/v1"},
		{"excepted", rule{of: []string{"..."}, except: []string{"a"}, never: []string{"os"}},
			pkg{module + "a", []string{"os"}, nil}, ""},
		{"allowed", rule{of: []string{"..."}, never: []string{"x/..."}, allowed: []string{"x/y"}},
			pkg{module + "a", []string{"x/y"}, nil}, ""},
		{"another's prefix", rule{of: []string{"a/..."}, never: []string{"os"}},
			pkg{module + "ab", []string{"os"}, nil}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := strings.Join(test.rule.violations([]pkg{test.pkg}), "; "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// Process 1 is in the initramfs too, where each megabyte costs time at every start and room on the boot partition, and
// all that it links can bring the machine down.
func TestProcessOneStaysSmall(t *testing.T) {
	const (
		mostPackages  = 300
		mostMebibytes = 12 // stripped, as the image has it
	)
	for _, p := range listed(t) {
		if p.ImportPath == module+"initd/cmd/init" && len(p.Deps) > mostPackages {
			t.Errorf("init links %d packages, allowed are %d; look with: go list -deps ./initd/cmd/init", len(p.Deps), mostPackages)
		}
	}
	program := path.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, module+"initd/cmd/init")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build init: %v\n%s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > mostMebibytes<<20 {
		t.Errorf("init has %d bytes, allowed are %d MiB", info.Size(), mostMebibytes)
	}
	t.Logf("init has %.1f MiB", float64(info.Size())/(1<<20))
}
