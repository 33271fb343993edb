package machine

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
)

// Words are what a boot leaves for the next one to say why it ended.
type Words struct {
	Slot    string `json:"slot"`
	Version string `json:"version"`
	Text    string `json:"text"`
}

// LastWords is a block of the disk for the words of a boot that ends without having reached a file system: it needs no
// driver but the disk's, and is written in one piece. It lies in the gap between the partition table and the first
// partition, which starts at 1 MiB on every board, behind all that boot loaders have there.
type LastWords struct {
	// Path is the disk.
	Path string
}

const (
	lastWordsOffset = 256 << 10
	lastWordsBytes  = 4096
	lastWordsMagic  = "SKERRYLW"
	lastWordsHeader = len(lastWordsMagic) + 8 // magic, length, CRC-32
)

// Write replaces what is there, and returns when it is on the disk. Text that does not fit is cut.
func (l LastWords) Write(w Words) error {
	text, err := w.encode()
	if err != nil {
		return err
	}
	block := make([]byte, lastWordsBytes)
	copy(block, lastWordsMagic)
	binary.BigEndian.PutUint32(block[8:], uint32(len(text)))
	binary.BigEndian.PutUint32(block[12:], crc32.ChecksumIEEE(text))
	copy(block[lastWordsHeader:], text)
	return l.write(block)
}

// encode cuts the text until the whole fits: JSON may need several bytes for one.
func (w Words) encode() ([]byte, error) {
	for {
		text, err := json.Marshal(w)
		if err != nil || len(text) <= lastWordsBytes-lastWordsHeader {
			return text, err
		}
		if w.Text == "" {
			return nil, fmt.Errorf("cannot write the last words: version %.40q… leaves no room for them", w.Version)
		}
		w.Text = w.Text[:len(w.Text)*3/4]
	}
}

// Clear says that there are none.
func (l LastWords) Clear() error { return l.write(make([]byte, lastWordsBytes)) }

// Read returns the words of the last boot that left some; they are empty when there are none, or a power cut tore them.
func (l LastWords) Read() (Words, error) {
	var w Words
	f, err := os.Open(l.Path)
	if err != nil {
		return w, fmt.Errorf("cannot read the last words: %w", err)
	}
	defer f.Close()
	block := make([]byte, lastWordsBytes)
	if _, err := f.ReadAt(block, lastWordsOffset); err != nil {
		return w, fmt.Errorf("cannot read the last words: %w", err)
	}
	size := binary.BigEndian.Uint32(block[8:])
	if !bytes.HasPrefix(block, []byte(lastWordsMagic)) || int(size) > lastWordsBytes-lastWordsHeader {
		return w, nil
	}
	text := block[lastWordsHeader:][:size]
	if crc32.ChecksumIEEE(text) != binary.BigEndian.Uint32(block[12:]) || json.Unmarshal(text, &w) != nil {
		return Words{}, nil
	}
	return w, nil
}

func (l LastWords) write(block []byte) error {
	f, err := os.OpenFile(l.Path, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		return fmt.Errorf("cannot write the last words: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(block, lastWordsOffset); err != nil {
		return fmt.Errorf("cannot write the last words: %w", err)
	}
	return nil
}
