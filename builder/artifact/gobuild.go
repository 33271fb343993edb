package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/mod/modfile"

	"github.com/skerryos/skerry/builder/plan"
)

// GoFlags are the flags of the Go command that decide what is compiled, one line as in the variable GOFLAGS. They are
// the file goflags beside this one, which the Makefile and CI read too: equal flags share the Go build cache, and a
// control plane costs about 760 CPU-seconds without it.
var GoFlags = strings.TrimSpace(goflags)

//go:embed goflags
var goflags string

// versionPackage holds the variable that an image's version is linked into.
const versionPackage = "github.com/skerryos/skerry/initd/version"

// programsRecord says what the programs beside it were built from, and what they are.
type programsRecord struct {
	Inputs string           `json:"inputs"`
	Files  map[string]entry `json:"files"`
}

type entry struct {
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// Programs builds the plan's programs with one run of the Go command, and returns them by name. When no source file,
// flag or tool has changed, and the programs are still what they were, nothing is run but `go version`.
func (b *Builder) Programs(ctx context.Context, p *plan.Plan) (map[string]Content, error) {
	if b.programs != nil {
		return b.programs, nil
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	dir, err := b.Store.Dir(path.Join("programs", p.Target.GOARCH+p.Target.GOARM))
	if err != nil {
		return nil, err
	}
	inputs, err := b.programInputs(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("cannot build programs: %w", err)
	}
	out, err := readPrograms(ctx, dir, inputs, p.Programs)
	if err == nil {
		b.programs = out
		return out, nil
	}
	if err := removeUnknown(ctx, dir, p.Programs); err != nil {
		return nil, fmt.Errorf("cannot build programs: %w", err)
	}
	if err := b.goBuild(ctx, p, dir); err != nil {
		return nil, err
	}
	rec := programsRecord{Inputs: inputs, Files: map[string]entry{}}
	out = map[string]Content{}
	for _, prog := range p.Programs {
		c, err := FileContent(ctx, filepath.Join(dir, binaryName(prog)))
		if err != nil {
			return nil, fmt.Errorf("cannot build program %s: %w", prog.Name, err)
		}
		out[prog.Name] = c
		rec.Files[prog.Name] = entry{c.SHA256, c.Bytes}
	}
	line, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the record of the programs: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(dir, "record.json"), line, 0o644); err != nil {
		return nil, fmt.Errorf("cannot keep the record of the programs: %w", err)
	}
	b.programs = out
	return out, nil
}

// GoVersion is the version of Go that the programs were built with, such as go1.26.6: their bytes depend on it. It is known
// when Programs has returned.
func (b *Builder) GoVersion() string { return b.goVersion }

// readPrograms returns the programs in dir if they were built from inputs and are undamaged.
func readPrograms(ctx context.Context, dir, inputs string, programs []plan.Program) (map[string]Content, error) {
	rec, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	if rec.Inputs != inputs {
		return nil, errors.New("inputs have changed")
	}
	out := map[string]Content{}
	for _, prog := range programs {
		name := filepath.Join(dir, binaryName(prog))
		c, err := FileContent(ctx, name)
		if err != nil {
			return nil, err
		}
		if (entry{c.SHA256, c.Bytes}) != rec.Files[prog.Name] {
			return nil, errors.New("program is damaged")
		}
		out[prog.Name] = c
	}
	return out, nil
}

func readRecord(dir string) (programsRecord, error) {
	var rec programsRecord
	line, err := os.ReadFile(filepath.Join(dir, "record.json"))
	if err != nil {
		return rec, err
	}
	return rec, json.Unmarshal(line, &rec)
}

// removeUnknown removes the programs in dir that are not what the record says. The Go command looks only at the build ID, and would
// keep one that a power cut or a full disk has damaged; the others it need not link again if they are up to date.
func removeUnknown(ctx context.Context, dir string, programs []plan.Program) error {
	rec, err := readRecord(dir)
	if err != nil {
		rec = programsRecord{} // none, or a damaged one: nothing is known
	}
	for _, prog := range programs {
		name := filepath.Join(dir, binaryName(prog))
		c, err := FileContent(ctx, name)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && (entry{c.SHA256, c.Bytes}) == rec.Files[prog.Name] {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// binaryName is what `go build -o DIR/` calls a program.
func binaryName(p plan.Program) string { return path.Base(p.Package) }

// goBuild runs the Go command. It leaves programs that are up to date alone, so they are not linked again.
func (b *Builder) goBuild(ctx context.Context, p *plan.Plan, dir string) error {
	env, err := b.goEnv(ctx, p.Target)
	if err != nil {
		return fmt.Errorf("cannot build programs: %w", err)
	}
	flags, err := LinkFlags(b.Source, p)
	if err != nil {
		return fmt.Errorf("cannot build programs: %w", err)
	}
	args := []string{"build", "-ldflags=" + flags}
	overlay, err := b.sourceOverlay(ctx, env)
	if err != nil {
		return fmt.Errorf("cannot build programs: %w", err)
	}
	if overlay != "" {
		args = append(args, "-overlay="+overlay)
	}
	args = append(args, "-o", dir+string(filepath.Separator))
	names := map[string]string{}
	for _, prog := range p.Programs {
		if other, taken := names[binaryName(prog)]; taken {
			return fmt.Errorf("cannot build programs %s and %s: both packages end in %s, and the Go command names programs by that", other, prog.Name, binaryName(prog))
		}
		names[binaryName(prog)] = prog.Name
		args = append(args, prog.Package)
	}
	task := b.Progress.Start(fmt.Sprintf("build %d programs for %s", len(p.Programs), p.Target.GOARCH), 0)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = b.Source, env
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // lets it stop its compilers
	cmd.WaitDelay = 10 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	task.Done(err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("cannot build programs: go build: %w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// LinkFlags returns the linker's flags for a plan: no symbol tables, the image's version, and the Kubernetes version
// that go.mod in source asks for.
func LinkFlags(source string, p *plan.Plan) (string, error) {
	name := filepath.Join(source, "go.mod")
	data, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("cannot read the Kubernetes version: %w", err)
	}
	mod, err := modfile.Parse(name, data, nil)
	if err != nil {
		return "", fmt.Errorf("cannot read the Kubernetes version: %w", err)
	}
	flags := []string{"-s", "-w", "-X", versionPackage + ".Version=" + p.Version}
	for _, r := range mod.Require {
		if r.Mod.Path != "k8s.io/kubernetes" {
			continue
		}
		parts := strings.SplitN(strings.TrimPrefix(r.Mod.Version, "v"), ".", 3)
		if len(parts) != 3 {
			return "", fmt.Errorf("cannot read the Kubernetes version: %s is not vMAJOR.MINOR.PATCH", r.Mod.Version)
		}
		stamps := [][2]string{
			{"gitVersion", r.Mod.Version + "+skerry.1"},
			{"gitMajor", parts[0]},
			{"gitMinor", parts[1]},
			{"gitTreeState", "clean"},
			{"buildDate", time.Unix(p.SourceDate, 0).UTC().Format(time.RFC3339)},
		}
		// The servers report the first package's variables, clients send the second's as their user agent.
		for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
			for _, s := range stamps {
				flags = append(flags, "-X", pkg+"."+s[0]+"="+s[1])
			}
		}
	}
	return strings.Join(flags, " "), nil
}

// goEnv returns the environment of the Go command: from the user only where to find things (paths, proxies, caches),
// everything that changes the bytes from the target and from [GoFlags].
func (b *Builder) goEnv(ctx context.Context, t plan.Target) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "-json",
		"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOINSECURE", "GOAUTH", "GOVCS")
	cmd.Dir = b.Source
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w; is Go installed and in the PATH?", err)
	}
	vars := map[string]string{}
	if err := json.Unmarshal(out, &vars); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	for _, name := range []string{"PATH", "HOME", "USER", "TMPDIR", "GOTMPDIR", "GOTOOLCHAIN", "GOMAXPROCS",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC"} {
		if v, ok := os.LookupEnv(name); ok {
			vars[name] = v
		}
	}
	maps.Copy(vars, map[string]string{
		"GOENV":       "off", // `go env -w` does not reach in
		"GOWORK":      "off",
		"GOFLAGS":     GoFlags,
		"CGO_ENABLED": "0",
		"GOOS":        "linux",
		"GOARCH":      t.GOARCH,
		"GOAMD64":     "v1",
		"GOARM64":     "v8.0",
	})
	if t.GOARM != "" {
		vars["GOARM"] = t.GOARM
	}
	env := make([]string, 0, len(vars))
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, k+"="+vars[k])
	}
	return env, nil
}

