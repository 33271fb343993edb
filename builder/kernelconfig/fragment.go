// Package kernelconfig reads kernel configuration fragments and holds them against the kernel that an image gets.
//
// A fragment is the one place that says what an image needs of its kernel. It serves three ends: `skerry kernel check`
// compares it with the configuration of the packaged kernel, the modules that it names are those that an image carries,
// and a kernel of one's own can be configured by it. The notation is described in kernel-config/README.md.
package kernelconfig

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/skerryos/skerry/builder/plan"
	"github.com/skerryos/skerry/builder/profile"
)

// Stages are the points at which a module is wanted, see [plan.Option].
var Stages = []string{"boot", "disk", "load", "probe"}

var (
	optionLine  = regexp.MustCompile(`^(CONFIG_[A-Za-z0-9_]+)=([ymn])\s+#\s*(.*)$`)
	sectionLine = regexp.MustCompile(`^##\s*stage:\s*(\S+)\s*$`)
	onlyLine    = regexp.MustCompile(`^##\s*architectures:\s*(.+?)\s*$`)
	moduleList  = regexp.MustCompile(`^[A-Za-z0-9_]+([,|][A-Za-z0-9_]+)*$`)
)

// Parse reads the fragment data; name is its path, for messages. Every mistake is reported, each with file and line.
func Parse(name string, data []byte) ([]plan.Option, error) {
	var options []plan.Option
	var errs []error
	stage := ""
	var only []string
	lineOf := map[string]int{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s:%d: %s", name, number, fmt.Sprintf(format, args...)))
		}
		line = strings.TrimSpace(line)
		if s := sectionLine.FindStringSubmatch(line); s != nil {
			if stage = s[1]; !slices.Contains(Stages, stage) {
				fail("unknown stage %q; allowed here: %s", stage, strings.Join(Stages, ", "))
			}
			continue
		}
		if s := onlyLine.FindStringSubmatch(line); s != nil {
			only = nil
			for _, a := range strings.FieldsFunc(s[1], func(r rune) bool { return r == ' ' || r == ',' }) {
				if !slices.Contains(profile.Architectures, a) && a != "all" {
					fail("unknown architecture %q; allowed here: %s, all", a, strings.Join(profile.Architectures, ", "))
				}
				if a != "all" {
					only = append(only, a)
				}
			}
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := optionLine.FindStringSubmatch(line)
		if f == nil {
			fail("cannot read %q: a line is CONFIG_NAME=y|m|n # module,module: reason", line)
			continue
		}
		o := plan.Option{Name: f[1], Value: f[2], Architectures: only, Origin: fmt.Sprintf("%s:%d", name, number)}
		o.Reason = f[3]
		if o.Value == "m" {
			o.Stage = stage
			modules, reason, found := strings.Cut(f[3], ":")
			if !found || !moduleList.MatchString(strings.TrimSpace(modules)) {
				fail("%s=m does not name its modules: write # module,module: reason", o.Name)
				continue
			}
			for m := range strings.SplitSeq(strings.TrimSpace(modules), ",") {
				o.Modules = append(o.Modules, normal(m))
			}
			o.Reason = strings.TrimSpace(reason)
			if stage == "" {
				fail("%s=m is before the first stage: write a line such as ## stage: load", o.Name)
				continue
			}
		}
		if o.Reason == "" {
			fail("%s has no reason: say in a few words why an image needs it", o.Name)
			continue
		}
		if first, again := lineOf[o.Name]; again {
			fail("%s was already given in line %d", o.Name, first)
			continue
		}
		lineOf[o.Name] = number
		options = append(options, o)
	}
	return options, errors.Join(errs...)
}

// normal is the form in which the kernel itself shows a module's name: with underscores.
func normal(module string) string { return strings.ReplaceAll(module, "-", "_") }
