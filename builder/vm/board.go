package vm

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/mbr"
)

// PrepareBoard takes what QEMU loads in the firmware's stead out of an image's boot partition, into folder. Loader and DeviceTree of
// the board are paths on that partition; those of the result are files. A loader of 32 bits is packed so that it starts where the
// firmware would start it. The image stays as it is.
func PrepareBoard(architecture string, b Board, image, folder string) (*Board, error) {
	disk, err := file.OpenFromPath(image, true)
	if err != nil {
		return nil, fmt.Errorf("cannot read the image: %w", err)
	}
	defer disk.Close()
	table, err := mbr.Read(disk, 512, 512)
	if err != nil {
		return nil, fmt.Errorf("cannot read the partition table of %s: %w", image, err)
	}
	boot := table.Partitions[0]
	files, err := fat32.Read(disk, int64(boot.Size)*512, int64(boot.Start)*512, 512)
	if err != nil {
		return nil, fmt.Errorf("cannot read the boot partition of %s: %w", image, err)
	}
	status := map[string]string{}
	for _, node := range b.Enable {
		status[node] = "okay"
	}
	for _, node := range b.Disable {
		status[node] = "disabled"
	}
	for _, name := range []*string{&b.Loader, &b.DeviceTree} {
		data, err := fs.ReadFile(files, *name)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s of the boot partition of %s: %w", *name, image, err)
		}
		switch {
		case name == &b.Loader && architecture == "arm":
			data = relocated(data)
		case name == &b.DeviceTree && len(status) > 0:
			if data, err = setStatus(data, status); err != nil {
				return nil, fmt.Errorf("cannot change device tree %s for QEMU: %w", *name, err)
			}
		}
		*name = filepath.Join(folder, filepath.Base(*name))
		// A file that is there already may be in use by another machine.
		if old, err := os.ReadFile(*name); err == nil && bytes.Equal(old, data) {
			continue
		}
		if err := os.WriteFile(*name, data, 0o644); err != nil {
			return nil, fmt.Errorf("cannot take a file out of the image: %w", err)
		}
	}
	return &b, nil
}

// CardBytes is the size of the card of an emulated board that holds at least so many bytes: QEMU's are powers of two.
func CardBytes(least int64) int64 {
	size := int64(1)
	for size < least {
		size *= 2
	}
	return size
}