// programInputs digests everything that the programs are made from: the Go version, flags, and every file of the
// module that could be compiled or embedded. Modules of others are pinned by go.sum, which is among the files.
func (b *Builder) programInputs(ctx context.Context, p *plan.Plan) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	cmd.Dir = b.Source
	version, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env GOVERSION: %w; is Go installed and in the PATH?", err)
	}
	b.goVersion = strings.TrimSpace(string(version))
	flags, err := LinkFlags(b.Source, p)
	if err != nil {
		return "", err
	}
	sum, err := sourceDigest(ctx, b.Source)
	if err != nil {
		return "", err
	}
	return Key("programs", string(version), GoFlags, flags, p.Target, p.Programs, sum)
}

// sourceDigest digests names and contents of the module's files. What programs of a device cannot be made of is left
// out: hidden folders, outputs, documentation, tests and the builder, which they never import.
func sourceDigest(ctx context.Context, root string) (string, error) {
	var files []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch base := d.Name(); {
			case rel == ".":
			case strings.HasPrefix(base, "."), base == "testdata", rel == "builder", rel == "docs", isOutput(name):
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && !strings.HasSuffix(rel, "_test.go") && !strings.HasSuffix(rel, ".md") {
			files = append(files, rel)
		}
		return ctx.Err()
	})
	if err != nil {
		return "", fmt.Errorf("cannot read the sources: %w", err)
	}
	sort.Strings(files)
	h := sha256.New()
	for _, rel := range files {
		f, err := os.Open(filepath.Join(root, rel))
		if err != nil {
			return "", fmt.Errorf("cannot read the sources: %w", err)
		}
		sum, n, err := digestOf(ctx, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("cannot read the sources: %s: %w", rel, err)
		}
		if _, err := fmt.Fprintf(h, "%q %d %s\n", filepath.ToSlash(rel), n, sum); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// outputMark is a file that marks a folder as output, so that it is not taken for source.
const outputMark = "CACHEDIR.TAG"

// isOutput reports whether dir is a folder of outputs (https://bford.info/cachedir/).
func isOutput(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, outputMark))
	return err == nil
}

// MarkOutput marks dir as a folder of outputs: builders do not take it for source, backups leave it out.
func MarkOutput(dir string) error {
	const signature = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by skerry build; everything here can be built again.\n"
	if isOutput(dir) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, outputMark), []byte(signature), 0o644); err != nil {
		return fmt.Errorf("cannot mark output folder: %w", err)
	}
	return nil
}
