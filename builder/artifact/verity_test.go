package artifact

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/skerryos/skerry/ci/need"
)

// writeVerity makes an image of that many bytes with its tree.
func writeVerity(t *testing.T, size int64, seed string) (string, Verity) {
	t.Helper()
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	v, err := AppendVerity(t.Context(), f, size, seed)
	if err != nil {
		t.Fatal(err)
	}
	return name, v
}

func verify(t *testing.T, tool, name string, v Verity) error {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool, "verify", name, name, v.RootHash, "--hash-offset", strconv.FormatInt(v.DataBlocks*VerityBlock, 10)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestVeritysetupAcceptsTheTree(t *testing.T) {
	tool := need.Tool(t, "veritysetup")
	// One block; one level exactly full, one block more; a last block that is not whole; three levels.
	for _, size := range []int64{VerityBlock, 128 * VerityBlock, 129 * VerityBlock, 1000001, (128*128 + 1) * VerityBlock} {
		t.Run(strconv.FormatInt(size, 10), func(t *testing.T) {
			name, v := writeVerity(t, size, "seed")
			if want := (size + VerityBlock - 1) / VerityBlock; v.DataBlocks != want {
				t.Errorf("%d data blocks, want %d", v.DataBlocks, want)
			}
			if err := verify(t, tool, name, v); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVeritysetupRefusesAChangedByte(t *testing.T) {
	tool := need.Tool(t, "veritysetup")
	name, v := writeVerity(t, 300*VerityBlock, "seed")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[200*VerityBlock+7] ^= 1
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := verify(t, tool, name, v); err == nil {
		t.Error("a changed byte was accepted")
	}
}

func TestVerityDependsOnDataAndSeedOnly(t *testing.T) {
	read := func(seed string) []byte {
		name, _ := writeVerity(t, 5*VerityBlock, seed)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(read("a"), read("a")) {
		t.Error("the same input gave different bytes")
	}
	if bytes.Equal(read("a"), read("b")) {
		t.Error("the seed has no effect")
	}
}
