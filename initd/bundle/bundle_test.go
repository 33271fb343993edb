package bundle

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"

	"github.com/skerryos/skerry/ci/need"
)

// A signer is a key that is the same in every run.
type signer struct {
	public  PublicKey
	private minisign.PrivateKey
}

func newSigner(seed byte) signer {
	// 32 bytes of seed, as ed25519 takes them.
	public, private, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		panic(err)
	}
	return signer{public, private}
}

func (s signer) sign(manifest []byte) ([]byte, error) {
	r := minisign.NewReader(bytes.NewReader(manifest))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return r.SignWithComments(s.private, "test", "test"), nil
}

var owner, stranger = newSigner(1), newSigner(2)

const testChunk = 1024

// testSources are a root with every encoding, and two alike boot artefacts that differ in one byte of their first chunk.
func testSources() []Source {
	random := rand.NewChaCha8([32]byte{})
	noise := func(n int) []byte {
		b := make([]byte, n)
		_, _ = random.Read(b) // never fails
		return b
	}
	root := bytes.Join([][]byte{bytes.Repeat([]byte("text "), 500), make([]byte, 2*testChunk), noise(3000), []byte("end")}, nil)
	bootA := append([]byte("slot=a "), noise(3*testChunk)...)
	bootB := bytes.Replace(bootA, []byte("slot=a"), []byte("slot=b"), 1)
	source := func(name string, b []byte) Source {
		return Source{Name: name, Size: int64(len(b)), Content: bytes.NewReader(b), ChunkSize: testChunk}
	}
	sources := []Source{source("root", root), source("boot-a", bootA), source("boot-b", bootB)}
	sources[2].Alike = true
	return sources
}

func testManifest() Manifest {
	return Manifest{Board: "x86-64", Architecture: "amd64", Version: "1.2.3-rc.1", Floor: 7, Created: 1763999999,
		Keys: KeyChange{Add: []string{stranger.public.String()}, Retire: []string{"00000000DEADBEEF"}}}
}

func create(t testing.TB) ([]byte, *Manifest) {
	t.Helper()
	var b bytes.Buffer
	m, err := Create(&b, testManifest(), testSources(), owner.sign)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), m
}

// drain reads from the reader's next chunk to the end, and checks that nothing is handed out that is not right.
func drain(t testing.TB, r *Reader) (chunks [][]byte, err error) {
	t.Helper()
	for {
		i, plain, err := r.Next()
		if err != nil {
			return chunks, err
		}
		if sum(plain) != r.Manifest().Chunks[i].SHA256 {
			t.Fatalf("chunk %d was handed out with a wrong sum", i)
		}
		chunks = append(chunks, bytes.Clone(plain))
	}
}

func content(t *testing.T, s Source) []byte {
	t.Helper()
	b := make([]byte, s.Size)
	if _, err := s.Content.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	stream, made := create(t)
	r, err := Open(bytes.NewReader(stream), []PublicKey{stranger.public, owner.public})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Manifest()
	if m.Version != "1.2.3-rc.1" || m.Floor != 7 || m.Created != 1763999999 || r.Signer() != KeyID(owner.public) {
		t.Errorf("manifest is %+v, signed with %s", m, r.Signer())
	}
	if m.Size() != int64(len(stream)) || made.Size() != m.Size() {
		t.Errorf("size is said to be %d when created and %d when read, is %d", made.Size(), m.Size(), len(stream))
	}
	chunks, err := drain(t, r)
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for _, s := range testSources() {
		var got []byte
		for _, i := range m.Artefact(s.Name).Chunks {
			for _, p := range m.Places(i) {
				if p.Artefact == s.Name && p.Offset != int64(len(got)) {
					t.Errorf("chunk %d of %s is said to be at %d, is at %d", i, s.Name, p.Offset, len(got))
				}
			}
			got = append(got, chunks[i]...)
		}
		if !bytes.Equal(got, content(t, s)) {
			t.Errorf("artefact %s came back as other bytes", s.Name)
		}
	}
	encodings := map[Encoding]int{}
	for _, c := range m.Chunks {
		encodings[c.Encoding]++
	}
	// The boot artefacts share all chunks but one.
	if a, b := m.Artefact("boot-a").Chunks, m.Artefact("boot-b").Chunks; a[0]+1 != b[0] || fmt.Sprint(a[1:]) != fmt.Sprint(b[1:]) {
		t.Errorf("chunks of boot-a are %v, of boot-b %v", a, b)
	}
	if encodings[Zero] == 0 || encodings[None] == 0 || encodings[Zstd] == 0 {
		t.Errorf("encodings are %v: one of them was not tried", encodings)
	}
	if m.Artefact("nothing") != nil {
		t.Error("there is an artefact that is not there")
	}
}

