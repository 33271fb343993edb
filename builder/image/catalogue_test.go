package image

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/skerryos/skerry/builder/artifact/artifacttest"
	"github.com/skerryos/skerry/builder/progress"
)

// goodEntry is one that Imager could show.
func goodEntry() CatalogueEntry {
	e := CatalogueEntry{
		Name: "Skerry 1.2.3 (test)", Description: "a board", Icon: "https://images.example.com/icon.svg", URL: "https://images.example.com/a.img.gz",
		ExtractSize: 2, ExtractSHA256: strings.Repeat("0", 64), DownloadSize: 1, DownloadSHA256: strings.Repeat("f", 64),
		ReleaseDate: "2026-11-27", Devices: []string{"pi4-64bit"},
	}
	_ = e.SetArchitecture("arm64")
	return e
}

func TestCatalogueIsWhatImagerReads(t *testing.T) {
	c := Catalogue{Images: []CatalogueEntry{goodEntry()}}
	b, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var read struct {
		List []map[string]any `json:"os_list"`
	}
	if err := json.Unmarshal(b, &read); err != nil || len(read.List) != 1 {
		t.Fatalf("%v: %s", err, b)
	}
	// What its schema requires, by kind.
	for key, zero := range map[string]any{
		"name": "", "description": "", "icon": "", "url": "", "extract_size": 0.0, "extract_sha256": "", "image_download_size": 0.0,
		"image_download_sha256": "", "release_date": "", "init_format": "", "devices": []any{}, "architecture": "",
	} {
		got := read.List[0][key]
		same := false
		switch zero.(type) {
		case string:
			_, same = got.(string)
		case float64:
			_, same = got.(float64)
		default:
			_, same = got.([]any)
		}
		if !same {
			t.Errorf("%s is %v", key, got)
		}
		delete(read.List[0], key)
	}
	if len(read.List[0]) > 0 {
		t.Errorf("there is more: %v", read.List[0])
	}
}

func TestCatalogueRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*CatalogueEntry)
		want   string
	}{
		{"icon of this machine", func(e *CatalogueEntry) { e.Icon = "icon.svg" }, `icon "icon.svg" is not a web address`},
		{"image of another kind of address", func(e *CatalogueEntry) { e.URL = "ftp://a.example.com/a" }, "url"},
		{"no device", func(e *CatalogueEntry) { e.Devices = nil }, "devices must be there"},
		{"no size", func(e *CatalogueEntry) { e.DownloadSize = 0 }, "sizes and digests"},
		{"no digest", func(e *CatalogueEntry) { e.ExtractSHA256 = "0" }, "sizes and digests"},
		{"no day", func(e *CatalogueEntry) { e.ReleaseDate = "27 November" }, "is not a day"},
		{"architecture", func(e *CatalogueEntry) { e.Architecture = "" }, "architecture"},
	} {
		e := goodEntry()
		tt.change(&e)
		if _, err := (&Catalogue{Images: []CatalogueEntry{e}}).Bytes(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error does not say %q: %v", tt.name, tt.want, err)
		}
	}
	if _, err := (&Catalogue{}).Bytes(); err == nil {
		t.Error("an empty catalogue is made")
	}
	if _, err := (&Catalogue{Images: []CatalogueEntry{goodEntry(), goodEntry()}}).Bytes(); err == nil {
		t.Error("an image is listed twice")
	}
	if err := (&CatalogueEntry{}).SetArchitecture("amd64"); err == nil {
		t.Error("an image for amd64 is listed")
	}
}

func TestCompressedImageIsTheImage(t *testing.T) {
	b := newBuildOf(t, artifacttest.UBootPlan)
	r := b.run(t)
	m, err := ReadBuild(b.out, "test")
	if err != nil {
		t.Fatal(err)
	}
	var e CatalogueEntry
	file, err := e.Compress(t.Context(), b.out, m, progress.Discard)
	if err != nil {
		t.Fatal(err)
	}
	packed := read(t, file)
	sum := sha256.Sum256(packed)
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(plain, read(t, r.Image)) {
		t.Errorf("what is compressed is not the image (%v)", err)
	}
	want := CatalogueEntry{ExtractSize: r.Bytes, ExtractSHA256: r.SHA256, DownloadSize: int64(len(packed)), DownloadSHA256: hex.EncodeToString(sum[:])}
	if e.ExtractSize != want.ExtractSize || e.ExtractSHA256 != want.ExtractSHA256 || e.DownloadSize != want.DownloadSize || e.DownloadSHA256 != want.DownloadSHA256 {
		t.Errorf("the entry is %+v, want %+v", e, want)
	}
	// A machine was started from the image itself.
	changed := read(t, r.Image)
	changed[8192] ^= 1
	if err := os.WriteFile(r.Image, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Compress(t.Context(), b.out, m, progress.Discard); err == nil || !strings.Contains(err.Error(), "it is not the image that was built") {
		t.Errorf("a changed image is published: %v", err)
	}
	if !bytes.Equal(read(t, file), packed) {
		t.Error("the former compressed image is gone")
	}
	if _, err := ReadBuild(b.out, "other"); err == nil || !strings.Contains(err.Error(), "skerry build --board other") {
		t.Errorf("a build that is not there: %v", err)
	}
}
