package stick

import (
	"cmp"
	"slices"
	"strings"
)

// compareVersions orders versions as https://semver.org (section 11) does, and other texts in a like manner: parts between dots
// by number where both are numbers, a version with "-rc" before the one without, and what follows "+" counts for nothing.
func compareVersions(a, b string) int {
	a, _, _ = strings.Cut(a, "+")
	b, _, _ = strings.Cut(b, "+")
	a, preA, isPreA := strings.Cut(a, "-")
	b, preB, isPreB := strings.Cut(b, "-")
	if order := compareParts(a, b); order != 0 {
		return order
	}
	switch {
	case isPreA && !isPreB:
		return -1
	case !isPreA && isPreB:
		return 1
	}
	return compareParts(preA, preB)
}

func compareParts(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(a, b string) int {
		numberA, numberB := isNumber(a), isNumber(b)
		switch {
		case numberA && numberB:
			a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
		case numberA:
			return -1
		case numberB:
			return 1
		}
		return cmp.Compare(a, b)
	})
}

func isNumber(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}
