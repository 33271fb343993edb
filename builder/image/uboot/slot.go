package uboot

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A File is a file of a boot image.
type File struct {
	Size    int64
	Content io.Reader
}

// BootImage writes the boot image of a slot, as a bundle carries it: kernel, initramfs, device trees and overlays by name, and
// the start script behind them. It is a tar archive that has nothing of the host in it.
func BootImage(w io.Writer, files map[string]File, start []byte) error {
	archive := tar.NewWriter(w)
	add := func(name string, f File) error {
		if !plainFile.MatchString(name) || f.Size == 0 {
			return fmt.Errorf("cannot make a boot image: file %q of %d bytes has no plain name, or no content", name, f.Size)
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: f.Size, Format: tar.FormatUSTAR}); err != nil {
			return fmt.Errorf("cannot make a boot image: file %s: %w", name, err)
		}
		if n, err := io.Copy(archive, f.Content); err != nil || n != f.Size {
			return fmt.Errorf("cannot make a boot image: file %s has %d bytes instead of %d: %w", name, n, f.Size, errors.Join(err, io.ErrUnexpectedEOF))
		}
		return nil
	}
	if _, taken := files[startScript]; taken {
		return fmt.Errorf("cannot make a boot image: the name %s is that of the start script", startScript)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := add(name, files[name]); err != nil {
			return err
		}
	}
	if err := add(startScript, File{int64(len(start)), strings.NewReader(string(start))}); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("cannot make a boot image: %w", err)
	}
	return nil
}

// FactoryFolder is where the files of the boot image lie on the boot partition of a new disk.
func FactoryFolder() string { return factoryFolder }

// StateOffset is where on the disk [State] goes, in bytes.
const StateOffset = firstCopy * sectorSize

// State is the boot state of a new disk: both copies, with slot a to be tried so many times.
func State(tries int) []byte {
	var out []byte
	for sequence := 1; sequence <= 2; sequence++ {
		values := map[string]string{"ab_seq": strconv.Itoa(sequence), "ab_cur": "a", "ab_dir_a": factoryFolder, "ab_dir_b": "none", "ab_tries_a": strconv.FormatInt(int64(tries), 16)}
		sector := make([]byte, sectorSize)
		at := 4
		for _, key := range slices.Sorted(strings.FieldsSeq(keys)) {
			value := values[key]
			if value == "" {
				value = "0"
			}
			at += copy(sector[at:], key+"="+value+"\x00")
		}
		binary.LittleEndian.PutUint32(sector, crc32.ChecksumIEEE(sector[4:]))
		out = append(out, sector...)
	}
	return out
}
