package service

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
)

// A Type says when a unit counts as ready.
type Type string

// The types of units; Simple is the default.
const (
	// Simple is ready as soon as its program runs.
	Simple Type = "simple"
	// Notify is ready when it says so (sd_notify READY=1).
	Notify Type = "notify"
	// Oneshot is ready, and done, when its program has ended with status 0.
	Oneshot Type = "oneshot"
)

// A KillMode says which processes of a unit are ended when it stops or has ended by itself.
type KillMode string

// The kill modes; KillControlGroup is the default.
const (
	// KillControlGroup signals all processes of the unit.
	KillControlGroup KillMode = "control-group"
	// KillMixed sends KillSignal to the main process and SIGKILL to the rest.
	KillMixed KillMode = "mixed"
	// KillProcess touches the main process only: what it started lives on, such as the shims of containers.
	KillProcess KillMode = "process"
)

// Unlimited stands for "infinity" in sizes and counts.
const Unlimited = ^uint64(0)

// A Limit is a soft and a hard resource limit.
type Limit struct{ Soft, Hard uint64 }

// Resources are limits of a unit's control group, in the unit of the file of cgroup v2 that they go to. Nil means that the
// file is left alone.
type Resources struct {
	MemoryMin, MemoryLow, MemoryHigh, MemoryMax *uint64 // bytes
	CPUWeight                                   *uint64 // 1 to 10000; 100 is what a group without it has
	TasksMax                                    *uint64
}

// An EnvironmentFile holds further variables, read anew on every start.
type EnvironmentFile struct {
	Path     string
	Optional bool // "-" in front of the path: no error when it does not exist
}

// A Path is one that must exist, or must not.
type Path struct {
	Path   string
	Absent bool // "!" in front of the path
}

// A Unit is a parsed unit file.
type Unit struct {
	// Name is the file's name without ".service".
	Name string
	// Path is where the file was read, for messages.
	Path        string
	Description string
	// After, Requires and Wants are names of units without ".service". This unit starts after those in After and Requires,
	// and not at all while one in Requires has failed for good. It stops before all three: unlike with systemd, where Wants
	// has no order, a unit uses what it wants, so it ends first; it may start at the same time.
	After, Requires, Wants []string
	// Conditions are paths without which the unit is not started and counts as done; without one in Asserts it has failed.
	Conditions, Asserts []Path

	Type Type
	// ExecStart is the command line; variables in it are expanded on every start.
	ExecStart        []Word
	Environment      []string
	EnvironmentFiles []EnvironmentFile

	Restart    Restart
	RestartSec time.Duration // the first delay; it doubles with each failure in a row
	// Zero stands for no limit in these.
	WatchdogSec, TimeoutStartSec, TimeoutStopSec time.Duration

	KillMode   KillMode
	KillSignal syscall.Signal
	// Delegate says that the unit manages control groups below its own.
	Delegate       bool
	OOMScoreAdjust *int
	LimitNOFILE    *Limit
	Resources      Resources

	lines map[string]int // where each directive was given last
}

// What a directive that is not given means; as in systemd.service(5).
const (
	defaultTimeout    = 90 * time.Second
	defaultRestartSec = 100 * time.Millisecond
)

// directive is one row of the table of what a unit file can say.
type directive struct {
	section string
	// repeats: the directive may be given more than once and adds up.
	repeats bool
	set     func(u *Unit, value string) error
}

