// Generate takes in the programs of package upstream for a build by hand, and prints the overlay file to build with:
//
//	go build -overlay "$(go run ./initd/cluster/upstream/generate /tmp/upstream)" ./initd/cmd/skerryd
//
// It runs in the repository. Its one argument is the folder to write to.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/skerryos/skerry/initd/cluster/upstream"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: generate FOLDER")
	}
	out, err := filepath.Abs(os.Args[1])
	if err != nil {
		return err
	}
	mod, err := goCommand("env", "GOMOD")
	if err != nil {
		return err
	}
	path, err := upstream.Write(filepath.Dir(mod), out, func(module string) (string, error) {
		return goCommand("list", "-m", "-f", "{{.Dir}}", module)
	})
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func goCommand(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
