package fetch

import (
	"bufio"
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Mirror is a copy of the Debian archive.
type Mirror struct {
	// URL is the archive's root, the folder that has dists and pool, without a slash at its end.
	URL string
	// From says who named it, for messages.
	From string
	// OnlyMissing is set for the archive of old versions, which is asked only for what mirrors have dropped.
	OnlyMissing bool
}

// MirrorVariable is the environment variable that names a mirror.
const MirrorVariable = "SKERRY_MIRROR"

// snapshots is where Debian keeps every version that its archive ever had: https://snapshot.debian.org.
const snapshots = "https://snapshot.debian.org/archive/debian"

// Mirrors decides which mirrors to ask: the one given by flag; else the one in the environment; else those in the
// package sources of a Debian host (apt is a folder such as /etc/apt). The archive of old versions, as it was at the
// locked date, comes last and is the only one where nobody names a mirror; a zero date leaves out which state is meant. With several
// dates, one for each suite of a lock, there is one such archive for each.
func Mirrors(flag string, getenv func(string) string, apt string, locked ...time.Time) ([]Mirror, error) {
	var last []Mirror
	for _, date := range locked {
		last = append(last, Mirror{URL: snapshotAt(date), From: "the locked date", OnlyMissing: true})
	}
	for _, named := range []struct{ value, from string }{{flag, "--mirror"}, {getenv(MirrorVariable), MirrorVariable}} {
		if named.value == "" {
			continue
		}
		root, err := archiveRoot(named.value)
		if err != nil {
			return nil, fmt.Errorf("cannot use the mirror from %s: %w", named.from, err)
		}
		return append([]Mirror{{URL: root, From: named.from}}, last...), nil
	}
	list := hostMirrors(apt)
	if len(list) == 0 && len(last) > 0 {
		last[0].OnlyMissing = false
	}
	return append(list, last...), nil
}

// snapshotAt is the archive as it was a day after the date of its InRelease file. The service answers with the newest
// state that is not younger than what is asked for, and takes some hours to take in a new one; a stable release
// changes every few weeks, so that a day is both late and early enough.
func snapshotAt(locked time.Time) string {
	if locked.IsZero() {
		locked = time.Now().UTC()
	} else {
		locked = locked.UTC().Add(24 * time.Hour)
	}
	return snapshots + "/" + locked.Format("20060102T150405Z")
}

func archiveRoot(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", fmt.Errorf("%q is not a URL such as https://mirror.example.com/debian", s)
	}
	return strings.TrimRight(s, "/"), nil
}

// hostMirrors reads the package sources of a Debian host, in both formats of sources.list(5). What cannot be read or
// used is passed over: these files belong to the host, and it may not even be a Debian host.
func hostMirrors(apt string) []Mirror {
	var files []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		found, err := filepath.Glob(filepath.Join(apt, pattern))
		if err != nil {
			continue // only for a malformed pattern, and apt itself has no special character
		}
		files = append(files, found...)
	}
	var list []Mirror
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		read := readOneLine
		if strings.HasSuffix(file, ".sources") {
			read = readDeb822
		}
		for _, u := range read(data) {
			root, err := archiveRoot(u)
			// The archive of a derivative, or a vendor's repository, has other packages under other names.
			if err != nil || path.Base(root) != "debian" || slices.ContainsFunc(list, func(m Mirror) bool { return m.URL == root }) {
				continue
			}
			list = append(list, Mirror{URL: root, From: file})
		}
	}
	return list
}

// readOneLine finds the URIs of binary package sources in lines such as: deb [options] URI suite component...
func readOneLine(data []byte) (uris []string) {
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if open, closed := strings.Index(line, "["), strings.Index(line, "]"); open >= 0 && closed > open {
			line = line[:open] + line[closed+1:]
		}
		if words := strings.Fields(line); len(words) >= 3 && words[0] == "deb" {
			uris = append(uris, words[1])
		}
	}
	return uris
}

// readDeb822 finds the same in the format of paragraphs with fields.
func readDeb822(data []byte) (uris []string) {
	fields := map[string]string{}
	finish := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") && !slices.Contains([]string{"no", "false"}, strings.ToLower(strings.TrimSpace(fields["enabled"]))) {
			uris = append(uris, strings.Fields(fields["uris"])...)
		}
		clear(fields)
	}
	name := ""
	for scan := bufio.NewScanner(bytes.NewReader(data)); scan.Scan(); {
		line := scan.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			finish()
		case line[0] == ' ' || line[0] == '\t':
			fields[name] += " " + line
		default:
			key, value, _ := strings.Cut(line, ":")
			name = strings.ToLower(strings.TrimSpace(key))
			fields[name] = value
		}
	}
	finish()
	return uris
}
