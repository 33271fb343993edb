package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
)

// VerityBlock is the size of data and hash blocks, in bytes.
const VerityBlock = 4096

// Verity is what a device needs to open a verity-protected partition.
type Verity struct {
	// RootHash is the hash of the tree's root, in hexadecimal.
	RootHash string `json:"rootHash"`
	// DataBlocks is the number of protected blocks; the superblock is the block after them, the tree follows it.
	DataBlocks int64 `json:"dataBlocks"`
}

// AppendVerity pads the first size bytes of f to whole blocks and appends a superblock and a hash tree, as
// `veritysetup format --hash-offset` does: https://docs.kernel.org/admin-guide/device-mapper/verity.html and
// https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity. Salt and UUID are made from seed, so the same data and
// seed give the same bytes. Only the hashes are held in memory: 1/128 of the data.
func AppendVerity(ctx context.Context, f interface {
	io.ReaderAt
	io.WriterAt
}, size int64, seed string) (Verity, error) {
	salt := sha256.Sum256([]byte("skerry verity salt " + seed))
	blocks := (size + VerityBlock - 1) / VerityBlock
	if pad := blocks*VerityBlock - size; pad > 0 {
		if _, err := f.WriteAt(make([]byte, pad), size); err != nil {
			return Verity{}, fmt.Errorf("cannot pad the root file system: %w", err)
		}
	}

	leaves := make([]byte, 0, blocks*sha256.Size)
	chunk := make([]byte, 256*VerityBlock)
	for off := int64(0); off < blocks*VerityBlock; off += int64(len(chunk)) {
		if err := ctx.Err(); err != nil {
			return Verity{}, err
		}
		chunk = chunk[:min(int64(cap(chunk)), blocks*VerityBlock-off)]
		if _, err := f.ReadAt(chunk, off); err != nil {
			return Verity{}, fmt.Errorf("cannot read the root file system back: %w", err)
		}
		leaves = appendHashes(leaves, chunk, salt[:])
	}

	// Level 0 hashes the data, each further level the blocks of the one below, until one hash is left; stored root
	// first. A single data block needs no level: its hash is the root.
	var levels [][]byte
	root := leaves
	for len(root) > sha256.Size {
		level := padToBlock(root)
		levels = append([][]byte{level}, levels...)
		root = appendHashes(nil, level, salt[:])
	}

	tail := veritySuperblock(blocks, salt[:], seed)
	for _, l := range levels {
		tail = append(tail, l...)
	}
	if _, err := f.WriteAt(tail, blocks*VerityBlock); err != nil {
		return Verity{}, fmt.Errorf("cannot write the verity tree: %w", err)
	}
	return Verity{RootHash: hex.EncodeToString(root), DataBlocks: blocks}, nil
}

// appendHashes appends the salted hash of every block of data (format 1: the salt comes first).
func appendHashes(out, data, salt []byte) []byte {
	h := sha256.New()
	for len(data) > 0 {
		h.Reset()
		h.Write(salt)
		h.Write(data[:VerityBlock])
		out = h.Sum(out)
		data = data[VerityBlock:]
	}
	return out
}

func padToBlock(b []byte) []byte {
	if r := len(b) % VerityBlock; r != 0 {
		b = append(b, make([]byte, VerityBlock-r)...)
	}
	return b
}

// veritySuperblock is struct verity_sb of cryptsetup, in a block of its own.
func veritySuperblock(blocks int64, salt []byte, seed string) []byte {
	sb := make([]byte, VerityBlock)
	le := binary.LittleEndian
	copy(sb, "verity\x00\x00")
	le.PutUint32(sb[8:], 1)  // version of the superblock
	le.PutUint32(sb[12:], 1) // hash type: 1 = salt first
	uuid := sha256.Sum256([]byte("skerry verity uuid " + seed))
	uuid[6], uuid[8] = uuid[6]&0x0f|0x80, uuid[8]&0x3f|0x80 // RFC 9562 version 8, variant 10
	copy(sb[16:32], uuid[:])
	copy(sb[32:64], "sha256")
	le.PutUint32(sb[64:], VerityBlock) // data block
	le.PutUint32(sb[68:], VerityBlock) // hash block
	le.PutUint64(sb[72:], uint64(blocks))
	le.PutUint16(sb[80:], uint16(len(salt)))
	copy(sb[88:], salt)
	return sb
}
