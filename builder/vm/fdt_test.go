package vm

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// testTree is a device tree with a node /soc that has devices a (okay), b (disabled) and c (without a status).
func testTree() []byte {
	be := binary.BigEndian
	names := []byte("compatible\x00status\x00")
	var block []byte
	begin := func(name string) {
		block = be.AppendUint32(block, fdtBeginNode)
		block = append(block, name...)
		block = append(block, make([]byte, align4(len(name)+1)-len(name))...)
	}
	property := func(name int, value string) {
		block = be.AppendUint32(block, fdtProperty)
		block = be.AppendUint32(block, uint32(len(value)+1))
		block = be.AppendUint32(block, uint32(name))
		block = append(block, value...)
		block = append(block, make([]byte, align4(len(value)+1)-len(value))...)
	}
	end := func() { block = be.AppendUint32(block, fdtEndNode) }
	begin("")
	begin("soc")
	for _, device := range []struct{ name, status string }{{"a@1", "okay"}, {"b@2", "disabled"}, {"c@3", ""}} {
		begin(device.name)
		property(0, "vendor,device")
		if device.status != "" {
			property(11, device.status)
		}
		end()
	}
	end()
	block = be.AppendUint32(block, fdtNop)
	end()
	block = be.AppendUint32(block, fdtEnd)
	tree := make([]byte, 56) // header, and an empty map of reserved memory
	for i, v := range []uint32{fdtMagic, uint32(56 + len(block) + len(names)), 56, uint32(56 + len(block)), 40, 17, 16, 0, uint32(len(names)), uint32(len(block))} {
		be.PutUint32(tree[4*i:], v)
	}
	return append(append(tree, block...), names...)
}

func TestStatusOfDevicesIsChangedAndNothingElse(t *testing.T) {
	tree := testTree()
	same, err := setStatus(tree, map[string]string{"/soc/a@1": "okay"})
	if err != nil || !bytes.Equal(same, tree) {
		t.Errorf("nothing was to be changed, %v:\n%q\n%q", err, same, tree)
	}
	changed, err := setStatus(tree, map[string]string{"/soc/a@1": "disabled", "/soc/b@2": "okay"})
	if err != nil || len(changed) != len(tree) || bytes.Equal(changed, tree) {
		t.Fatalf("%v: %q", err, changed)
	}
	back, err := setStatus(changed, map[string]string{"/soc/a@1": "okay", "/soc/b@2": "disabled"})
	if err != nil || !bytes.Equal(back, tree) {
		t.Errorf("there and back again is not the same, %v:\n%q", err, back)
	}
	longer, err := setStatus(tree, map[string]string{"/soc/a@1": "disabled"})
	if err != nil || len(longer) != len(tree)+4 || binary.BigEndian.Uint32(longer[4:]) != uint32(len(longer)) {
		t.Errorf("%v: %d bytes", err, len(longer))
	}
}

func TestStatusRefuses(t *testing.T) {
	tree := testTree()
	for name, tt := range map[string]struct {
		tree []byte
		node string
		want string
	}{
		"no such node":       {tree, "/soc/d@4", "has no status of /soc/d@4"},
		"node without one":   {tree, "/soc/c@3", "has no status of /soc/c@3"},
		"not a device tree":  {[]byte("no"), "/soc/a@1", "not a device tree"},
		"shorter than said":  {tree[:len(tree)-1], "/soc/a@1", "not a device tree"},
		"damaged structure":  {bytes.Replace(tree, []byte{0, 0, 0, fdtNop}, []byte{0, 0, 0, 7}, 1), "/soc/a@1", "damaged"},
		"without its end":    {bytes.Replace(tree, []byte{0, 0, 0, fdtEnd}, []byte{0, 0, 0, fdtNop}, 1), "/soc/a@1", "damaged"},
		"end of no node":     {bytes.Replace(tree, []byte{0, 0, 0, fdtBeginNode, 0, 0, 0, 0}, []byte{0, 0, 0, fdtEndNode, 0, 0, 0, fdtNop}, 1), "/soc/a@1", "damaged"},
		"property in no box": {bytes.Replace(tree, []byte{0, 0, 0, 14}, []byte{0, 1, 0, 14}, 1), "/soc/a@1", "damaged"},
	} {
		if _, err := setStatus(tt.tree, map[string]string{tt.node: "okay"}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error does not say %q: %v", name, tt.want, err)
		}
	}
}

func TestLoaderOf32BitsIsRelocated(t *testing.T) {
	loader := []byte("u-boot")
	p := relocated(loader)
	le := binary.LittleEndian
	// The branch goes over the loader, which is padded to words: to the word at 4 + 8, which is two words behind the branch's own
	// address plus 8.
	if le.Uint32(p) != 0xea000000|1 || !bytes.Equal(p[4:10], loader) || le.Uint32(p[12:]) != 0xe59f301c {
		t.Errorf("the program is %x", p)
	}
	if source, target, end := le.Uint32(p[len(p)-12:]), le.Uint32(p[len(p)-8:]), le.Uint32(p[len(p)-4:]); source != 0x10004 || target != 0x8000 || end != 0x1000c {
		t.Errorf("it copies from %#x to %#x until %#x", source, target, end)
	}
}
