package artifact

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
	"golang.org/x/sync/errgroup"

	"github.com/skerryos/skerry/builder/plan"
)

// modinfoRecipe is part of the key of module indexes; raise it when modinfo.go makes something else of a kernel.
const modinfoRecipe = 1

// A Module is a loadable kernel module and what its .modinfo section says.
type Module struct {
	// Name is the module's name, with underscores.
	Name string `json:"name"`
	// Path is below the modules folder of the release: kernel/fs/erofs/erofs.ko.xz.
	Path string `json:"path"`
	// Depends are modules that must be loaded before it.
	Depends []string `json:"depends,omitempty"`
	// Pre and Post are modules or aliases that should be loaded before and after it, if there are any.
	Pre  []string `json:"pre,omitempty"`
	Post []string `json:"post,omitempty"`
	// Aliases are patterns of the names that the kernel asks for it by.
	Aliases []string `json:"aliases,omitempty"`
	// Firmware are files that it may load from /lib/firmware.
	Firmware []string `json:"firmware,omitempty"`
}

// A ModuleIndex knows the modules of one kernel package.
type ModuleIndex struct {
	// Release is the kernel's own version, as uname -r says it.
	Release string

	pkg     *Unpacked
	root    string // usr/lib/modules/RELEASE or lib/modules/RELEASE
	modules map[string]*Module
	builtin map[string]bool
	byAlias map[string][]string // aliases without wildcards → modules, sorted
}

// moduleName is the name that the kernel knows a module by, from a name or a path.
func moduleName(s string) string {
	s = path.Base(s)
	for _, ext := range []string{".xz", ".zst", ".gz", ".ko"} {
		s = strings.TrimSuffix(s, ext)
	}
	return strings.ReplaceAll(s, "-", "_")
}

func isModule(name string) bool {
	for _, ext := range []string{".ko", ".ko.xz", ".ko.zst"} {
		if strings.HasSuffix(name, ext) {
			return true
		}
	}
	return false
}

// Modules indexes the plan's kernel. All modules are read once, because softdeps name aliases (crypto-crc32c) and only
// the modules themselves say who answers to them: Debian runs depmod on the installed machine.
func (b *Builder) Modules(ctx context.Context, p *plan.Plan) (*ModuleIndex, error) {
	if b.index != nil {
		return b.index, nil
	}
	u, err := b.Kernel(ctx, p)
	if err != nil {
		return nil, err
	}
	digests := []string{u.Package.SHA256}
	for _, part := range p.Kernel.Parts {
		digests = append(digests, p.PackageNamed(part).SHA256)
	}
	x := &ModuleIndex{Release: p.Kernel.Release, pkg: u, modules: map[string]*Module{}, builtin: map[string]bool{}, byAlias: map[string][]string{}}
	for _, root := range []string{"usr/lib/modules/", "lib/modules/"} {
		if _, err := u.Content(root + x.Release + "/modules.builtin"); err == nil {
			x.root = root + x.Release + "/"
		}
	}
	if x.root == "" {
		return nil, fmt.Errorf("cannot find the modules of kernel %s in %s; run `skerry lock --update`", x.Release, u.Origin())
	}
	key, err := Key("modinfo", modinfoRecipe, digests, x.Release)
	if err != nil {
		return nil, err
	}
	_, list, err := Make(ctx, b.Store, "modinfo", key, func(ctx context.Context, _ *os.File) ([]Module, error) {
		return x.readAll(ctx, b)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot index the modules of kernel %s: %w", x.Release, err)
	}
	for i := range list {
		m := &list[i]
		x.modules[m.Name] = m
		for _, a := range m.Aliases {
			if !strings.ContainsAny(a, "*?[") {
				x.addAlias(a, m.Name)
			}
		}
	}
	if err := x.readBuiltin(); err != nil {
		return nil, err
	}
	b.index = x
	return x, nil
}

func (x *ModuleIndex) addAlias(alias, name string) {
	alias = strings.ReplaceAll(alias, "-", "_")
	x.byAlias[alias] = append(x.byAlias[alias], name)
	sort.Strings(x.byAlias[alias])
}

// readAll reads .modinfo of every module, on all processors: it has to decompress several hundred MiB.
func (x *ModuleIndex) readAll(ctx context.Context, b *Builder) ([]Module, error) {
	var names []string
	var total int64
	for _, n := range x.pkg.Names() {
		if strings.HasPrefix(n, x.root) && isModule(n) {
			names = append(names, n)
			total += x.pkg.members[x.pkg.byName[n]].Bytes
		}
	}
	task := b.Progress.Start("index kernel modules", total)
	out := make([]Module, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for i, n := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			c, err := x.pkg.Content(n)
			if err != nil {
				return err
			}
			m, err := readModule(n, c)
			if err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
			m.Path = strings.TrimPrefix(n, x.root)
			out[i] = m
			task.Add(c.Bytes)
			return nil
		})
	}
	err := g.Wait()
	task.Done(err)
	return out, err
}

