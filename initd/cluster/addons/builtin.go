package addons

import (
	"embed"
	"fmt"
	"os"
	"strings"
)

//go:embed manifests/*.yaml
var manifests embed.FS

// builtin are the names of the built-in add-ons, in the order they are applied in: what other pods wait for comes first.
var builtin = []string{"coredns", "local-storage", "metrics-server"}

// render fills ${NAME} in a built-in manifest. A name that is not known is a mistake in the manifest.
func (v Values) render(name string) ([]byte, error) {
	text, err := manifests.ReadFile("manifests/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("cannot read built-in add-on %s: %w", name, err)
	}
	values := map[string]string{
		"CLUSTER_DNS":    v.ClusterDNS,
		"CLUSTER_DOMAIN": v.ClusterDomain,
		"STORAGE_PATH":   v.StoragePath,
		"IMAGE":          v.Image,
		"BINARY":         v.Binary,
	}
	var unknown []string
	out := os.Expand(string(text), func(key string) string {
		value, ok := values[key]
		if !ok {
			unknown = append(unknown, key)
		}
		return value
	})
	if unknown != nil {
		return nil, fmt.Errorf("cannot fill built-in add-on %s: unknown value %s", name, strings.Join(unknown, ", "))
	}
	return []byte(out), nil
}
