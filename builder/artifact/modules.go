package artifact

import (
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/skerryos/skerry/builder/plan"
)

// Stages of [plan.Option.Stage].
const (
	StageBoot  = "boot"
	StageDisk  = "disk"
	StageLoad  = "load"
	StageProbe = "probe"
)

// wanted is a module that a line of kernel-config asks for.
type wanted struct {
	name   string
	option plan.Option
}

// wantedModules returns the modules that the plan's options of these stages name, in the plan's order. What is built
// into the kernel is left out; what is neither there nor built in is an error.
func (x *ModuleIndex) wantedModules(options []plan.Option, stages ...string) ([]wanted, error) {
	var out []wanted
	seen := map[string]bool{}
	for _, o := range options {
		if o.Value == "n" {
			continue
		}
		in := false
		for _, s := range stages {
			in = in || o.Stage == s
		}
		if !in {
			continue
		}
		for _, name := range o.Modules {
			n := x.present(plan.ModuleNames(name))
			if seen[n] || x.builtin[n] {
				continue
			}
			if n == "" {
				return nil, fmt.Errorf("%s: %s names module %q, which kernel %s has neither as a module nor built in; mend the name, or set the option to n", o.Origin, o.Name, name, x.Release)
			}
			seen[n] = true
			out = append(out, wanted{n, o})
		}
	}
	return out, nil
}

// present is the first of a module's names that this kernel knows, "" if it knows none.
func (x *ModuleIndex) present(names []string) string {
	for _, name := range names {
		if n := moduleName(name); x.modules[n] != nil || x.builtin[n] {
			return n
		}
	}
	return ""
}

// Closure returns the modules and all that they need, each after what it needs. A softdep that no module answers to
// is left out, as modprobe does; a missing dependency is an error.
func (x *ModuleIndex) Closure(names []string) ([]*Module, error) {
	var out []*Module
	seen := map[string]bool{}
	var visit func(name, from string) error
	// soft visits whoever answers to a name or alias: all of them, as modprobe does, because the fastest one
	// (crc32c_intel) may not run on the machine at hand.
	soft := func(name, from string) error {
		n := strings.ReplaceAll(name, "-", "_")
		if x.builtin[n] {
			return nil
		}
		if x.modules[n] != nil {
			return visit(n, from)
		}
		for _, m := range x.byAlias[n] {
			if err := visit(m, from); err != nil {
				return err
			}
		}
		return nil
	}
	visit = func(name, from string) error {
		if seen[name] || x.builtin[name] {
			return nil
		}
		seen[name] = true
		m := x.modules[name]
		if m == nil {
			return fmt.Errorf("cannot find kernel module %s, which %s needs, in kernel %s", name, from, x.Release)
		}
		for _, p := range m.Pre {
			if err := soft(p, name); err != nil {
				return err
			}
		}
		for _, d := range m.Depends {
			if err := visit(d, name); err != nil {
				return err
			}
		}
		out = append(out, m)
		for _, p := range m.Post {
			if err := soft(p, name); err != nil {
				return err
			}
		}
		return nil
	}
	for _, n := range names {
		if err := visit(moduleName(n), "kernel-config"); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func names(list []wanted) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = w.name
	}
	return out
}

// AddModules puts the modules of all stages into the tree of a root file system, with the tables that depmod(8) would
// make of them alone: modules.dep, modules.softdep, modules.alias and modules.builtin; and the list of what init loads.
func (x *ModuleIndex) AddModules(t *Tree, p *plan.Plan) error {
	return x.addModules(t, p, StageLoad, StageBoot, StageDisk, StageLoad, StageProbe)
}

// AddBootModules does the same for an initramfs, with what can be needed to reach the root file system.
func (x *ModuleIndex) AddBootModules(t *Tree, p *plan.Plan) error {
	return x.addModules(t, p, StageBoot, StageBoot, StageDisk)
}

// addModules puts the modules of stages into the tree; those of the stage load are loaded by init without being asked.
func (x *ModuleIndex) addModules(t *Tree, p *plan.Plan, load string, stages ...string) error {
	all, err := x.wantedModules(p.Kernel.Config, stages...)
	if err != nil {
		return err
	}
	closure, err := x.Closure(names(all))
	if err != nil {
		return err
	}
	reasons := map[string]string{}
	for _, w := range all {
		reasons[w.name] = w.option.Reason + " (" + w.option.Name + ", " + w.option.Origin + ")"
	}
	dir := "/usr/lib/modules/" + x.Release
	for _, m := range closure {
		c, err := x.Content(m)
		if err != nil {
			return err
		}
		reason := reasons[m.Name]
		if reason == "" {
			reason = "another module depends on it"
		}
		if err := t.Add(Entry{Path: path.Join(dir, m.Path), Mode: 0o644, Content: c, Origin: x.pkg.Origin(), Reason: reason}); err != nil {
			return err
		}
	}
	builtin, err := x.read("modules.builtin")
	if err != nil {
		return err
	}
	list, err := x.wantedModules(p.Kernel.Config, load)
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, text, reason string }{
		{dir + "/modules.dep", x.depTable(closure), "init loads modules with their dependencies"},
		{dir + "/modules.softdep", softdepTable(closure), "init loads modules with their soft dependencies"},
		{dir + "/modules.alias", aliasTable(closure), "init finds the driver of a device by its alias"},
		{dir + "/modules.builtin", string(builtin), "init knows what need not be loaded"},
		{"/usr/lib/skerry/modules-load", strings.Join(append(names(list), ""), "\n"), "init loads these, whatever devices there are"},
	} {
		e := Entry{Path: f.name, Mode: fs.FileMode(0o644), Content: BytesContent([]byte(f.text)), Origin: "builder, from kernel-config", Reason: f.reason}
		if err := t.Add(e); err != nil {
			return err
		}
	}
	return nil
}

// depTable is modules.dep: each module with all that must be loaded before it, the first to be loaded last.
func (x *ModuleIndex) depTable(list []*Module) string {
	var b strings.Builder
	for _, m := range sorted(list) {
		b.WriteString(m.Path + ":")
		needs := x.allDepends(m)
		for i := len(needs) - 1; i >= 0; i-- {
			b.WriteString(" " + needs[i].Path)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// allDepends returns what m needs, directly or not, each after what it needs itself.
func (x *ModuleIndex) allDepends(m *Module) []*Module {
	var out []*Module
	seen := map[string]bool{m.Name: true}
	var visit func(m *Module)
	visit = func(m *Module) {
		for _, d := range m.Depends {
			if dep := x.modules[d]; dep != nil && !seen[d] {
				seen[d] = true
				visit(dep)
				out = append(out, dep)
			}
		}
	}
	visit(m)
	return out
}

func softdepTable(list []*Module) string {
	var b strings.Builder
	for _, m := range sorted(list) {
		if len(m.Pre)+len(m.Post) == 0 {
			continue
		}
		b.WriteString("softdep " + m.Name)
		if len(m.Pre) > 0 {
			b.WriteString(" pre: " + strings.Join(m.Pre, " "))
		}
		if len(m.Post) > 0 {
			b.WriteString(" post: " + strings.Join(m.Post, " "))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func aliasTable(list []*Module) string {
	var b strings.Builder
	for _, m := range sorted(list) {
		for _, a := range m.Aliases {
			b.WriteString("alias " + a + " " + m.Name + "\n")
		}
	}
	return b.String()
}

func sorted(list []*Module) []*Module {
	out := append([]*Module(nil), list...)
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}
