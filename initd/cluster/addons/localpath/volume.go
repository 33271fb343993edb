package localpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// volumeMode lets any user of any container write, as upstream does: the directory above it is closed to everybody but
// root, so only a container that mounts the volume reaches it.
const volumeMode = 0o777

// maxFileName is NAME_MAX of Linux file systems, in bytes.
const maxFileName = 255

// dirName is the directory of a volume below the storage directory, PV_NAMESPACE_CLAIM, as upstream names it. The
// name of the PersistentVolume is unique and comes first, so a name that is cut off stays unique.
func dirName(pv, namespace, claim string) string {
	name := pv + "_" + namespace + "_" + claim
	if len(name) > maxFileName {
		name = name[:maxFileName]
	}
	return name
}

// checkName refuses a directory name that is more than one path element. Names come from API objects, and API validation is
// not what should keep us from deleting /.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is not the name of a volume directory", name)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%q has a character that is not allowed in the name of a volume directory", name)
	case len(name) > maxFileName:
		return fmt.Errorf("%q is longer than %d bytes", name, maxFileName)
	}
	return nil
}

// createVolume makes the directory of a volume below storage, and storage itself when it is missing. It is
// durable when createVolume returns: the API remembers the volume, so a power cut must not lose its directory.
// A directory that is there already is kept with its contents. All work goes through os.Root: no name
// and no symbolic link that a container left behind leads out of storage.
func createVolume(storage, name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("cannot create volume in %s: %w", storage, err)
	}
	if err := os.MkdirAll(storage, 0o700); err != nil {
		return fmt.Errorf("cannot create storage directory: %w", err)
	}
	root, err := os.OpenRoot(storage)
	if err != nil {
		return fmt.Errorf("cannot open storage directory: %w", err)
	}
	defer root.Close()
	// kubelet makes a missing hostPath 0755.
	if err := root.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("cannot close storage directory %s to others: %w", storage, err)
	}
	if err := root.Mkdir(name, volumeMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot create volume in %s: %w", storage, err)
	}
	if info, err := root.Lstat(name); err != nil {
		return fmt.Errorf("cannot create volume in %s: %w", storage, err)
	} else if !info.IsDir() {
		return fmt.Errorf("cannot create volume in %s: %s is there and is not a directory; left untouched", storage, name)
	}
	if err := root.Chmod(name, volumeMode); err != nil { // Mkdir's mode is subject to the umask
		return fmt.Errorf("cannot set mode of volume in %s: %w", storage, err)
	}
	return syncRoot(root, storage)
}

// removeVolume deletes the directory of a volume with all its contents. A volume or a storage directory that is
// already gone is success, so that a deletion that was cut short can be repeated.
func removeVolume(storage, name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("cannot remove volume in %s: %w", storage, err)
	}
	root, err := os.OpenRoot(storage)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("cannot open storage directory: %w", err)
	}
	defer root.Close()
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("cannot remove volume in %s: %w", storage, err)
	}
	return syncRoot(root, storage)
}

func syncRoot(root *os.Root, storage string) error {
	dir, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("cannot write storage directory %s to disk: %w", storage, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("cannot write storage directory %s to disk: %w", storage, err)
	}
	return nil
}
