package config

import (
	"fmt"
	"strings"
)

// suggestion continues "unknown key …": with the candidate that was most likely meant, if one is near.
func suggestion(word string, candidates []string) string {
	// A third of the letters wrong, rounded up so that two swapped letters of a short word count, is still a typing error;
	// more is another word.
	best, limit := "", (len(word)+2)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), c); d <= limit {
			best, limit = c, d-1
		}
	}
	if best == "" {
		return ";"
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance in bytes: how many insertions, deletions and replacements turn a into b.
func distance(a, b string) int {
	// Only words of a few letters are compared; a long one is far from each of them.
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