// directives is the subset of systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5) and
// systemd.resource-control(5) that is understood.
var directives = map[string]directive{
	"Description":   {"Unit", false, func(u *Unit, v string) error { u.Description = v; return nil }},
	"Documentation": {"Unit", true, func(*Unit, string) error { return nil }},
	"After":         {"Unit", true, func(u *Unit, v string) error { return unitNames(&u.After, v) }},
	"Requires":      {"Unit", true, func(u *Unit, v string) error { return unitNames(&u.Requires, v) }},
	"Wants":         {"Unit", true, func(u *Unit, v string) error { return unitNames(&u.Wants, v) }},

	"ConditionPathExists": {"Unit", true, func(u *Unit, v string) error { return pathCondition(&u.Conditions, v) }},
	"AssertPathExists":    {"Unit", true, func(u *Unit, v string) error { return pathCondition(&u.Asserts, v) }},

	"Type":            {"Service", false, func(u *Unit, v string) error { return oneOf(&u.Type, v, Simple, Notify, Oneshot) }},
	"ExecStart":       {"Service", false, func(u *Unit, v string) (err error) { u.ExecStart, err = commandLine(v); return err }},
	"Environment":     {"Service", true, environment},
	"EnvironmentFile": {"Service", true, environmentFile},
	"Restart": {"Service", false, func(u *Unit, v string) error {
		return oneOf(&u.Restart, v, RestartNo, RestartAlways, RestartOnSuccess, RestartOnFailure, RestartOnAbnormal, RestartOnAbort, RestartOnWatchdog)
	}},
	"RestartSec":      {"Service", false, func(u *Unit, v string) (err error) { u.RestartSec, err = duration(v); return err }},
	"WatchdogSec":     {"Service", false, func(u *Unit, v string) (err error) { u.WatchdogSec, err = duration(v); return err }},
	"TimeoutStartSec": {"Service", false, func(u *Unit, v string) (err error) { u.TimeoutStartSec, err = duration(v); return err }},
	"TimeoutStopSec":  {"Service", false, func(u *Unit, v string) (err error) { u.TimeoutStopSec, err = duration(v); return err }},

	"KillMode":       {"Service", false, func(u *Unit, v string) error { return oneOf(&u.KillMode, v, KillControlGroup, KillMixed, KillProcess) }},
	"KillSignal":     {"Service", false, func(u *Unit, v string) (err error) { u.KillSignal, err = signalNamed(v); return err }},
	"Delegate":       {"Service", false, func(u *Unit, v string) (err error) { u.Delegate, err = truth(v); return err }},
	"OOMScoreAdjust": {"Service", false, oomScoreAdjust},
	"LimitNOFILE":    {"Service", false, func(u *Unit, v string) (err error) { u.LimitNOFILE, err = limit(v); return err }},
	"MemoryMin":      {"Service", false, func(u *Unit, v string) (err error) { u.Resources.MemoryMin, err = size(v); return err }},
	"MemoryLow":      {"Service", false, func(u *Unit, v string) (err error) { u.Resources.MemoryLow, err = size(v); return err }},
	"MemoryHigh":     {"Service", false, func(u *Unit, v string) (err error) { u.Resources.MemoryHigh, err = size(v); return err }},
	"MemoryMax":      {"Service", false, func(u *Unit, v string) (err error) { u.Resources.MemoryMax, err = size(v); return err }},
	"CPUWeight":      {"Service", false, cpuWeight},
	"TasksMax":       {"Service", false, func(u *Unit, v string) (err error) { u.Resources.TasksMax, err = count(v); return err }},
}

// LoadUnits reads all *.service files of a directory, in the order of their names, and checks that they go together. The
// error holds the mistakes of all files.
func LoadUnits(dir string) ([]*Unit, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.service"))
	if err != nil {
		return nil, fmt.Errorf("cannot list the units in %s: %w", dir, err)
	}
	slices.Sort(paths)
	var units []*Unit
	var mistakes []error
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("cannot read unit %s: %w", path, err))
			continue
		}
		u, err := ParseUnit(path, data)
		if err != nil {
			mistakes = append(mistakes, err)
			continue
		}
		units = append(units, u)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	if err := checkGraph(units); err != nil {
		return nil, err
	}
	return units, nil
}

