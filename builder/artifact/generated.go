package artifact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/skerryos/skerry/builder/plan"
)

// osRelease is os-release(5) of an image; digest is the plan's.
func osRelease(p *plan.Plan, digest string) []byte {
	var b bytes.Buffer
	for _, kv := range [][2]string{
		{"ID", "skerry"},
		{"NAME", "Skerry"},
		{"PRETTY_NAME", fmt.Sprintf("Skerry %s (%s)", p.Version, p.Board)},
		{"VERSION_ID", p.Version},
		{"IMAGE_ID", p.Board},
		{"IMAGE_VERSION", p.Version},
		{"BUILD_ID", digest},
	} {
		fmt.Fprintf(&b, "%s=%s\n", kv[0], shellQuote(kv[1]))
	}
	return b.Bytes()
}

// OSRelease is what /etc/os-release of the plan's image holds.
func OSRelease(p *plan.Plan) ([]byte, error) {
	digest, err := p.Digest()
	if err != nil {
		return nil, err
	}
	return osRelease(p, digest), nil
}

// shellQuote writes a value as os-release(5) asks: bare if it is harmless, else in double quotes.
func shellQuote(s string) string {
	const harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if s != "" && strings.Trim(s, harmless) == "" {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`
}

// certificateBundle is /etc/ssl/certs/ca-certificates.crt: what update-ca-certificates(8) makes of the package when
// every certificate is trusted, its default.
func certificateBundle(u *Unpacked) ([]byte, error) {
	var b bytes.Buffer
	for _, n := range u.Names() {
		if !strings.HasPrefix(n, "usr/share/ca-certificates/") || path.Ext(n) != ".crt" {
			continue
		}
		c, err := u.Content(n)
		if err != nil {
			return nil, err
		}
		data, err := c.ReadAll()
		if err != nil {
			return nil, err
		}
		b.Write(bytes.TrimRight(data, "\n"))
		b.WriteByte('\n')
	}
	if b.Len() == 0 {
		return nil, fmt.Errorf("cannot make ca-certificates.crt: %s has no certificate in usr/share/ca-certificates", u.Origin())
	}
	return b.Bytes(), nil
}

// deviceManifest is /usr/share/skerry/manifest.json: what this root file system is made of, for people and programs
// on the device. The workstation's manifest knows more.
type deviceManifest struct {
	Name     string                   `json:"name"`
	Version  string                   `json:"version"`
	Board    string                   `json:"board"`
	Plan     string                   `json:"plan"`
	Kernel   string                   `json:"kernel"`
	Packages []manifestPackage        `json:"packages"`
	Programs map[string]manifestInput `json:"programs"`
}

type manifestPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

type manifestInput struct {
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

func deviceManifestOf(p *plan.Plan, digest string, programs map[string]Content) ([]byte, error) {
	m := deviceManifest{Name: p.Name, Version: p.Version, Board: p.Board, Plan: digest, Kernel: p.Kernel.Release, Programs: map[string]manifestInput{}}
	for _, k := range p.Packages {
		m.Packages = append(m.Packages, manifestPackage{k.Name, k.Version, k.SHA256})
	}
	for name, c := range programs {
		m.Programs[name] = manifestInput{c.SHA256, c.Bytes}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot encode the device's manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// libraryVersion is the version of a module that this program is linked with. It is part of the keys of artefacts
// whose bytes the module decides.
func libraryVersion(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == module {
				return d.Version
			}
		}
	}
	return "unknown"
}

// decimalLine is a file that holds one number.
func decimalLine(n int64) []byte { return append(strconv.AppendInt(nil, n, 10), '\n') }
