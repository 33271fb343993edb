package config

import (
	"fmt"
	"slices"
	"strings"
)

// The rules of Kubernetes for names, labels and taints, written out because this package is linked into PID 1, which
// imports nothing of Kubernetes: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and names/.

// isDNSLabel: 1 to 63 of a-z, 0-9 and '-', not first or last (RFC 1123).
func isDNSLabel(s string) bool {
	return len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// isSubdomain: DNS labels separated by dots, at most 253 characters.
func isSubdomain(s string) bool {
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(part string) bool { return !isDNSLabel(part) })
}

// isName: 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit first and last.
func isName(s string) bool {
	alphanumeric := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	return len(s) >= 1 && len(s) <= 63 && alphanumeric(rune(s[0])) && alphanumeric(rune(s[len(s)-1])) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && r != '-' && r != '_' && r != '.' })
}

// checkKey: the key of a label or taint is a name, optionally after a subdomain and '/'.
func checkKey(what, key string) error {
	prefix, name, ok := strings.Cut(key, "/")
	if !ok {
		prefix, name = "", key
	}
	if ok && !isSubdomain(prefix) {
		return fmt.Errorf("%s key %q: what stands before '/' must be a DNS name in lower case", what, key)
	}
	if !isName(name) {
		return fmt.Errorf("%s key %q: a name has 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit first and last", what, key)
	}
	return nil
}

func checkLabelValue(what, value string) error {
	if value != "" && !isName(value) {
		return fmt.Errorf("%s value %q: at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last", what, value)
	}
	return nil
}

func checkLabel(key, value string) error {
	if err := checkKey("label", key); err != nil {
		return err
	}
	if err := checkReserved(key); err != nil {
		return err
	}
	return checkLabelValue("label", value)
}

// ownLabels are the labels in the reserved domains that a kubelet may set itself.
var ownLabels = []string{
	"kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/arch", "beta.kubernetes.io/os",
	"topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
	"failure-domain.beta.kubernetes.io/region", "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type",
}

// checkReserved refuses what kubelet refuses: it would end at once, on every start, with a label of this kind, because the
// NodeRestriction admission plugin forbids nodes to set them.
func checkReserved(key string) error {
	prefix, _, ok := strings.Cut(key, "/")
	if !ok || slices.Contains(ownLabels, key) {
		return nil
	}
	in := func(domain string) bool { return prefix == domain || strings.HasSuffix(prefix, "."+domain) }
	if in("kubelet.kubernetes.io") || in("node.kubernetes.io") || !in("kubernetes.io") && !in("k8s.io") {
		return nil
	}
	return fmt.Errorf("label %q: a node may not set labels in %s on itself; use a domain of your own, or kubectl label node", key, prefix)
}

// effects are what a taint does to pods that do not tolerate it.
var effects = []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}

// checkTaint: key[=value]:effect, as kubectl taint and kubelet have it.
func checkTaint(value string) error {
	i := strings.LastIndexByte(value, ':')
	if i < 0 {
		return fmt.Errorf("taint %q has no effect: write it as key=value:effect or key:effect, with effect one of %s", value, strings.Join(effects, ", "))
	}
	effect := value[i+1:]
	if !slices.Contains(effects, effect) {
		for _, e := range effects {
			if strings.EqualFold(e, effect) {
				return fmt.Errorf("taint %q: the effect is written %s", value, e)
			}
		}
		return fmt.Errorf("taint %q: unknown effect %q; allowed here: %s", value, effect, strings.Join(effects, ", "))
	}
	key, val, _ := strings.Cut(value[:i], "=")
	if err := checkKey("taint", key); err != nil {
		return err
	}
	return checkLabelValue("taint", val)
}
