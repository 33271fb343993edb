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
	repository, err := filepath.Abs("../..")
	must(t, err)
	folder := filepath.Join(t.TempDir(), "another folder")
	copyRepository(t, repository, folder)
	output := filepath.Join(t.TempDir(), "output")
	cmd := exec.Command("go", "run", "./builder/cmd/skerry", "build", "e2e", "--output", output)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{imageName, "skerry-x86-64.cdx.json", "skerry-x86-64.manifest.json", "boot/vmlinuz", "boot/initrd", "boot/cmdline"} {
		first, second := digest(t, filepath.Join(*build, name)), digest(t, filepath.Join(output, name))
		if first != second {
			t.Errorf("%s differs: %s and %s", name, first, second)
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
