package localpath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"not JSON":       {"{", "unexpected EOF"},
		"unknown key":    {`{"nodePathMaps":[]}`, `unknown field "nodePathMaps"`},
		"relative path":  {`{"nodePathMap":[{"node":"a","paths":["data"]}]}`, `path "data" of node a`},
		"whole disk":     {`{"nodePathMap":[{"node":"a","paths":["/"]}]}`, `path "/" of node a`},
		"dot dot":        {`{"nodePathMap":[{"node":"a","paths":["/var/../etc"]}]}`, `path "/var/../etc"`},
		"slash at end":   {`{"nodePathMap":[{"node":"a","paths":["/data/"]}]}`, `path "/data/"`},
		"node twice":     {`{"nodePathMap":[{"node":"a","paths":["/a"]},{"node":"a","paths":["/b"]}]}`, "node a is listed twice"},
		"node is absent": {`{"nodePathMap":[{"paths":["/a"]}]}`, "has no node"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(writeConfig(t, c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	c, err := loadConfig(writeConfig(t, `{"nodePathMap":[
		{"node":"DEFAULT_PATH_FOR_NON_LISTED_NODES","paths":["/any"]},
		{"node":"two","paths":["/ssd","/hdd"]},
		{"node":"none","paths":[]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, c2 := range map[string]struct {
		node, wanted, want string
		refused            bool
	}{
		"listed":            {node: "two", wanted: "/hdd", want: "/hdd"},
		"not listed":        {node: "x", want: "/any"},
		"empty list":        {node: "none", refused: true},
		"foreign directory": {node: "two", wanted: "/etc", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.choose(c2.node, "pvc-1", c2.wanted)
			if got != c2.want || errors.Is(err, errNodeTakesNoVolumes) != c2.refused {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	used := map[string]bool{}
	for _, pv := range strings.Split("abcdefghijklmnop", "") {
		first, _ := c.choose("two", pv, "")
		if again, _ := c.choose("two", pv, ""); again != first {
			t.Errorf("volume %s moved from %s to %s", pv, first, again)
		}
		used[first] = true
	}
	if len(used) != 2 {
		t.Errorf("only %v are used", used)
	}
	if _, err := (config{}).choose("x", "pvc-1", ""); !errors.Is(err, errNodeTakesNoVolumes) {
		t.Errorf("empty configuration: %v", err)
	}
}
