package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// A Word is one word of a command line, variables not yet expanded.
type Word string

// commandLine reads ExecStart=. systemd's prefixes (-, @, +, !, :) and specifiers (%n) are not supported.
func commandLine(value string) ([]Word, error) {
	words, err := split(value)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 || !strings.HasPrefix(words[0], "/") {
		return nil, fmt.Errorf("%q does not start with the absolute path of a program", value)
	}
	var line []Word
	for _, w := range words {
		if strings.Contains(strings.ReplaceAll(w, "%%", ""), "%") {
			return nil, fmt.Errorf("specifiers are not supported: write %%%% for %q in %q", "%", w)
		}
		line = append(line, Word(strings.ReplaceAll(w, "%%", "%")))
	}
	return line, nil
}

// expand replaces variables as systemd.service(5) says: ${NAME} anywhere in a word by its value; $NAME only where it is
// the whole word, by the words of its value, which may be none. A variable that is not set is an error here: a command
// line with a hole in it would do something else than what was meant.
func expand(line []Word, env []string) ([]string, error) {
	var args []string
	for _, w := range line {
		word := string(w)
		if name, ok := strings.CutPrefix(word, "$"); ok && isVariable(name) {
			value, ok := lookup(env, name)
			if !ok {
				return nil, fmt.Errorf("variable %s is not set", name)
			}
			args = append(args, strings.Fields(value)...)
			continue
		}
		var out strings.Builder
		for {
			before, rest, found := strings.Cut(word, "${")
			out.WriteString(before)
			if !found {
				break
			}
			name, after, closed := strings.Cut(rest, "}")
			if !closed || !isVariable(name) {
				return nil, fmt.Errorf("%q: ${ starts no variable", string(w))
			}
			value, ok := lookup(env, name)
			if !ok {
				return nil, fmt.Errorf("variable %s is not set", name)
			}
			out.WriteString(value)
			word = after
		}
		args = append(args, out.String())
	}
	return args, nil
}

// lookup finds a variable; the last assignment counts.
func lookup(env []string, name string) (string, bool) {
	for _, v := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// environ is the environment of a new process of the unit: what all have, the unit's own, then its files, the later winning.
func (u *Unit) environ(base []string) ([]string, error) {
	env := slices.Concat(base, u.Environment)
	for _, file := range u.EnvironmentFiles {
		data, err := os.ReadFile(file.Path)
		if file.Optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read environment file %s: %w", file.Path, err)
		}
		vars, err := parseEnvironmentFile(string(data))
		if err != nil {
			return nil, fmt.Errorf("cannot read environment file %s: %w", file.Path, err)
		}
		env = append(env, vars...)
	}
	return env, nil
}
