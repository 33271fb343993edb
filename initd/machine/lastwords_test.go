package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLastWords(t *testing.T) {
	l := LastWords{filepath.Join(t.TempDir(), "disk")}
	if _, err := l.Read(); err == nil {
		t.Error("a disk that is not there was read")
	}
	if err := os.WriteFile(l.Path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	expect := func(what string, want Words) {
		t.Helper()
		got, err := l.Read()
		if err != nil || got != want {
			t.Errorf("%s: read %+v, %v; want %+v", what, got, err, want)
		}
	}
	expect("nothing written", Words{})
	said := Words{"b", "2", "verity: \x01 damaged"}
	if err := l.Write(said); err != nil {
		t.Fatal(err)
	}
	expect("written", said)

	long := Words{"a", "1", strings.Repeat("\x01ä", 4000)}
	if err := l.Write(long); err != nil {
		t.Fatal(err)
	}
	got, err := l.Read()
	if err != nil || len(got.Text) < 300 || !strings.HasPrefix(long.Text, strings.TrimRight(got.Text, "\ufffd")) {
		t.Errorf("long text: read %d bytes, %v", len(got.Text), err)
	}

	// A torn block has old and new sectors.
	if err := l.Write(said); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(l.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), lastWordsOffset+int64(lastWordsHeader)+20); err != nil {
		t.Fatal(err)
	}
	expect("torn", Words{})
	if err := l.Write(said); err != nil {
		t.Fatal(err)
	}
	if err := l.Clear(); err != nil {
		t.Fatal(err)
	}
	expect("cleared", Words{})
	info, err := f.Stat()
	if err != nil || info.Size() != 1<<20 {
		t.Errorf("the disk has %v bytes after that, %v", info.Size(), err)
	}
}
