package main

import (
	"testing"
	"time"
)

func TestWithSection(t *testing.T) {
	const document = "head\n<!-- begin a -->\nold\n<!-- end a -->\nbetween\n<!-- begin b -->\nkept\n<!-- end b -->\ntail\n"
	got, err := withSection(document, "a", "new\n")
	if err != nil {
		t.Fatal(err)
	}
	const want = "head\n<!-- begin a -->\nnew\n<!-- end a -->\nbetween\n<!-- begin b -->\nkept\n<!-- end b -->\ntail\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if _, err := withSection(document, "c", "new\n"); err == nil {
		t.Error("a section that the document does not have was written")
	}
}

func TestDocumentHasAllSections(t *testing.T) {
	for _, s := range sections {
		if err := findSection("../../docs/benchmarks.md", s.name); err != nil {
			t.Error(err)
		}
	}
	if err := findSection("../../docs/benchmarks.md", "none"); err == nil {
		t.Error("a section that the document does not have was found")
	}
}

func TestTable(t *testing.T) {
	const want = "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
	if got := table([][]string{{"a", "b"}, {"1", "2"}}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSpread(t *testing.T) {
	got := spread([]time.Duration{3 * time.Second, time.Second, 2500 * time.Millisecond})
	if want := "2.5 s (1.0–3.0)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
