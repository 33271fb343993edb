package fetch

import (
	"bytes"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

//go:embed keys/*.asc
var keyFiles embed.FS

// DebianKeys are the public keys of the Debian archive, see keys/README.md.
func DebianKeys() (openpgp.EntityList, error) {
	names, err := fs.Glob(keyFiles, "keys/*.asc")
	if err != nil {
		return nil, fmt.Errorf("cannot list the keys of the Debian archive: %w", err)
	}
	var keys openpgp.EntityList
	for _, name := range names {
		data, err := keyFiles.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read key of the Debian archive: %w", err)
		}
		list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("cannot read key of the Debian archive %s: %w", name, err)
		}
		keys = append(keys, list...)
	}
	return keys, nil
}

// A Release is the verified content of an InRelease file.
type Release struct {
	// Codename is the name of the release, such as trixie.
	Codename string
	// Date is when it was made; ValidUntil is zero if it does not say until when it may be used.
	Date       time.Time
	ValidUntil time.Time
	// ByHash says that lists are also there under the name of their digest, where they cannot change under a reader.
	ByHash bool
	// Lists are the files that it vouches for, by path below the suite's folder.
	Lists map[string]ListFile
}

// A ListFile is size and digest of one file.
type ListFile struct {
	SHA256 string
	Size   int64
}

// VerifyRelease checks the signature of an InRelease file, and returns what it says. Only the signed part is read. now
// is the time at which signature and keys must be valid.
func VerifyRelease(data []byte, keys openpgp.EntityList, now time.Time) (*Release, error) {
	block, _ := clearsign.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("not a signed InRelease file")
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	if _, err := block.VerifySignature(keys, config); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	r, err := parseRelease(string(block.Plaintext))
	if err != nil {
		return nil, err
	}
	if !r.ValidUntil.IsZero() && now.After(r.ValidUntil) {
		return nil, fmt.Errorf("the file was valid until %s; the mirror is out of date", r.ValidUntil.Format(time.RFC3339))
	}
	return r, nil
}

// parseRelease reads the fields of https://wiki.debian.org/DebianRepository/Format that matter here.
func parseRelease(text string) (*Release, error) {
	r := &Release{Lists: map[string]ListFile{}}
	field := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, " ") {
			if field != "SHA256" {
				continue
			}
			words := strings.Fields(line)
			if len(words) != 3 {
				return nil, fmt.Errorf("cannot read line %q", line)
			}
			size, err := strconv.ParseInt(words[1], 10, 64)
			if raw, e := hex.DecodeString(words[0]); err != nil || e != nil || len(raw) != 32 {
				return nil, fmt.Errorf("cannot read line %q", line)
			}
			r.Lists[words[2]] = ListFile{SHA256: words[0], Size: size}
			continue
		}
		var value string
		field, value, _ = strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		var err error
		switch field {
		case "Codename":
			r.Codename = value
		case "Acquire-By-Hash":
			r.ByHash = value == "yes"
		case "Date":
			r.Date, err = releaseTime(value)
		case "Valid-Until":
			r.ValidUntil, err = releaseTime(value)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read field %s: %w", field, err)
		}
	}
	if r.Codename == "" || r.Date.IsZero() || len(r.Lists) == 0 {
		return nil, fmt.Errorf("the file lacks Codename, Date or SHA256")
	}
	return r, nil
}

// releaseTime reads a date of the form Sat, 21 Nov 2026 09:15:44 UTC.
func releaseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC1123, s)
	if err != nil {
		return time.Time{}, err
	}
	return t.UTC(), nil
}
