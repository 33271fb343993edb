package profile

import (
	"fmt"
	"path"
	"strings"
)

// CheckPattern says whether a file pattern is well formed: path.Match in each element, ** as an element on its own for
// any number of folders, and no leading slash.
func CheckPattern(pattern string) error {
	if pattern == "" || strings.HasPrefix(pattern, "/") || path.Clean(pattern) != pattern || strings.HasPrefix(pattern, "..") {
		return fmt.Errorf("file pattern %q is not a clean path without a leading slash, such as usr/sbin/nft", pattern)
	}
	for element := range strings.SplitSeq(pattern, "/") {
		if element != "**" && strings.Contains(element, "**") {
			return fmt.Errorf("file pattern %q: ** must be a path element on its own", pattern)
		}
		if _, err := path.Match(element, ""); err != nil {
			return fmt.Errorf("file pattern %q: %w in %q", pattern, err, element)
		}
	}
	return nil
}

// MatchPattern says whether a well-formed pattern matches name, a path without a leading slash. A pattern that ends in
// /** matches everything below a folder, but not the folder.
func MatchPattern(pattern, name string) bool {
	return matchElements(strings.Split(pattern, "/"), strings.Split(name, "/"))
}

func matchElements(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			if len(pattern) == 1 {
				return len(name) > 0
			}
			for i := range name {
				if matchElements(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}