func TestCreateTwice(t *testing.T) {
	first, _ := create(t)
	second, _ := create(t)
	if !bytes.Equal(first, second) {
		t.Error("the same sources gave other bytes")
	}
}

func TestVerify(t *testing.T) {
	stream, _ := create(t)
	r, err := Open(bytes.NewReader(stream), []PublicKey{owner.public})
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(r); err != nil {
		t.Error(err)
	}
	// A signer's mistake: right chunks, but another sum of the whole.
	wrong := reseal(t, stream, func(s string) string {
		m, err := parseManifest([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Replace(s, m.Artefacts[1].SHA256, strings.Repeat("0", 64), 1)
	})
	if r, err = Open(bytes.NewReader(wrong), []PublicKey{owner.public}); err != nil {
		t.Fatal(err)
	}
	if err := Verify(r); err == nil || !strings.Contains(err.Error(), "artefact boot-a") {
		t.Errorf("a wrong sum of an artefact: %v", err)
	}
}

// split returns manifest, signature and chunks of a bundle.
func split(stream []byte) (manifest, signature, chunks []byte) {
	rest := stream[len(magic):]
	n := binary.BigEndian.Uint32(rest)
	manifest, rest = rest[4:][:n], rest[4+n:]
	n = binary.BigEndian.Uint32(rest)
	return manifest, rest[4:][:n], rest[4+n:]
}

func join(manifest, signature, chunks []byte) []byte {
	b := []byte(magic)
	for _, p := range [][]byte{manifest, signature} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return append(b, chunks...)
}

// reseal changes the manifest and signs it with a trusted key: a mistake of whoever signs.
func reseal(t testing.TB, stream []byte, change func(string) string) []byte {
	t.Helper()
	manifest, _, chunks := split(stream)
	changed := change(string(manifest))
	if changed == string(manifest) {
		t.Fatal("the manifest was not changed")
	}
	signature, err := owner.sign([]byte(changed))
	if err != nil {
		t.Fatal(err)
	}
	return join([]byte(changed), signature, chunks)
}

// TestRefusedBeforeAChunk holds what must be refused by Open, so before there is a chunk at all.
func TestRefusedBeforeAChunk(t *testing.T) {
	stream, made := create(t)
	manifest, signature, chunks := split(stream)
	replace := func(old, with string) func() []byte {
		return func() []byte {
			return reseal(t, stream, func(m string) string { return strings.Replace(m, old, with, 1) })
		}
	}
	legacy := minisign.SignWithComments(owner.private, manifest, "test", "test")
	foreign, err := stranger.sign(manifest)
	if err != nil {
		t.Fatal(err)
	}
	// The stranger's signature under the owner's name.
	var stolen minisign.Signature
	if err := stolen.UnmarshalText(foreign); err != nil {
		t.Fatal(err)
	}
	stolen.KeyID = owner.public.ID()
	commented := bytes.Replace(signature, []byte("\ntrusted comment: test"), []byte("\ntrusted comment: best"), 1)
	first := made.Chunks[0]
	firstChunk := fmt.Sprintf(`{"size":%d,"stored":%d,"sha256":"%s","encoding":"zstd"}`, first.Size, first.Stored, first.SHA256)
	rootChunks := `"chunks":[0,1,2,`

	for _, tt := range []struct {
		name   string
		stream func() []byte
		want   string
	}{
		{"empty stream", func() []byte { return nil }, "unexpected EOF"},
		{"another kind of file", func() []byte { return []byte("PK\x03\x04 and more of it") }, "not a bundle"},
		{"format of the future", func() []byte { return append([]byte("SKERRYB2"), stream[8:]...) }, `format '2'`},
		{"no manifest", func() []byte { return join(nil, signature, chunks) }, "manifest of 0 bytes"},
		{"manifest too large", func() []byte { return append([]byte(magic), 0, 0x40, 0, 1) }, "manifest of 4194305 bytes"},
		{"manifest as large as can be said", func() []byte { return append([]byte(magic), 0xff, 0xff, 0xff, 0xff) }, "manifest of 4294967295 bytes"},
		{"no signature", func() []byte { return join(manifest, nil, chunks) }, "signature of 0 bytes"},
		{"signature too large", func() []byte { return join(manifest, make([]byte, MaxSignature+1), chunks) }, "signature of 4097 bytes"},
		{"signature of another kind", func() []byte { return join(manifest, []byte("-----BEGIN PGP SIGNATURE-----"), chunks) }, "not one of minisign"},
		{"signature of the legacy kind", func() []byte { return join(manifest, legacy, chunks) }, "legacy"},
		{"signature of a stranger", func() []byte { return join(manifest, foreign, chunks) }, "not trusted"},
		{"signature of a stranger in another's name", func() []byte { return join(manifest, []byte(stolen.String()), chunks) }, "damaged or tampered"},
		{"signature with another comment", func() []byte { return join(manifest, commented, chunks) }, "damaged or tampered"},
		{"signed manifest of another bundle", func() []byte {
			return join(bytes.Replace(manifest, []byte(`"floor":7`), []byte(`"floor":8`), 1), signature, chunks)
		}, "damaged or tampered"},

		// From here on the manifest is signed by a trusted key.
		{"not JSON", replace(`{"format"`, `["format"`), "manifest"},
		{"unknown field", replace(`"board"`, `"colour":"red","board"`), `unknown field "colour"`},
		{"unknown field of a chunk", replace(`"encoding"`, `"path":"/etc","encoding"`), `unknown field "path"`},
		{"field given twice", replace(`"board":"x86-64"`, `"board":"other","board":"x86-64"`), "one form"},
		{"field in other letters", replace(`"board"`, `"Board"`), "one form"},
		{"field left out", replace(`"floor":7,`, ``), "one form"},
		{"white space", replace(`"board":`, `"board": `), "one form"},
		{"two manifests", replace(`"keys":`, `"keys":{}}{"keys":`), "follows the manifest"},
		{"other format", replace(`"format":1`, `"format":2`), "format 2"},
		{"board that is a path", replace(`"board":"x86-64"`, `"board":"../x"`), "board"},
		{"no architecture", replace(`"architecture":"amd64"`, `"architecture":""`), "architecture"},
		{"version with a line break", replace(`1.2.3-rc.1`, `1.2.3\n`), "version"},
		{"negative floor", replace(`"floor":7`, `"floor":-7`), "floor"},
		{"floor that JSON does not keep", replace(`"floor":7`, `"floor":9007199254740992`), "floor"},
		{"floor beyond all numbers", replace(`"floor":7`, `"floor":18446744073709551616`), "floor"},
		{"created before there was time", replace(`"created":1`, `"created":-1`), "before 1970"},
		{"artefact listed twice", replace(`"name":"boot-b"`, `"name":"boot-a"`), "listed twice"},
		{"artefact that is a path", replace(`"name":"boot-b"`, `"name":"/boot/b"`), "artefact"},
		{"artefact without a sum", replace(made.Artefacts[0].SHA256, ""), "SHA-256"},
		{"artefact with another size", replace(fmt.Sprintf(`"size":%d`, made.Artefacts[0].Size), `"size":1`), "its chunks have"},
		{"artefact with a negative size", replace(fmt.Sprintf(`"size":%d`, made.Artefacts[0].Size), `"size":-1`), "its chunks have"},
		{"artefact with a size beyond all numbers", replace(fmt.Sprintf(`"size":%d`, made.Artefacts[0].Size), `"size":9223372036854775808`), "manifest"},
		{"chunk out of range", replace(rootChunks, `"chunks":[0,1,99,`), "chunk 99"},
		{"negative chunk", replace(rootChunks, `"chunks":[-1,1,2,`), "chunk -1"},
		{"chunk that is not a number", replace(rootChunks, `"chunks":["0",1,2,`), "manifest"},
		{"chunk twice", replace(rootChunks, `"chunks":[0,0,2,`), "ascend"},
		{"chunks backwards", replace(rootChunks, `"chunks":[1,0,2,`), "ascend"},
		{"chunk of no artefact", func() []byte {
			return reseal(t, stream, func(m string) string {
				m = strings.Replace(m, rootChunks, `"chunks":[1,2,`, 1)
				return strings.Replace(m, fmt.Sprintf(`"size":%d`, made.Artefacts[0].Size), fmt.Sprintf(`"size":%d`, made.Artefacts[0].Size-testChunk), 1)
			})
		}, "no artefact"},
		{"boot before root", func() []byte {
			return reseal(t, stream, func(m string) string {
				return strings.NewReplacer(`"name":"root"`, `"name":"boot-a"`, `"name":"boot-a"`, `"name":"root"`).Replace(m)
			})
		}, "comes before the last one"},
		{"chunk without bytes", replace(firstChunk, strings.Replace(firstChunk, `"size":1024`, `"size":0`, 1)), "chunk 0: 0 bytes"},
		{"chunk too large", replace(firstChunk, strings.Replace(firstChunk, `"size":1024`, `"size":16777217`, 1)), "chunk 0: 16777217 bytes"},
		{"chunk as large as can be said", replace(firstChunk, strings.Replace(firstChunk, `"size":1024`, `"size":9223372036854775807`, 1)), "chunk 0: 9223372036854775807 bytes"},
		{"chunk that is stored larger than it is", replace(firstChunk, strings.Replace(firstChunk, fmt.Sprintf(`"stored":%d`, first.Stored), `"stored":1024`, 1)), "chunk 0"},
		{"chunk that is stored in less than nothing", replace(firstChunk, strings.Replace(firstChunk, fmt.Sprintf(`"stored":%d`, first.Stored), `"stored":-1`, 1)), "chunk 0"},
		{"zeros that take room", replace(firstChunk, strings.Replace(firstChunk, `"zstd"`, `"zero"`, 1)), "encoding zero"},
		{"plain chunk of another size", replace(firstChunk, strings.Replace(firstChunk, `"zstd"`, `"none"`, 1)), "encoding none"},
		{"encoding of the future", replace(firstChunk, strings.Replace(firstChunk, `"zstd"`, `"lzma"`, 1)), `encoding "lzma"`},
		{"chunk without a sum", replace(first.SHA256, "x"), "SHA-256"},
		{"key to add that is none", replace(stranger.public.String(), "RWQx"), "key 0 to add"},
		{"key to add with a comment", replace(`"add":["`, `"add":["untrusted comment: x\n`), "key 0 to add"},
		{"key to add twice", replace(`"add":["`, `"add":["`+stranger.public.String()+`","`), "added twice"},
		{"key to add and to retire", replace("00000000DEADBEEF", KeyID(stranger.public)), "added and retired"},
		{"key to retire that is none", replace("00000000DEADBEEF", "deadbeef"), "to retire"},
		{"too many keys to retire", replace(`"00000000DEADBEEF"`, strings.Repeat(`"00000000DEADBEEF",`, MaxKeys)+`"00000000DEADBEEF"`), "allowed are 16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Open(bytes.NewReader(tt.stream()), []PublicKey{owner.public})
			if err == nil {
				t.Fatal("opened")
			}
			if r != nil {
				t.Error("there is a reader beside the error")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error does not say %q: %v", tt.want, err)
			}
		})
	}
}

func TestNobodyTrusted(t *testing.T) {
	stream, _ := create(t)
	if _, err := Open(bytes.NewReader(stream), nil); err == nil || !strings.Contains(err.Error(), "no key is trusted") {
		t.Errorf("without keys: %v", err)
	}
}

// TestTamperedChunks changes each byte behind the header in turn: what is handed out before the error is right (drain checks
// it), and the damaged chunk never is.
func TestTamperedChunks(t *testing.T) {
	stream, m := create(t)
	r, err := Open(bytes.NewReader(stream), []PublicKey{owner.public})
	if err != nil {
		t.Fatal(err)
	}
	for at := m.Offset(0); at < m.Size(); at++ {
		damaged := bytes.Clone(stream[m.Offset(0):])
		damaged[at-m.Offset(0)] ^= 0x10
		if err := r.Resume(0, bytes.NewReader(damaged)); err != nil {
			t.Fatal(err)
		}
		chunks, err := drain(t, r)
		if errors.Is(err, io.EOF) {
			// The one change that does no harm: a bit of a Zstandard frame that does not matter. All sums were right.
			continue
		}
		if next := m.Offset(len(chunks)); at < next {
			t.Fatalf("byte %d was changed, but the chunk that ends at %d was handed out", at, next)
		}
		if again, plain, second := r.Next(); second == nil || second.Error() != err.Error() || plain != nil || again != 0 {
			t.Fatalf("after the error came chunk %d, %v", again, second)
		}
	}
	for name, tail := range map[string][]byte{"a byte": {0}, "another bundle": stream} {
		r, err := Open(bytes.NewReader(append(bytes.Clone(stream), tail...)), []PublicKey{owner.public})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := drain(t, r); err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "follows its last chunk") {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
}

// TestChunkThatUnpacksToMore holds a frame that would be as large as it likes against the size of its chunk.
func TestChunkThatUnpacksToMore(t *testing.T) {
	w, err := newWorker()
	if err != nil {
		t.Fatal(err)
	}
	bomb := w.encoder.EncodeAll(make([]byte, 8<<20), nil)
	for name, size := range map[string]int64{"more": 2000, "less": 9 << 20} {
		c := Chunk{Size: size, Stored: int64(len(bomb)), Encoding: Zstd, SHA256: strings.Repeat("0", 64)}
		r := &Reader{manifest: &Manifest{Chunks: []Chunk{c}}, r: bytes.NewReader(bomb)}
		r.manifest.place(0)
		if _, _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "unpack") {
			t.Errorf("a frame of %s than its chunk: %v", name, err)
		}
	}
}

// TestTruncated ends the stream at every byte.
func TestTruncated(t *testing.T) {
	stream, m := create(t)
	for n := range m.Offset(0) {
		if _, err := Open(bytes.NewReader(stream[:n]), []PublicKey{owner.public}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	r, err := Open(bytes.NewReader(stream), []PublicKey{owner.public})
	if err != nil {
		t.Fatal(err)
	}
	for n := m.Offset(0); n < m.Size(); n++ {
		if err := r.Resume(0, bytes.NewReader(stream[m.Offset(0):n])); err != nil {
			t.Fatal(err)
		}
		got, err := drain(t, r)
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		want := 0
		for want < len(m.Chunks) && m.Offset(want+1) <= n {
			want++
		}
		if len(got) != want {
			t.Fatalf("after %d bytes: %d chunks, want %d", n, len(got), want)
		}
	}
}

func TestResume(t *testing.T) {
	stream, m := create(t)
	whole, err := Open(bytes.NewReader(stream), []PublicKey{owner.public})
	if err != nil {
		t.Fatal(err)
	}
	want, err := drain(t, whole)
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for at := range len(m.Chunks) + 1 {
		// What a device keeps is the header; the stream was cut in the middle of a chunk.
		r, err := Open(bytes.NewReader(whole.Header()), []PublicKey{owner.public})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("the header alone has a chunk: %v", err)
		}
		if err := r.Resume(at, bytes.NewReader(stream[m.Offset(at):])); err != nil {
			t.Fatal(err)
		}
		got, err := drain(t, r)
		if !errors.Is(err, io.EOF) || !equal(got, want[at:]) {
			t.Errorf("resumed at chunk %d: %d chunks, %v", at, len(got), err)
		}

		// The same by passing over what is there already.
		if r, err = Open(bytes.NewReader(stream), []PublicKey{owner.public}); err != nil {
			t.Fatal(err)
		}
		if err := r.SkipTo(at); err != nil {
			t.Fatal(err)
		}
		got, err = drain(t, r)
		if !errors.Is(err, io.EOF) || !equal(got, want[at:]) {
			t.Errorf("skipped to chunk %d: %d chunks, %v", at, len(got), err)
		}
	}
	for _, at := range []int{-1, len(m.Chunks) + 1} {
		if whole.Resume(at, nil) == nil || whole.SkipTo(at) == nil {
			t.Errorf("resumed at chunk %d", at)
		}
	}
	// At the wrong place of the stream the sums are wrong.
	if err := whole.Resume(1, bytes.NewReader(stream[m.Offset(0):])); err != nil {
		t.Fatal(err)
	}
	if _, _, err := whole.Next(); err == nil {
		t.Error("a stream at the wrong place was accepted")
	}
	cut, err := Open(bytes.NewReader(stream[:m.Offset(1)+1]), []PublicKey{owner.public})
	if err != nil {
		t.Fatal(err)
	}
	if err := cut.SkipTo(len(m.Chunks)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("skipped over what is not there: %v", err)
	}
}

func equal(a, b [][]byte) bool {
	return len(a) == len(b) && bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil))
}

