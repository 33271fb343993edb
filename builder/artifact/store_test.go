package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// makeText makes an artefact "text" and counts how often it really was made.
func makeText(t *testing.T, s *Store, made *int) (Artifact, string) {
	t.Helper()
	a, meta, err := Make(t.Context(), s, "text", "key", func(_ context.Context, f *os.File) (string, error) {
		*made++
		_, err := io.WriteString(f, "content")
		return "about", err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, meta
}

func TestStoreMakesAnewWhatIsNotWhatItWas(t *testing.T) {
	overwrite := func(text string) func(string) error {
		return func(name string) error { return os.WriteFile(name, []byte(text), 0o644) }
	}
	for _, tt := range []struct {
		name   string
		damage func(file string) error
		made   int
	}{
		{"untouched", func(string) error { return nil }, 1},
		{"another content of the same length", overwrite("CONTENT"), 2},
		{"cut off", overwrite("cont"), 2},
		{"file gone", os.Remove, 2},
		{"record gone", func(f string) error { return os.Remove(f + ".json") }, 2},
		{"record is no JSON", func(f string) error { return overwrite("{")(f + ".json") }, 2},
		{"record lies about its metadata", func(f string) error {
			b, err := os.ReadFile(f + ".json")
			if err != nil {
				return err
			}
			return overwrite(strings.Replace(string(b), "about", "abort", 1))(f + ".json")
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, made := openStore(t), 0
			first, _ := makeText(t, s, &made)
			if first.Reused {
				t.Error("the first call says that it made nothing")
			}
			if err := tt.damage(first.Path); err != nil {
				t.Fatal(err)
			}
			second, meta := makeText(t, s, &made)
			b, err := os.ReadFile(second.Path)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s %s made %d reused %v", b, meta, made, second.Reused)
			if want := fmt.Sprintf("content about made %d reused %v", tt.made, tt.made == 1); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if second.SHA256 != first.SHA256 || second.Bytes != 7 {
				t.Errorf("artefact is %+v, first was %+v", second, first)
			}
		})
	}
}

func TestStoreKeepsNothingOfAFailure(t *testing.T) {
	s := openStore(t)
	boom := errors.New("boom")
	ctx, cancel := context.WithCancel(t.Context())
	for name, fill := range map[string]func(context.Context, *os.File) (int, error){
		"error": func(_ context.Context, f *os.File) (int, error) {
			_, _ = io.WriteString(f, "half")
			return 0, boom
		},
		"cancelled": func(_ context.Context, f *os.File) (int, error) {
			cancel()
			_, err := io.WriteString(f, "half")
			return 0, err
		},
	} {
		if _, _, err := Make(ctx, s, "text", name, fill); !errors.Is(err, boom) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	left, err := os.ReadDir(filepath.Join(s.dir, "text"))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPruneKeepsWhatWasUsedLast(t *testing.T) {
	s := openStore(t)
	for i, key := range []string{"old", "used", "new"} {
		a, _, err := Make(t.Context(), s, "root", key, func(_ context.Context, f *os.File) (int, error) { return 0, nil })
		if err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(1000+i), 0)
		if key == "used" {
			when = time.Unix(5000, 0)
		}
		if err := os.Chtimes(a.Path+".json", when, when); err != nil {
			t.Fatal(err)
		}
	}
	// What an interrupted build leaves.
	if err := os.WriteFile(filepath.Join(s.dir, "root", ".new123"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune("root", 2); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := "new new.json used used.json"; strings.Join(got, " ") != want {
		t.Errorf("left are %v, want %s", got, want)
	}
	if err := s.Prune("never made", 2); err != nil {
		t.Errorf("pruning nothing: %v", err)
	}
}

func TestLockIsExclusiveAndGoesWithItsHolder(t *testing.T) {
	s := openStore(t)
	unlock, err := s.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(); err == nil || !strings.Contains(err.Error(), "another build is using it") {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	again, err := s.Lock()
	if err != nil {
		t.Fatalf("after unlocking: %v", err)
	}
	again()
}
