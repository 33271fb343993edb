package rules

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// neededPattern is how a test asks for a program.
	neededPattern = regexp.MustCompile(`\bneed\.Tool\([a-z]+, "([^"]+)"\)`)
	// providedPattern is a line of the list in ci/setup: program or file, package, what for.
	providedPattern = regexp.MustCompile(`(?m)^\t\t(\S+) +\S+ +\S.*$`)
)

// missing returns the programs that the text of tests asks for and the text of ci/setup does not have.
func missing(tests, setup string) []string {
	var provided, wanted []string
	for _, m := range providedPattern.FindAllStringSubmatch(setup, -1) {
		provided = append(provided, m[1])
	}
	for _, m := range neededPattern.FindAllStringSubmatch(tests, -1) {
		if !slices.Contains(provided, m[1]) && !slices.Contains(wanted, m[1]) {
			wanted = append(wanted, m[1])
		}
	}
	return wanted
}

// A program that is on the machine of who writes a test may be missing on the next one, where CI runs.
func TestToolsAreInstalled(t *testing.T) {
	setup, err := os.ReadFile("../setup")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := exec.Command("git", "grep", "-h", "--untracked", "-e", `need\.Tool(`, "--", "../..").Output()
	if err != nil || !strings.Contains(string(tests), "veritysetup") {
		t.Fatalf("cannot find what tests need: %v", err)
	}
	for _, tool := range missing(string(tests), string(setup)) {
		t.Errorf("a test needs %s, and ci/setup does not install it", tool)
	}
}

func TestMissing(t *testing.T) {
	const setup = "needs() {\n\tcat <<-'END'\n\t\tsfdisk  fdisk  partition tables\n\tEND\n}\n"
	got := missing(`a, b := need.Tool(t, "sfdisk"), need.Tool(t, "mtype")`, setup)
	if !slices.Equal(got, []string{"mtype"}) {
		t.Errorf("missing are %q, want mtype", got)
	}
}
