package kernelconfig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/skerryos/skerry/builder/plan"
)

// A Kernel is what is known of a built kernel.
type Kernel struct {
	// Name says which kernel it is, for messages.
	Name string
	// Values are the options of its configuration: y, m, or the value as it is written. An option that is not set is absent.
	Values map[string]string
	// Modules are the names of its modules, and Builtin those of the modules that are part of the kernel image.
	Modules map[string]bool
	Builtin map[string]bool
}

// ReadConfig reads a kernel's configuration file (/boot/config-RELEASE) into k.
func (k *Kernel) ReadConfig(data []byte) {
	k.Values = map[string]string{}
	for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
		if name, value, found := strings.Cut(scan.Text(), "="); found && strings.HasPrefix(name, "CONFIG_") {
			k.Values[name] = value
		}
	}
}

// ReadBuiltin reads modules.builtin into k.
func (k *Kernel) ReadBuiltin(data []byte) {
	k.Builtin = map[string]bool{}
	for line := range strings.Lines(string(data)) {
		k.Builtin[ModuleName(line)] = true
	}
}

// AddModule notes that the kernel has the module whose file is name.
func (k *Kernel) AddModule(name string) {
	if k.Modules == nil {
		k.Modules = map[string]bool{}
	}
	k.Modules[ModuleName(name)] = true
}

// ModuleName is the kernel's name for the module in a file: kernel/net/bridge/br-x.ko.xz is br_x.
func ModuleName(file string) string {
	base := path.Base(strings.TrimSpace(file))
	base, _, _ = strings.Cut(base, ".ko")
	return normal(base)
}

// Check holds options against a kernel. What is missing is an error for each option, with the place that asks for it.
// Built in is as good as a module.
func Check(options []plan.Option, k Kernel) error {
	var errs []error
	for _, o := range options {
		if problem := check(o, k); problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s (%s): %s", o.Origin, o.Name, o.Reason, problem))
		}
	}
	return errors.Join(errs...)
}

// check says in words what the kernel lacks of one option; empty if nothing.
func check(o plan.Option, k Kernel) string {
	value, set := k.Values[o.Name]
	switch {
	case o.Value == "n" && set:
		return fmt.Sprintf("must not be set, but is %s in %s", value, k.Name)
	case o.Value == "n":
		return ""
	case !set:
		return fmt.Sprintf("is not set in %s", k.Name)
	case o.Value == "y" && value != "y":
		return fmt.Sprintf("must be built in (y), but is %s in %s", value, k.Name)
	}
	var missing []string
	for _, m := range o.Modules {
		has := func(name string) bool { return k.Modules[name] || k.Builtin[name] }
		if !slices.ContainsFunc(plan.ModuleNames(m), has) {
			missing = append(missing, m)
		}
	}
	if len(missing) > 0 {
		return fmt.Sprintf("%s has no module %s, neither as a file nor built in; is its name right?", k.Name, strings.Join(missing, ", "))
	}
	return ""
}
