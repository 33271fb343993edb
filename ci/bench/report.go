package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// replaceSection replaces the text between a section's comments in the document.
func replaceSection(file, name, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the document: %w", err)
	}
	replaced, err := withSection(string(b), name, text)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return renameio.WriteFile(file, []byte(replaced), 0o644)
}

// findSection returns an error for a document that has no place for a section.
func findSection(file, name string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot read the document: %w", err)
	}
	if _, err := withSection(string(b), name, ""); err != nil {
		return fmt.Errorf("cannot use %s: %w", file, err)
	}
	return nil
}

func withSection(document, name, text string) (string, error) {
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	before, rest, ok := strings.Cut(document, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("it has no lines %q and %q for the results; nothing was written", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + text + end + after, nil
}

// table writes a Markdown table; the first row is its head.
func table(rows [][]string) string {
	var out strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			out.WriteString("|" + strings.Repeat(" --- |", len(row)) + "\n")
		}
	}
	return out.String()
}

// mebibytes writes a number of bytes as MiB.
func mebibytes[T int64 | uint64](n T) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// spread writes the median of durations, and the extremes.
func spread(of []time.Duration) string {
	s := slices.Sorted(slices.Values(of))
	if len(s) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%.1f–%.1f)", seconds(s[len(s)/2]), s[0].Seconds(), s[len(s)-1].Seconds())
}