func TestCreateRefuses(t *testing.T) {
	failing := errors.New("no key today")
	for _, tt := range []struct {
		name   string
		change func(*Manifest, []Source) []Source
		sign   func([]byte) ([]byte, error)
		want   string
	}{
		{"nothing", func(*Manifest, []Source) []Source { return nil }, owner.sign, "0 chunks"},
		{"empty artefact", func(_ *Manifest, s []Source) []Source { s[1].Size = 0; return s }, owner.sign, "boot-a has no chunks"},
		{"artefact shorter than said", func(_ *Manifest, s []Source) []Source { s[0].Size += 9; return s }, owner.sign, "cannot read artefact root"},
		{"chunk size too large", func(_ *Manifest, s []Source) []Source { s[0].ChunkSize = MaxChunk + 1; return s }, owner.sign, "in chunks of"},
		{"too many chunks", func(_ *Manifest, s []Source) []Source { s[0].ChunkSize, s[0].Size = 1, 1<<40; return s }, owner.sign, "more than 16384 chunks"},
		{"two of a name", func(_ *Manifest, s []Source) []Source { s[2].Name = "boot-a"; return s }, owner.sign, "listed twice"},
		{"root last", func(_ *Manifest, s []Source) []Source { return []Source{s[1], s[0]} }, owner.sign, "comes before"},
		{"no board", func(m *Manifest, s []Source) []Source { m.Board = ""; return s }, owner.sign, "board"},
		{"no signature", func(_ *Manifest, s []Source) []Source { return s }, func([]byte) ([]byte, error) { return nil, failing }, failing.Error()},
		{"huge signature", func(_ *Manifest, s []Source) []Source { return s }, func([]byte) ([]byte, error) { return make([]byte, 5000), nil }, "signature of 5000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := testManifest()
			sources := tt.change(&m, testSources())
			var out bytes.Buffer
			_, err := Create(&out, m, sources, tt.sign)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error does not say %q: %v", tt.want, err)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written", out.Len())
			}
		})
	}
}

