package image

import "bytes"

// loaderRelease is os-release as the boot loader gets to see it: without the fields that systemd-boot makes its sort key of.
// With a sort key it would prefer the newer version, whatever the device says; without one it goes by the names of the
// images, which the device gives them (docs/decisions/0030-slot-preference.md).
func loaderRelease(release []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(release) {
		if !bytes.HasPrefix(line, []byte("ID=")) && !bytes.HasPrefix(line, []byte("IMAGE_ID=")) {
			kept = append(kept, line...)
		}
	}
	return kept
}