// ParseUnit reads one unit file. The error holds every mistake as a line of its own, each with file and line.
func ParseUnit(path string, data []byte) (*Unit, error) {
	u := &Unit{
		Name: strings.TrimSuffix(filepath.Base(path), ".service"), Path: path,
		Type: Simple, Restart: RestartNo, RestartSec: defaultRestartSec, TimeoutStartSec: defaultTimeout, TimeoutStopSec: defaultTimeout,
		KillMode: KillControlGroup, KillSignal: syscall.SIGTERM, lines: map[string]int{},
	}
	if !isUnitName(u.Name) || !strings.HasSuffix(path, ".service") {
		return nil, fmt.Errorf("%s: a unit file is named NAME.service, with letters, digits, '-', '_' and '.'", path)
	}
	starts, err := optionLines(path, data)
	if err != nil {
		return nil, err
	}
	options, err := unit.DeserializeOptions(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(options) != len(starts) {
		return nil, fmt.Errorf("%s: cannot tell the lines of the directives: %d directives in %d lines", path, len(options), len(starts))
	}
	var mistakes []error
	for i, option := range options {
		if err := u.apply(option, starts[i]); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s:%d: %w", path, starts[i], err))
		}
	}
	// A oneshot that may take as long as it needs is systemd's rule too: it is the work itself that runs.
	if _, given := u.lines["TimeoutStartSec"]; !given && u.Type == Oneshot {
		u.TimeoutStartSec = 0
	}
	if len(mistakes) == 0 && len(u.ExecStart) == 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: [Service] has no ExecStart=", path))
	}
	if u.WatchdogSec > 0 && u.Type != Notify {
		mistakes = append(mistakes, fmt.Errorf("%s:%d: WatchdogSec= needs Type=notify: only then there is a socket for signs of life", path, u.lines["WatchdogSec"]))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Unit) apply(option *unit.UnitOption, line int) error {
	d, ok := directives[option.Name]
	if !ok {
		return fmt.Errorf("unknown directive %s= in [%s]; supported there: %s", option.Name, option.Section, strings.Join(inSection(option.Section), ", "))
	}
	if d.section != option.Section {
		return fmt.Errorf("directive %s= belongs in [%s], not in [%s]", option.Name, d.section, option.Section)
	}
	if first, again := u.lines[option.Name]; again && !d.repeats {
		return fmt.Errorf("directive %s= was already given in line %d", option.Name, first)
	}
	u.lines[option.Name] = line
	value := joinLines(option.Value)
	if value == "" {
		return fmt.Errorf("%s= has no value", option.Name)
	}
	if err := d.set(u, value); err != nil {
		return fmt.Errorf("%s=: %w", option.Name, err)
	}
	return nil
}

// joinLines puts a value that was continued with '\' at the end of a line on one line, as systemd.syntax(7) says.
func joinLines(value string) string {
	return strings.TrimSpace(strings.ReplaceAll(value, "\\\n", " "))
}

func inSection(section string) []string {
	var names []string
	for name, d := range directives {
		if d.section == section {
			names = append(names, name)
		}
	}
	if names == nil {
		return []string{"nothing; the sections are [Unit] and [Service]"}
	}
	slices.Sort(names)
	return names
}

// optionLines finds the line in which each directive starts, because the library's parser tells no lines, and refuses what
// it would skip silently. Lines that end in '\' go on in the next one; comments and blank lines separate nothing.
func optionLines(path string, data []byte) ([]int, error) {
	var starts []int
	continued, section := false, false
	for i, line := range strings.Split(string(data), "\n") {
		trimmed := strings.TrimSpace(line)
		wasContinued := continued
		continued = strings.HasSuffix(trimmed, "\\")
		switch {
		case len(line) >= unit.SYSTEMD_LINE_MAX:
			return nil, fmt.Errorf("%s:%d: the line is longer than %d bytes", path, i+1, unit.SYSTEMD_LINE_MAX)
		case wasContinued:
		case trimmed == "":
			continued = false
		case trimmed[0] == '#' || trimmed[0] == ';':
			if continued {
				return nil, fmt.Errorf("%s:%d: a comment ends in '\\' and would swallow the next line", path, i+1)
			}
		case trimmed[0] == '[':
			if trimmed != "[Unit]" && trimmed != "[Service]" {
				return nil, fmt.Errorf("%s:%d: unknown section %s; supported: [Unit], [Service]", path, i+1, trimmed)
			}
			section = true
		case !section:
			return nil, fmt.Errorf("%s:%d: %q stands before the first section", path, i+1, trimmed)
		case !strings.Contains(trimmed, "="):
			return nil, fmt.Errorf("%s:%d: %q is no directive: NAME=VALUE", path, i+1, trimmed)
		default:
			starts = append(starts, i+1)
		}
	}
	if continued {
		return nil, fmt.Errorf("%s: the last line ends in '\\' but nothing follows", path)
	}
	return starts, nil
}

func isUnitName(s string) bool {
	return s != "" && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}
