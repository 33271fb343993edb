package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Two builds of the same sources, in different folders and at different times, give the same bytes. The first is the one
// that the other tests boot.
func TestReproducible(t *testing.T) {
	again := buildElsewhere(t, "e2e", "x86-64")
	sameOutputs(t, *build, again, "x86-64")
}

// The same for the boards that the other tests do not boot with this profile.
func TestReproducibleBoards(t *testing.T) {
	for _, board := range []string{"uefi-arm64", "rpi-arm64", "rpi-armv7", "rpi5-arm64"} {
		t.Run(board, func(t *testing.T) {
			first := filepath.Join(t.TempDir(), "output")
			buildImage(t, repository, "default", board, first)
			sameOutputs(t, first, buildElsewhere(t, "default", board), board)
		})
	}
}

// buildElsewhere builds in a copy of the repository, and returns the folder of the outputs.
func buildElsewhere(t *testing.T, profile, board string) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "another folder")
	copyRepository(t, repository, folder)
	output := filepath.Join(t.TempDir(), "output")
	buildImage(t, folder, profile, board, output)
	return output
}

func buildImage(t *testing.T, folder, profile, board, output string) {
	t.Helper()
	cmd := exec.Command("go", "run", "./builder/cmd/skerry", "build", profile, "--board", board, "--output", output)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func sameOutputs(t *testing.T, first, second, board string) {
	t.Helper()
	name, boot := "skerry-"+board, "boot/"+board
	for _, file := range []string{name + ".img", name + ".cdx.json", name + ".manifest.json", boot + "/vmlinuz", boot + "/initrd", boot + "/cmdline"} {
		one, other := digest(t, filepath.Join(first, file)), digest(t, filepath.Join(second, file))
		if one != other {
			t.Errorf("%s differs: %s and %s", file, one, other)
		}
	}
}

// copyRepository copies what git knows of or would add, so that a change that is not committed yet is tested too.
func copyRepository(t *testing.T, from, to string) {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = from
	out, err := list.Output()
	must(t, err)
	for _, name := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue // deleted and not committed
		}
		must(t, err)
		target := filepath.Join(to, name)
		must(t, os.MkdirAll(filepath.Dir(target), 0o755))
		if info.Mode()&os.ModeSymlink != 0 {
			link, err := os.Readlink(filepath.Join(from, name))
			must(t, err)
			must(t, os.Symlink(link, target))
			continue
		}
		content, err := os.ReadFile(filepath.Join(from, name))
		must(t, err)
		must(t, os.WriteFile(target, content, info.Mode().Perm()))
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}
