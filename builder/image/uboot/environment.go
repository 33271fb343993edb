package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SetEnvironment returns U-Boot's program with other variables in its default environment, the one that is compiled in and that U-Boot uses
// where no other was saved. Variables of set, each NAME=VALUE, replace those of that name or are added; those in unset go, by name.
// Nothing else of the program changes, neither its size, so there must be room: an error says how many bytes are missing.
//
// The environment is a sequence of NAME=VALUE that each end with a zero byte, with an empty one as the end
// (https://docs.u-boot.org/en/latest/usage/environment.html).
func SetEnvironment(program []byte, set, unset []string) ([]byte, error) {
	start, end, err := findEnvironment(program)
	if err != nil {
		return nil, err
	}
	var variables []string
	for v := range bytes.SplitSeq(program[start:end], []byte{0}) {
		variables = append(variables, string(v))
	}
	index := func(name string) int {
		return slices.IndexFunc(variables, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	}
	for _, name := range unset {
		i := index(name)
		if i < 0 {
			return nil, fmt.Errorf("U-Boot's environment has no variable %s to unset", name)
		}
		variables = slices.Delete(variables, i, i+1)
	}
	for _, v := range set {
		name, value, _ := strings.Cut(v, "=")
		if name == "" || value == "" || strings.Contains(v, "\x00") {
			return nil, fmt.Errorf("cannot set %q in U-Boot's environment: it is not of the form NAME=VALUE, without zero bytes", v)
		}
		if i := index(name); i >= 0 {
			variables[i] = v
		} else {
			variables = append(variables, v)
		}
	}
	changed := strings.Join(variables, "\x00")
	if missing := len(changed) - (end - start); missing > 0 {
		return nil, fmt.Errorf("U-Boot's environment has no room: %d bytes are missing; unset a variable that is not needed", missing)
	}
	out := bytes.Clone(program)
	clear(out[start+copy(out[start:end], changed) : end])
	return out, nil
}

// findEnvironment returns where the variables of the default environment are, from bootcmd on, which is the first that U-Boot's
// sources put there; end is behind the last one, where its zero byte is.
func findEnvironment(program []byte) (start, end int, err error) {
	first := []byte("\x00bootcmd=")
	i := bytes.Index(program, first)
	if i < 0 || bytes.Contains(program[i+1:], first) {
		return 0, 0, errors.New("there is no place in U-Boot's program, or more than one, that begins as its default environment does, with bootcmd")
	}
	start = i + 1
	n := bytes.Index(program[start:], []byte{0, 0})
	if n < 0 {
		return 0, 0, errors.New("the default environment in U-Boot's program has no end")
	}
	for v := range bytes.SplitSeq(program[start:start+n], []byte{0}) {
		if name, _, ok := bytes.Cut(v, []byte("=")); !ok || len(name) == 0 {
			return 0, 0, fmt.Errorf("what looks like the default environment in U-Boot's program has %q in it, which is no variable", v)
		}
	}
	return start, start + n, nil
}
