package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/google/renameio/v2"
	"github.com/klauspost/compress/gzip"

	"github.com/skerryos/skerry/builder/artifact"
	"github.com/skerryos/skerry/builder/progress"
)

// A Catalogue is a list of images as Raspberry Pi Imager reads it: doc/json-schema/os-list-schema.json in its sources.
type Catalogue struct {
	Images []CatalogueEntry `json:"os_list"`
}

// A CatalogueEntry is one image.
type CatalogueEntry struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	// Icon and URL are web addresses; the latter is that of the compressed image.
	Icon string `json:"icon"`
	URL  string `json:"url"`
	// ExtractSize and ExtractSHA256 are of the image, DownloadSize and DownloadSHA256 of the compressed one. Sizes are in bytes.
	ExtractSize    int64  `json:"extract_size"`
	ExtractSHA256  string `json:"extract_sha256"`
	DownloadSize   int64  `json:"image_download_size"`
	DownloadSHA256 string `json:"image_download_sha256"`
	// ReleaseDate is a day, such as 2026-11-27.
	ReleaseDate string `json:"release_date"`
	// InitFormat says how Imager writes what a person chooses: as cloud-init's user-data and network-config on the boot partition.
	InitFormat string `json:"init_format"`
	// Devices are Imager's names of the models that the image is for.
	Devices      []string `json:"devices"`
	Architecture string   `json:"architecture"`
}

// imagerFormat is the one of Imager's formats that devices read.
const imagerFormat = "cloudinit"

// imagerArchitectures are Imager's names, by Debian's.
var imagerArchitectures = map[string]string{"arm64": "armv8", "armhf": "armhf"}

// SetArchitecture takes Debian's name.
func (e *CatalogueEntry) SetArchitecture(debian string) error {
	name, ok := imagerArchitectures[debian]
	if !ok {
		return fmt.Errorf("there is no Raspberry Pi with the architecture %s", debian)
	}
	e.Architecture, e.InitFormat = name, imagerFormat
	return nil
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// check refuses what Imager could not use.
func (e *CatalogueEntry) check() error {
	var errs []error
	for what, address := range map[string]string{"icon": e.Icon, "url": e.URL} {
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			errs = append(errs, fmt.Errorf("%s %q is not a web address, such as https://images.example.com/%s", what, address, what))
		}
	}
	if e.Name == "" || e.Description == "" || e.InitFormat == "" || e.Architecture == "" || len(e.Devices) == 0 {
		errs = append(errs, errors.New("name, description, format, architecture and devices must be there"))
	}
	if e.ExtractSize <= 0 || e.DownloadSize <= 0 || !hexDigest.MatchString(e.ExtractSHA256) || !hexDigest.MatchString(e.DownloadSHA256) {
		errs = append(errs, errors.New("sizes and digests of the image and the compressed image must be there"))
	}
	if _, err := time.Parse(time.DateOnly, e.ReleaseDate); err != nil {
		errs = append(errs, fmt.Errorf("release date %q is not a day, such as 2026-11-27", e.ReleaseDate))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot list %s: %w", e.Name, err)
	}
	return nil
}

// Bytes is the catalogue as it is published. It is checked before.
func (c *Catalogue) Bytes() ([]byte, error) {
	if len(c.Images) == 0 {
		return nil, errors.New("cannot make a catalogue: it would have no image")
	}
	names := map[string]bool{}
	for i := range c.Images {
		e := &c.Images[i]
		if err := e.check(); err != nil {
			return nil, err
		}
		if names[e.Name] {
			return nil, fmt.Errorf("cannot list %s twice", e.Name)
		}
		names[e.Name] = true
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("cannot encode the catalogue: %w", err)
	}
	return b.Bytes(), nil
}

// ReadBuild reads the manifest of the one build of a board in an output folder.
func ReadBuild(dir, board string) (*Manifest, error) {
	name := filepath.Join(dir, "skerry-"+board+".manifest.json")
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read what was built for board %s: %w; build it first: skerry build --board %s --output %s", board, err, board, dir)
	}
	m := &Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return m, nil
}

// Compress writes the image of a build, compressed as Imager reads it, beside it, and fills in what the entry says of both. An image that
// is not the one that was built is refused.
func (e *CatalogueEntry) Compress(ctx context.Context, dir string, m *Manifest, pr progress.Reporter) (file string, err error) {
	image := filepath.Join(dir, m.Name+".img")
	in, err := os.Open(image)
	if err != nil {
		return "", fmt.Errorf("cannot compress the image: %w", err)
	}
	defer in.Close()
	file = image + ".gz"
	out, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o644), renameio.WithTempDir(dir))
	if err != nil {
		return "", fmt.Errorf("cannot write the compressed image: %w", err)
	}
	defer out.Cleanup()
	packed := &counted{w: out, h: sha256.New()}
	z, err := gzip.NewWriterLevel(packed, gzip.BestCompression)
	if err != nil {
		return "", fmt.Errorf("cannot compress the image: %w", err)
	}
	plain := &counted{w: z, h: sha256.New()}
	task := pr.Start("compress "+filepath.Base(image), 0)
	_, err = artifact.Copy(ctx, plain, in)
	err = errors.Join(err, z.Close())
	task.Done(err)
	if err != nil {
		return "", fmt.Errorf("cannot compress %s: %w", image, err)
	}
	e.ExtractSize, e.ExtractSHA256, e.DownloadSize, e.DownloadSHA256 = plain.n, plain.digest(), packed.n, packed.digest()
	for _, o := range m.Outputs {
		if o.Name == m.Name+".img" && o.SHA256 != e.ExtractSHA256 {
			return "", fmt.Errorf("cannot publish %s: it is not the image that was built (its SHA-256 is %s, not %s), perhaps because a machine was started from it; build it again; nothing was written",
				image, e.ExtractSHA256, o.SHA256)
		}
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return "", fmt.Errorf("cannot write the compressed image: %w", err)
	}
	return file, nil
}

// counted knows how much was written and its digest.
type counted struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.h.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (c *counted) digest() string { return hex.EncodeToString(c.h.Sum(nil)) }
