package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/skerryos/skerry/builder/fetch"
	"github.com/skerryos/skerry/builder/profile"
)

// TestRepository resolves every profile of this repository for every board, and holds the lock against them. What the
// kernel itself has is checked by `skerry kernel check`, which needs the kernel's package.
func TestRepository(t *testing.T) {
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	profiles, boards := names(root, "profiles"), names(root, "boards")
	if len(profiles) < 3 || len(boards) < 1 {
		t.Fatalf("found profiles %v and boards %v", profiles, boards)
	}
	for _, b := range boards {
		for _, p := range profiles {
			in := inputs{profile: p, board: b}
			made, err := in.resolve(root)
			if err != nil {
				t.Errorf("profile %s, board %s:\n%v", p, b, err)
				continue
			}
			for _, program := range made.Programs {
				dir := filepath.Join(root, filepath.FromSlash(program.Package[len(modulePath)+1:]))
				if files, err := filepath.Glob(filepath.Join(dir, "*.go")); err != nil || len(files) == 0 {
					t.Errorf("profile %s: program %s has no Go file in %s", p, program.Name, dir)
				}
			}
			for _, overlay := range made.Overlays {
				if info, err := os.Stat(filepath.Join(root, filepath.FromSlash(overlay))); err != nil || !info.IsDir() {
					t.Errorf("profile %s: overlay %s is not a folder of the repository: %v", p, overlay, err)
				}
			}
		}
	}
	want, err := wanted(root)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := profile.ReadLock(lockFile(root))
	if err != nil {
		t.Fatal(err)
	}
	if err := fetch.CheckLock(lock, want); err != nil {
		t.Error(err)
	}
}