func readModule(name string, c Content) (Module, error) {
	data, err := c.ReadAll()
	if err != nil {
		return Module{}, err
	}
	if data, err = decompress(name, data); err != nil {
		return Module{}, err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return Module{}, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return Module{}, errors.New("it has no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return Module{}, err
	}
	m := Module{Name: moduleName(name)}
	for _, field := range bytes.Split(info, []byte{0}) {
		k, v, ok := strings.Cut(string(field), "=")
		if ok {
			m.set(k, v)
		}
	}
	return m, nil
}

func decompress(name string, data []byte) ([]byte, error) {
	switch path.Ext(name) {
	case ".xz":
		// This decoder, which reading packages uses too, takes 0.6 of the time of ulikunitz/xz for a kernel's modules.
		r, err := xz.NewReader(bytes.NewReader(data), 0)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case ".zst":
		r, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return r.DecodeAll(data, nil)
	}
	return data, nil
}

// set takes one key=value of .modinfo.
func (m *Module) set(key, value string) {
	switch key {
	case "depends":
		for _, d := range strings.Split(value, ",") {
			if d != "" {
				m.Depends = append(m.Depends, moduleName(d))
			}
		}
	case "softdep":
		// "pre: a b post: c", as in modprobe.d(5).
		into := &m.Pre
		for _, word := range strings.Fields(value) {
			switch word {
			case "pre:":
				into = &m.Pre
			case "post:":
				into = &m.Post
			default:
				*into = append(*into, word)
			}
		}
	case "alias":
		m.Aliases = append(m.Aliases, value)
	case "firmware":
		m.Firmware = append(m.Firmware, value)
	}
}

// readBuiltin learns what is built into the kernel, by names and aliases.
func (x *ModuleIndex) readBuiltin() error {
	text, err := x.read("modules.builtin")
	if err != nil {
		return err
	}
	for _, line := range strings.Fields(string(text)) {
		x.builtin[moduleName(line)] = true
	}
	info, err := x.read("modules.builtin.modinfo")
	if err != nil {
		return err
	}
	// NUL-separated MODULE.KEY=VALUE.
	for _, field := range strings.Split(string(info), "\x00") {
		name, value, ok := strings.Cut(field, ".alias=")
		if ok && !strings.Contains(name, "=") {
			x.builtin[strings.ReplaceAll(value, "-", "_")] = true
		}
	}
	return nil
}

// read returns a file of the modules folder.
func (x *ModuleIndex) read(name string) ([]byte, error) {
	c, err := x.pkg.Content(x.root + name)
	if err != nil {
		return nil, err
	}
	return c.ReadAll()
}

// Content returns a module's file, as the package has it.
func (x *ModuleIndex) Content(m *Module) (Content, error) { return x.pkg.Content(x.root + m.Path) }
