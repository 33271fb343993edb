package machine

import (
	"bufio"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Modules knows the kernel modules below /usr/lib/modules/RELEASE by the tables beside them, in the formats of
// modules.dep(5) and depmod(8).
type Modules struct {
	paths   map[string]string   // name → path below the folder
	needs   map[string][]string // path → paths to be loaded before it, the last first
	pre     map[string][]string // name → names or aliases to be loaded before it, if they can be
	post    map[string][]string // the same, after it
	builtin map[string]bool
	aliases []alias
}

type alias struct{ pattern, name string }

// ReadModules reads the tables in dir.
func ReadModules(dir fs.FS) (*Modules, error) {
	m := &Modules{paths: map[string]string{}, needs: map[string][]string{}, pre: map[string][]string{}, post: map[string][]string{}, builtin: map[string]bool{}}
	err := eachLine(dir, "modules.dep", func(line string) {
		file, deps, ok := strings.Cut(line, ":")
		if !ok {
			return
		}
		m.paths[ModuleName(file)] = file
		m.needs[file] = strings.Fields(deps)
	})
	if err != nil {
		return nil, err
	}
	for _, table := range []struct {
		file string
		line func([]string)
	}{
		{"modules.builtin", func(f []string) { m.builtin[ModuleName(f[0])] = true }},
		{"modules.softdep", func(f []string) {
			if len(f) < 3 || f[0] != "softdep" {
				return
			}
			name := ModuleName(f[1])
			list := map[string][]string{}
			for _, word := range f[2:] {
				switch word {
				case "pre:":
					list = m.pre
				case "post:":
					list = m.post
				default:
					list[name] = append(list[name], ModuleName(word))
				}
			}
		}},
		{"modules.alias", func(f []string) {
			if len(f) == 3 && f[0] == "alias" {
				pattern := f[1]
				if !strings.Contains(pattern, ":") {
					pattern = ModuleName(pattern) // another name of the module, and not of a device
				}
				m.aliases = append(m.aliases, alias{pattern, ModuleName(f[2])})
			}
		}},
	} {
		err := eachLine(dir, table.file, func(line string) {
			if f := strings.Fields(line); len(f) > 0 && !strings.HasPrefix(line, "#") {
				table.line(f)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

func eachLine(dir fs.FS, name string, line func(string)) error {
	f, err := dir.Open(name)
	if err != nil {
		return fmt.Errorf("cannot read module table: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line(s.Text())
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("cannot read module table %s: %w", name, err)
	}
	return nil
}

// ModuleName is the kernel's name of a module: its file's name without endings, with _ for -.
func ModuleName(file string) string {
	name := path.Base(file)
	for _, end := range []string{".xz", ".zst", ".gz", ".ko"} {
		name = strings.TrimSuffix(name, end)
	}
	return strings.ReplaceAll(name, "-", "_")
}

// Match returns the modules that serve a device, by its modalias.
func (m *Modules) Match(modalias string) []string {
	var names []string
	for _, a := range m.aliases {
		if matchAlias(a.pattern, modalias) {
			names = append(names, a.name)
		}
	}
	return names
}

// matchAlias is fnmatch(3) without flags, as far as depmod writes patterns: *, ? and sets in brackets. [path.Match] will
// not do: its * stops at a slash, and names of vendors and of device tree nodes hold those.
func matchAlias(pattern, s string) bool {
	p, i := 0, 0
	// Where to go on after a mismatch: behind the last *, which then takes one more character. Going back to an earlier
	// one could not find more.
	star, taken := -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, taken = p, i
			continue
		}
		if n := matchOne(pattern[p:], s[i]); n > 0 {
			p, i = p+n, i+1
			continue
		}
		if star < 0 {
			return false
		}
		taken++
		p, i = star, taken
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne returns the length of the first element of pattern if it matches c, else 0.
func matchOne(pattern string, c byte) int {
	switch {
	case pattern == "":
		return 0
	case pattern[0] == '[':
		if set, _, ok := strings.Cut(pattern[1:], "]"); ok && inSet(set, c) {
			return len(set) + 2
		}
		return 0
	case pattern[0] == '?' || pattern[0] == c:
		return 1
	}
	return 0
}

// inSet tells whether c is in a set such as "0-9a".
func inSet(set string, c byte) bool {
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return true
			}
			i += 2
		} else if set[i] == c {
			return true
		}
	}
	return false
}

// Order returns the paths of a module and of all that it needs or wishes for, in the order in which they have to be loaded;
// the module's own path is own. It is empty for a module that is built into the kernel.
func (m *Modules) Order(name string) (order []string, own string, err error) {
	name = ModuleName(name)
	err = m.order(name, map[string]bool{}, &order)
	return order, m.paths[name], err
}

func (m *Modules) order(name string, seen map[string]bool, order *[]string) error {
	if seen[name] || m.builtin[name] {
		return nil
	}
	seen[name] = true
	file, ok := m.paths[name]
	if !ok {
		return fmt.Errorf("the image has no kernel module %s", name)
	}
	m.wishes(m.pre[name], seen, order)
	needs := m.needs[file]
	for i := len(needs) - 1; i >= 0; i-- {
		if err := m.order(ModuleName(needs[i]), seen, order); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	*order = append(*order, file)
	m.wishes(m.post[name], seen, order)
	return nil
}

// wishes orders soft dependencies, which are names of modules or aliases that several can have (all who offer the
// checksum crypto-crc32c). What is missing does not matter here: a module that cannot do without shows it when it is
// loaded.
func (m *Modules) wishes(list []string, seen map[string]bool, order *[]string) {
	for _, wish := range list {
		names := []string{wish}
		if m.paths[wish] == "" {
			names = m.Match(wish)
		}
		for _, name := range names {
			_ = m.order(name, seen, order)
		}
	}
}
