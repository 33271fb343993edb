package e2e

import (
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"

	"github.com/skerryos/skerry/builder/vm"
	"github.com/skerryos/skerry/initd/bundle"
	"github.com/skerryos/skerry/initd/slot"
	"github.com/skerryos/skerry/initd/slot/slottest"
)

// TestBootLoaderModel holds the model of systemd-boot, on which the enumeration of power cuts stands, against the real one: for
// some of the states that the boot partition can be in, both must take the same image and leave the same names.
func TestBootLoaderModel(t *testing.T) {
	t.Parallel()
	image, err := firstImage()
	must(t, err)
	ukis := map[slot.Name][]byte{slot.A: bootArtefact(t, release(t, "second"), slot.A), slot.B: bootArtefact(t, release(t, "second"), slot.B)}
	for _, state := range []struct {
		name string
		// files are the images on the boot partition, with the slot that they start; an empty one starts none.
		files map[string]slot.Name
	}{
		{"as the factory makes it", map[string]slot.Name{"skerry-a+3-0.efi": "a"}},
		{"new slot on trial", map[string]slot.Name{"skerry-a.efi": "a", "skerry-1-b+3-0.efi": "b"}},
		{"last attempt", map[string]slot.Name{"skerry-a.efi": "a", "skerry-1-b+1-2.efi": "b"}},
		{"no attempts left", map[string]slot.Name{"skerry-a.efi": "a", "skerry-1-b+0-3.efi": "b"}},
		{"both good, numbers are compared as numbers", map[string]slot.Name{"skerry-9-b.efi": "b", "skerry-10-a.efi": "a"}},
		{"back on slot a, on trial", map[string]slot.Name{"skerry-1-b.efi": "b", "skerry-2-a+2-1.efi": "a"}},
		{"marked bad", map[string]slot.Name{"skerry-1-b.efi": "b", "skerry-2-a+0-0.efi": "a"}},
		{"nothing is good", map[string]slot.Name{"skerry-a+0-3.efi": "a", "skerry-1-b+0-3.efi": "b"}},
		{"a rename that was cut: new name without content", map[string]slot.Name{"skerry-a.efi": "a", "skerry-1-b+2-1.efi": ""}},
		{"an image that is being written", map[string]slot.Name{"skerry-1-b.efi": "b", "skerry-a.efi.new": "a"}},
	} {
		t.Run(state.name, func(t *testing.T) {
			contents := map[string]string{}
			for name, of := range state.files {
				contents[name] = string(of)
			}
			model := slottest.NewFAT(contents)
			wanted, err := model.Boot()
			must(t, err)

			n := newNodeOf(t, image, diskBytes, func(c *vm.Config) {
				c.CPUs = parallelCPUs
				replaceImages(t, c.Disk, state.files, ukis)
			})
			line := n.waitConsole(t, 0, `slot [ab] \| starting: modules`, 30*time.Second)
			n.Kill()
			got := regexp.MustCompile(`slot ([ab]) `).FindStringSubmatch(line.Text)[1]
			if got != string(wanted) {
				t.Errorf("it boots slot %s, the model slot %s", got, wanted)
			}
			if names := imageNames(t, n.config.Disk); names != model.String() {
				t.Errorf("the names afterwards are %s, the model's %s", names, model)
			}
		})
	}
}

// bootArtefact is what starts a slot, out of a bundle.
func bootArtefact(t *testing.T, file string, n slot.Name) []byte {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	r, err := bundle.OpenUnverified(f)
	must(t, err)
	a := r.Manifest().Artefact(bundle.BootArtefact(string(n)))
	chunks := map[int][]byte{}
	for {
		index, plain, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if slices.Contains(a.Chunks, index) {
			chunks[index] = slices.Clone(plain)
		}
	}
	var all []byte
	for _, index := range a.Chunks {
		all = append(all, chunks[index]...)
	}
	return all
}

// replaceImages puts other images on the boot partition of a disk.
func replaceImages(t *testing.T, disk string, files map[string]slot.Name, ukis map[slot.Name][]byte) {
	t.Helper()
	d, err := diskfs.Open(disk)
	must(t, err)
	defer d.Close()
	boot, err := d.GetFilesystem(1)
	must(t, err)
	for _, name := range strings.Fields(imageNames(t, disk)) {
		must(t, boot.Remove(path.Join("/", slot.UKIDirectory, name)))
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		writeFile(t, boot, path.Join(slot.UKIDirectory, name), ukis[files[name]])
	}
}

// imageNames are the names of the images on the boot partition of a disk, sorted.
func imageNames(t *testing.T, disk string) string {
	t.Helper()
	d, err := diskfs.Open(disk, diskfs.WithOpenMode(diskfs.ReadOnly))
	must(t, err)
	defer d.Close()
	boot, err := d.GetFilesystem(1)
	must(t, err)
	entries, err := boot.ReadDir(slot.UKIDirectory)
	must(t, err)
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}