// TestPublicTool has the public minisign tool check what Signed returns.
func TestPublicTool(t *testing.T) {
	tool := need.Tool(t, "minisign")
	stream, _ := create(t)
	r, err := Open(bytes.NewReader(stream), []PublicKey{owner.public})
	if err != nil {
		t.Fatal(err)
	}
	manifest, signature := r.Signed()
	file := filepath.Join(t.TempDir(), "manifest.json")
	for name, data := range map[string][]byte{file: manifest, file + ".minisig": signature} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), tool, "-V", "-P", owner.public.String(), "-m", file).CombinedOutput(); err != nil {
		t.Errorf("minisign: %v\n%s", err, out)
	}
	if err := os.WriteFile(file, append(manifest, ' '), 0o600); err != nil {
		t.Fatal(err)
	}
	if exec.CommandContext(t.Context(), tool, "-V", "-P", owner.public.String(), "-m", file).Run() == nil {
		t.Error("minisign accepts a changed manifest")
	}
}

// TestMemoryIsTakenOnce reads a bundle of many chunks: what is allocated depends on the largest chunk, not on their number.
func TestMemoryIsTakenOnce(t *testing.T) {
	const chunk = 1 << 16
	data := bytes.Repeat([]byte("all work and no play "), 64*chunk/21)
	var b bytes.Buffer
	source := Source{Name: "root", Size: int64(len(data)), Content: bytes.NewReader(data), ChunkSize: chunk}
	if _, err := Create(&b, testManifest(), []Source{source}, owner.sign); err != nil {
		t.Fatal(err)
	}
	r, err := Open(bytes.NewReader(b.Bytes()), []PublicKey{owner.public})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Next(); err != nil { // the buffers, and the decoder's tables
		t.Fatal(err)
	}
	perChunk := testing.AllocsPerRun(50, func() {
		if _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	})
	// The sum in hexadecimal, and what the decoder needs for a frame: a handful, of a few hundred bytes.
	if perChunk > 16 {
		t.Errorf("%v allocations for each chunk", perChunk)
	}
	if int64(cap(r.plain)) != chunk || int64(cap(r.stored)) >= chunk {
		t.Errorf("buffers of %d and %d bytes for chunks of %d", cap(r.plain), cap(r.stored), chunk)
	}
}

