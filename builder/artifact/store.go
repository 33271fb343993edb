package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// A Store is a folder of artefacts. Each is one file, DIR/KIND/KEY, beside a record DIR/KIND/KEY.json that holds
// the file's digest and what else its maker wants to know about it. The record is written last: a file without
// one does not count.
//
// A Store is used by one process at a time; [Store.Lock] sees to that.
type Store struct {
	dir string
}

// OpenStore opens the store in dir, and makes the folder if there is none.
func OpenStore(dir string) (*Store, error) {
	// Absolute, because tools that write into it run in other folders.
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open artefact store: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Dir returns the path of a folder of the store that its user fills as it likes, made if there is none.
func (s *Store) Dir(name string) (string, error) {
	d := filepath.Join(s.dir, name)
	if err := os.MkdirAll(d, 0o755); err != nil {
		return "", fmt.Errorf("cannot make folder in artefact store: %w", err)
	}
	return d, nil
}

// An Artifact is a file of the store.
type Artifact struct {
	Path   string
	SHA256 string
	Bytes  int64
	// Reused tells that it was found, and not made by this call.
	Reused bool
}

// Content returns the artefact as the content of a file.
func (a Artifact) Content() Content {
	return Content{SHA256: a.SHA256, Bytes: a.Bytes, path: a.Path}
}

// record is what KEY.json holds.
type record struct {
	SHA256 string          `json:"sha256"`
	Bytes  int64           `json:"bytes"`
	Meta   json.RawMessage `json:"meta,omitempty"`
	// MetaSHA256 guards Meta as SHA256 guards the file.
	MetaSHA256 string `json:"metaSha256"`
}

// Key returns the digest of inputs, which must encode to JSON the same way each time.
func Key(inputs ...any) (string, error) {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(inputs); err != nil {
		return "", fmt.Errorf("cannot digest the inputs of an artefact: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Make returns the artefact of that kind and key, and what its maker said about it. When the store does not hold
// it undamaged, fill writes it. Nothing is left under the final name when fill fails or ctx is done.
func Make[M any](ctx context.Context, s *Store, kind, key string, fill func(ctx context.Context, f *os.File) (M, error)) (Artifact, M, error) {
	var meta M
	dir, err := s.Dir(kind)
	if err != nil {
		return Artifact{}, meta, err
	}
	name := filepath.Join(dir, key)
	if a, err := s.read(ctx, name, &meta); err == nil {
		return a, meta, nil
	} else if ctx.Err() != nil {
		return Artifact{}, meta, ctx.Err()
	}

	// Not there, or not what the record says: either way it is made anew, under a name that does not count.
	_ = os.Remove(name + ".json")
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(dir), renameio.WithPermissions(0o644))
	if err != nil {
		return Artifact{}, meta, fmt.Errorf("cannot make %s: %w", kind, err)
	}
	defer f.Cleanup() // without effect once the file has its name
	if meta, err = fill(ctx, f.File); err != nil {
		return Artifact{}, meta, err
	}
	if err := ctx.Err(); err != nil {
		return Artifact{}, meta, err
	}
	rec := record{}
	if rec.SHA256, rec.Bytes, err = digestOf(ctx, f.File); err != nil {
		return Artifact{}, meta, fmt.Errorf("cannot read back %s: %w", kind, err)
	}
	if rec.Meta, err = json.Marshal(meta); err != nil {
		return Artifact{}, meta, fmt.Errorf("cannot encode what is known about %s: %w", kind, err)
	}
	sum := sha256.Sum256(rec.Meta)
	rec.MetaSHA256 = hex.EncodeToString(sum[:])
	line, err := json.Marshal(rec)
	if err != nil {
		return Artifact{}, meta, fmt.Errorf("cannot encode the record of %s: %w", kind, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return Artifact{}, meta, fmt.Errorf("cannot keep %s: %w", kind, err)
	}
	if err := renameio.WriteFile(name+".json", line, 0o644, renameio.WithTempDir(dir)); err != nil {
		return Artifact{}, meta, fmt.Errorf("cannot keep the record of %s: %w", kind, err)
	}
	return Artifact{Path: name, SHA256: rec.SHA256, Bytes: rec.Bytes}, meta, nil
}

// read verifies an artefact against its record.
func (s *Store) read(ctx context.Context, name string, meta any) (Artifact, error) {
	line, err := os.ReadFile(name + ".json")
	if err != nil {
		return Artifact{}, err
	}
	var rec record
	if err := json.Unmarshal(line, &rec); err != nil {
		return Artifact{}, err
	}
	if sum := sha256.Sum256(rec.Meta); hex.EncodeToString(sum[:]) != rec.MetaSHA256 {
		return Artifact{}, errors.New("record is damaged")
	}
	f, err := os.Open(name)
	if err != nil {
		return Artifact{}, err
	}
	defer f.Close()
	sum, n, err := digestOf(ctx, f)
	if err != nil {
		return Artifact{}, err
	}
	if sum != rec.SHA256 || n != rec.Bytes {
		return Artifact{}, errors.New("file is damaged")
	}
	if err := json.Unmarshal(rec.Meta, meta); err != nil {
		return Artifact{}, err
	}
	now := time.Now() // for Prune, which keeps what was used last
	_ = os.Chtimes(name+".json", now, now)
	return Artifact{Path: name, SHA256: sum, Bytes: n, Reused: true}, nil
}

// Prune removes all artefacts of a kind but the keep that were used last, and what interrupted calls left behind.
func (s *Store) Prune(kind string, keep int) error {
	dir := filepath.Join(s.dir, kind)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot prune artefact store: %w", err)
	}
	used := map[string]time.Time{}
	for _, e := range entries {
		if base, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			if info, err := e.Info(); err == nil {
				used[base] = info.ModTime()
			}
		}
	}
	names := make([]string, 0, len(used))
	for n := range used {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool {
		if !used[names[i]].Equal(used[names[j]]) {
			return used[names[i]].After(used[names[j]])
		}
		return names[i] < names[j]
	})
	kept := map[string]bool{}
	for i, n := range names {
		if i < keep {
			kept[n], kept[n+".json"] = true, true
		}
	}
	for _, e := range entries {
		if kept[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("cannot prune artefact store: %w", err)
		}
	}
	return nil
}

// digestOf reads f from its start.
func digestOf(ctx context.Context, f io.ReadSeeker) (string, int64, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", 0, err
	}
	h := sha256.New()
	n, err := Copy(ctx, h, f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// Copy copies until the end of r, and stops early with ctx's error when ctx is done.
func Copy(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	buf := make([]byte, 1<<20)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
