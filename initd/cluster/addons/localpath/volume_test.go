package localpath

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVolumeLifeCycle(t *testing.T) {
	storage := filepath.Join(t.TempDir(), "not", "there", "yet")
	const name = "pvc-1_default_data"
	if err := createVolume(storage, name); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{storage: 0o700, filepath.Join(storage, name): 0o777} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s is %o, want %o", path, got, want)
		}
	}
	file := filepath.Join(storage, name, "sub", "file")
	if err := os.Mkdir(filepath.Dir(file), 0o500); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(file, []byte("kept"), 0o400)

	// A second creation, after a lost answer, keeps what the pod has written meanwhile.
	if err := createVolume(storage, name); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // others cannot write in the 0500 directory
		if b, err := os.ReadFile(file); err != nil || string(b) != "kept" {
			t.Errorf("second creation lost the data: %q, %v", b, err)
		}
	}
	os.Chmod(filepath.Dir(file), 0o700)
	for range 2 { // a second removal, after a lost answer, is success
		if err := removeVolume(storage, name); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(storage); len(left) != 0 {
		t.Errorf("removal left %v", left)
	}
}

func TestRemoveWithoutStorageDirectory(t *testing.T) {
	if err := removeVolume(filepath.Join(t.TempDir(), "gone"), "pvc-1_a_b"); err != nil {
		t.Error(err)
	}
}

// No name and no link that a container plants may reach the victim beside the storage directory.
func TestNothingEscapesStorage(t *testing.T) {
	base := t.TempDir()
	storage, victim := filepath.Join(base, "storage"), filepath.Join(base, "victim")
	for _, dir := range []string{storage, victim} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	precious := filepath.Join(victim, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	intact := func(t *testing.T) {
		t.Helper()
		info, err := os.Stat(victim)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("victim changed: %v %v", info, err)
		}
		if entries, _ := os.ReadDir(victim); len(entries) != 1 || entries[0].Name() != "precious" {
			t.Fatalf("victim changed: %v", entries)
		}
	}
	for _, name := range []string{"", ".", "..", "../victim", "a/../../victim", "/etc", "a\x00b", "a/b", strings.Repeat("x", 256)} {
		t.Run("name "+name[:min(len(name), 16)], func(t *testing.T) {
			if err := createVolume(storage, name); err == nil {
				t.Error("createVolume accepted the name")
			}
			if err := removeVolume(storage, name); err == nil {
				t.Error("removeVolume accepted the name")
			}
			intact(t)
		})
	}
	t.Run("volume is a link", func(t *testing.T) {
		link := filepath.Join(storage, "pvc-link")
		if err := os.Symlink(victim, link); err != nil {
			t.Fatal(err)
		}
		if err := createVolume(storage, "pvc-link"); err == nil {
			t.Error("createVolume took a link for a volume")
		}
		intact(t)
		if err := removeVolume(storage, "pvc-link"); err != nil {
			t.Error(err)
		}
		intact(t)
	})
	t.Run("link inside a volume", func(t *testing.T) {
		if err := createVolume(storage, "pvc-in"); err != nil {
			t.Fatal(err)
		}
		for name, target := range map[string]string{"abs": victim, "rel": "../../victim", "file": precious} {
			if err := os.Symlink(target, filepath.Join(storage, "pvc-in", name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := removeVolume(storage, "pvc-in"); err != nil {
			t.Error(err)
		}
		intact(t)
	})
	if left, _ := os.ReadDir(storage); len(left) != 0 {
		t.Errorf("storage directory is not empty: %v", left)
	}
}

func TestCreateRefusesFile(t *testing.T) {
	storage := t.TempDir()
	os.WriteFile(filepath.Join(storage, "pvc-f"), []byte("x"), 0o600)
	if err := createVolume(storage, "pvc-f"); err == nil || !strings.Contains(err.Error(), "left untouched") {
		t.Errorf("error is %v", err)
	}
}

func TestDirName(t *testing.T) {
	if got, want := dirName("pvc-1", "default", "data"), "pvc-1_default_data"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	long := dirName("pvc-1", strings.Repeat("n", 63), strings.Repeat("c", 253))
	if err := checkName(long); err != nil || !strings.HasPrefix(long, "pvc-1_n") {
		t.Errorf("%q: %v", long, err)
	}
}
