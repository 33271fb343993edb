package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// CopyDisk makes a disk of size bytes (a multiple of 512) at destination that begins with the image, as flashing does. Zeros take no
// space. The destination must not exist; after an error it does not.
func CopyDisk(image, destination string, size int64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot make a disk from %s: %w", image, err)
		}
	}()
	in, err := os.Open(image)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if size < info.Size() {
		return fmt.Errorf("a disk of %s is smaller than the image, which needs %s; give a larger --disk-size", Bytes(size), Bytes(info.Size()))
	}
	if size%512 != 0 {
		return fmt.Errorf("a disk cannot have %d bytes: its size is a multiple of 512", size)
	}
	// What an interrupt leaves has another name, so that nobody boots half a disk.
	out, err := os.CreateTemp(filepath.Dir(destination), filepath.Base(destination)+".partial-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	if err := errors.Join(copySparse(out, in), out.Truncate(size), out.Close()); err != nil {
		return err
	}
	return os.Link(out.Name(), destination) // which, unlike a rename, replaces nothing
}

// copySparse copies what is not zero. Holes read as zeros at the speed of memory, so it needs no system call to find them.
func copySparse(out *os.File, in io.Reader) error {
	const block = 256 << 10
	buffer, zeros := make([]byte, block), make([]byte, block)
	for offset := int64(0); ; {
		n, err := io.ReadFull(in, buffer)
		if n > 0 && !bytes.Equal(buffer[:n], zeros[:n]) {
			if _, err := out.WriteAt(buffer[:n], offset); err != nil {
				return err
			}
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Bytes writes a number of bytes for people, in binary units: "4 GiB", "1.5 MiB", "512 B".
func Bytes(n int64) string {
	unit, value := "B", float64(n)
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		unit, value = next, value/1024
	}
	if value == float64(int64(value)) {
		return fmt.Sprintf("%d %s", int64(value), unit)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}