// BenchmarkNext reads chunks of the largest size; its bytes per operation are what the garbage collector sees of each.
func BenchmarkNext(b *testing.B) {
	data := make([]byte, 4*MaxChunk)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(random.NormFloat64() * 20)
	}
	var stream bytes.Buffer
	m, err := Create(&stream, testManifest(), []Source{{Name: "root", Size: int64(len(data)), Content: bytes.NewReader(data)}}, owner.sign)
	if err != nil {
		b.Fatal(err)
	}
	r, err := Open(bytes.NewReader(stream.Bytes()), []PublicKey{owner.public})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(MaxChunk)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Resume(0, bytes.NewReader(stream.Bytes()[m.Offset(0):])); err != nil {
			b.Fatal(err)
		}
		if _, _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzOpen reads arbitrary streams. The first argument is the whole stream as anybody could send it; the second is a
// manifest that is taken as signed, which is how the code behind the signature is reached, with the third as its chunks.
func FuzzOpen(f *testing.F) {
	stream, m := create(f)
	manifest, signature, chunks := split(stream)
	f.Add(stream, manifest, chunks)
	f.Add(stream[:m.Offset(1)], manifest, chunks[:3])
	f.Add([]byte(magic), []byte(`{"format":1}`), []byte{})
	f.Add(append([]byte(magic), 0xff, 0xff, 0xff, 0xff), []byte(`{}`), []byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Add(join(manifest, make([]byte, 10), nil), bytes.ReplaceAll(manifest, []byte(`"zstd"`), []byte(`"none"`)), chunks)
	zeros := sum(make([]byte, 5))
	small := `{"format":1,"board":"b","architecture":"a","version":"1","floor":0,"created":0,"artefacts":[{"name":"root","size":5,"sha256":"` +
		zeros + `","chunks":[0]}],"chunks":[{"size":5,"stored":0,"sha256":"` + zeros + `","encoding":"zero"}],"keys":{}}`
	f.Add([]byte{}, []byte(small), []byte{})
	zstdFrame, err := hex.DecodeString("28b52ffd0405290000")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte(strings.ReplaceAll(small, `"stored":0,`, `"stored":4,`)), zstdFrame)

	keys := []PublicKey{owner.public}
	f.Fuzz(func(t *testing.T, stream, manifest, chunks []byte) {
		if r, err := Open(bytes.NewReader(stream), keys); err == nil {
			got, _ := r.Signed()
			if sum(got) != sum(bytes.TrimSpace(got)) {
				t.Error("a signed manifest that is not in the one form")
			}
			_, _ = drain(t, r) // it may end with any error; drain fails if a wrong chunk is handed out
		}
		taken := func([]byte, []byte) (string, error) { return "", nil }
		r, err := open(bytes.NewReader(join(manifest, signature, chunks)), taken)
		if err != nil {
			return
		}
		form, err := r.Manifest().encode()
		if err != nil || !bytes.Equal(form, manifest) {
			t.Errorf("accepted a manifest that is not in the one form: %v", err)
		}
		got, err := drain(t, r)
		if int64(cap(r.plain)) > MaxChunk || int64(cap(r.stored)) > MaxChunk {
			t.Errorf("buffers of %d and %d bytes", cap(r.plain), cap(r.stored))
		}
		if whole := errors.Is(err, io.EOF); whole != (len(got) == len(r.Manifest().Chunks) && r.Manifest().Size() == int64(len(join(manifest, signature, chunks)))) {
			t.Errorf("%d of %d chunks, and then %v", len(got), len(r.Manifest().Chunks), err)
		}
	})
}
