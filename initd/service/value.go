package service

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Values of directives, as systemd.syntax(7), systemd.time(7) and the page of each directive have them.

func oneOf[T ~string](field *T, value string, allowed ...T) error {
	if !slices.Contains(allowed, T(value)) {
		var words []string
		for _, a := range allowed {
			words = append(words, string(a))
		}
		return fmt.Errorf("unknown value %q; supported: %s", value, strings.Join(words, ", "))
	}
	*field = T(value)
	return nil
}

func truth(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", value)
}

// unitNames adds names of services to a list.
func unitNames(list *[]string, value string) error {
	for _, word := range strings.Fields(value) {
		name, ok := strings.CutSuffix(word, ".service")
		if !ok || !isUnitName(name) {
			return fmt.Errorf("%q is no service: NAME.service", word)
		}
		if !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	return nil
}

func pathCondition(list *[]Path, value string) error {
	path, absent := strings.CutPrefix(value, "!")
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q is no absolute path", path)
	}
	*list = append(*list, Path{path, absent})
	return nil
}

// timeUnits are the units of systemd.time(7) that make sense here; a number without one counts seconds.
var timeUnits = []struct {
	suffix string
	unit   time.Duration
}{ // longer suffixes first, because "s" also ends "ms"
	{"min", time.Minute}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"h", time.Hour}, {"s", time.Second}, {"", time.Second},
}

// duration reads "1min 30s", "250ms", "90" or "infinity"; zero stands for no limit.
func duration(value string) (time.Duration, error) {
	if value == "infinity" {
		return 0, nil
	}
	var sum time.Duration
	for _, word := range strings.Fields(value) {
		for _, u := range timeUnits {
			number, ok := strings.CutSuffix(word, u.suffix)
			if !ok {
				continue
			}
			n, err := strconv.ParseFloat(number, 64)
			if err != nil || n < 0 || n*float64(u.unit) > float64(365*24*time.Hour) {
				return 0, fmt.Errorf("%q is no time such as 30, 250ms, 1min 30s or infinity", value)
			}
			sum += time.Duration(n * float64(u.unit))
			break
		}
	}
	return sum, nil
}

// size reads bytes with an optional suffix K, M, G or T (powers of 1024), or "infinity".
func size(value string) (*uint64, error) {
	n := Unlimited
	if value != "infinity" {
		number, shift := value, 0
		if i := strings.IndexByte("KMGT", value[len(value)-1]); i >= 0 {
			number, shift = value[:len(value)-1], 10*(i+1)
		}
		parsed, err := strconv.ParseUint(number, 10, 64)
		if err != nil || parsed > Unlimited>>shift {
			return nil, fmt.Errorf("%q is no size such as 67108864, 64M, 1G or infinity", value)
		}
		n = parsed << shift
	}
	return &n, nil
}

func count(value string) (*uint64, error) {
	n := Unlimited
	if value != "infinity" {
		parsed, err := strconv.ParseUint(value, 10, 64)
		if err != nil || parsed == 0 {
			return nil, fmt.Errorf("%q is no number such as 4096, or infinity", value)
		}
		n = parsed
	}
	return &n, nil
}

// limit reads "1048576" or "1024:1048576": soft and hard.
func limit(value string) (*Limit, error) {
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	s, err := count(soft)
	if err != nil {
		return nil, err
	}
	h, err := count(hard)
	if err != nil {
		return nil, err
	}
	if *h == Unlimited {
		return nil, errors.New("infinity is not possible: the kernel allows fs.nr_open, 1048576, at most")
	}
	if *s > *h {
		return nil, fmt.Errorf("the soft limit %s is above the hard limit %s", soft, hard)
	}
	return &Limit{*s, *h}, nil
}

func cpuWeight(u *Unit, value string) error {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n < 1 || n > 10000 {
		return fmt.Errorf("%q is no weight from 1 to 10000", value)
	}
	u.Resources.CPUWeight = &n
	return nil
}

func oomScoreAdjust(u *Unit, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < -1000 || n > 1000 {
		return fmt.Errorf("%q is no number from -1000 to 1000", value)
	}
	u.OOMScoreAdjust = &n
	return nil
}

func signalNamed(value string) (syscall.Signal, error) {
	if n := unix.SignalNum(value); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("%q is no signal such as SIGTERM", value)
}

func environment(u *Unit, value string) error {
	words, err := split(value)
	if err != nil {
		return err
	}
	for _, word := range words {
		if err := checkAssignment(word); err != nil {
			return err
		}
		u.Environment = append(u.Environment, word)
	}
	return nil
}

func environmentFile(u *Unit, value string) error {
	path, optional := strings.CutPrefix(value, "-")
	if !strings.HasPrefix(path, "/") {
		return fmt.Errorf("%q is no absolute path", path)
	}
	u.EnvironmentFiles = append(u.EnvironmentFiles, EnvironmentFile{path, optional})
	return nil
}

func checkAssignment(word string) error {
	name, _, ok := strings.Cut(word, "=")
	if !ok || !isVariable(name) {
		return fmt.Errorf("%q is no assignment: NAME=VALUE", word)
	}
	return nil
}

func isVariable(s string) bool {
	return s != "" && (s[0] < '0' || s[0] > '9') && !strings.ContainsFunc(s, func(r rune) bool { return !isVariableByte(r) })
}

func isVariableByte(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
}

// parseEnvironmentFile reads NAME=VALUE lines; '#' and ';' start a comment line, a value may be quoted.
func parseEnvironmentFile(data string) ([]string, error) {
	var vars []string
	for i, line := range strings.Split(data, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if err := checkAssignment(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		name, value, _ := strings.Cut(line, "=")
		words, err := split(value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		vars = append(vars, name+"="+strings.Join(words, " "))
	}
	return vars, nil
}

var errQuote = errors.New("a quotation mark is not closed")

// split takes a value apart at white space; "double" and 'single' quotation marks keep words together, and a backslash
// takes the next character as it is.
func split(value string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote, escaped := false, rune(0), false
	for _, r := range value {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errQuote
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
