// Package need lets a test say which program of the machine it cannot do without.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Tool returns the path of a program. If it is not installed the test is skipped, with a line that says so; in CI
// (CI=true) it fails, so that no test is skipped there unnoticed.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name+" is not on PATH")
	}
	return path
}

// Missing skips the test for want of something other than a program, or fails it in CI.
func Missing(t testing.TB, what string) {
	t.Helper()
	const hint = "; ci/setup installs what tests need"
	if os.Getenv("CI") == "true" {
		t.Fatal("needed in CI: " + what + hint)
	}
	t.Skip("skipped: " + what + hint)
}
