package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Tokens of a device tree's structure block (Devicetree Specification 0.4, 5.4).
const (
	fdtMagic     = 0xd00dfeed
	fdtBeginNode = 1
	fdtEndNode   = 2
	fdtProperty  = 3
	fdtNop       = 4
	fdtEnd       = 9
)

// setStatus returns the device tree with the property status of nodes, by their paths, changed. A node that is not there, or has no
// status, is an error: the tree is of another board than was thought.
func setStatus(tree []byte, status map[string]string) ([]byte, error) {
	be := binary.BigEndian
	if len(tree) < 40 || be.Uint32(tree) != fdtMagic || int64(be.Uint32(tree[4:])) > int64(len(tree)) {
		return nil, errors.New("not a device tree")
	}
	structure, names := uint64(be.Uint32(tree[8:])), uint64(be.Uint32(tree[12:]))
	structureSize, namesSize := uint64(be.Uint32(tree[36:])), uint64(be.Uint32(tree[32:]))
	if structure+structureSize > uint64(len(tree)) || names+namesSize > uint64(len(tree)) {
		return nil, errors.New("the device tree is cut off")
	}
	old := tree[structure : structure+structureSize]
	made, left, err := rewriteStatus(old, tree[names:names+namesSize], status)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("the device tree has no status of %s", strings.Join(left, ", "))
	}
	// The header and the map of reserved memory lie before both blocks; these are written anew behind them.
	head := min(structure, names)
	out := bytes.Clone(tree[:head])
	out = append(out, made...)
	out = append(out, tree[names:names+namesSize]...)
	be.PutUint32(out[4:], uint32(len(out)))
	be.PutUint32(out[8:], uint32(head))
	be.PutUint32(out[12:], uint32(head)+uint32(len(made)))
	be.PutUint32(out[36:], uint32(len(made)))
	return out, nil
}

// rewriteStatus copies a structure block with other statuses. left are the nodes that it has not met.
func rewriteStatus(block, names []byte, status map[string]string) (out []byte, left []string, err error) {
	be := binary.BigEndian
	cut := errors.New("the device tree's structure is damaged")
	var path []string
	met := map[string]bool{}
	for at := 0; at+4 <= len(block); {
		token := be.Uint32(block[at:])
		next := at + 4
		switch token {
		case fdtBeginNode:
			end := bytes.IndexByte(block[next:], 0)
			if end < 0 {
				return nil, nil, cut
			}
			path = append(path, string(block[next:next+end]))
			next += align4(end + 1)
		case fdtEndNode:
			if len(path) == 0 {
				return nil, nil, cut
			}
			path = path[:len(path)-1]
		case fdtProperty:
			if next+8 > len(block) {
				return nil, nil, cut
			}
			size, name := int(be.Uint32(block[next:])), int(be.Uint32(block[next+4:]))
			if size > len(block) || name >= len(names) {
				return nil, nil, cut
			}
			next += 8 + align4(size)
			node := strings.Join(path, "/")
			if value, wanted := status[node]; wanted && bytes.HasPrefix(names[name:], []byte("status\x00")) {
				met[node] = true
				out = be.AppendUint32(out, fdtProperty)
				out = be.AppendUint32(out, uint32(len(value)+1))
				out = be.AppendUint32(out, uint32(name))
				out = append(out, value...)
				out = append(out, make([]byte, align4(len(value)+1)-len(value))...)
				at = next
				continue
			}
		case fdtNop:
		case fdtEnd:
			for node := range status {
				if !met[node] {
					left = append(left, node)
				}
			}
			slices.Sort(left)
			return append(out, block[at:next]...), left, nil
		default:
			return nil, nil, cut
		}
		if next > len(block) {
			return nil, nil, cut
		}
		out = append(out, block[at:next]...)
		at = next
	}
	return nil, nil, cut
}

func align4(n int) int { return (n + 3) &^ 3 }

// relocated returns a 32-bit ARM program that copies the loader to where the firmware of a Raspberry Pi loads it, and starts it there: QEMU
// loads a program elsewhere. The registers that tell the loader of the device tree stay as they are.
func relocated(loader []byte) []byte {
	const (
		base   = 0x10000 // where QEMU loads it
		target = 0x8000  // where the firmware does
	)
	le := binary.LittleEndian
	body := bytes.Clone(loader)
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	out := le.AppendUint32(nil, 0xea000000|uint32(len(body)/4-1)) // branch behind the loader
	out = append(out, body...)
	for _, w := range []uint32{
		0xe59f301c, // ldr r3, source
		0xe59f401c, // ldr r4, target
		0xe59f501c, // ldr r5, end
		0xe4936004, // next: ldr r6, [r3], #4
		0xe4846004, // str r6, [r4], #4
		0xe1530005, // cmp r3, r5
		0x3afffffb, // blo next
		0xe59f4004, // ldr r4, target
		0xe12fff14, // bx r4
		base + 4, target, base + 4 + uint32(len(body)),
	} {
		out = le.AppendUint32(out, w)
	}
	return out
}
