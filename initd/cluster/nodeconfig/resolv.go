package nodeconfig

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"
)

// fallbackResolvConf serves pods of a host that names no usable server. The addresses are those of public resolvers,
// as K3s has them: a pod with no server at all would wait for each look-up to time out.
const fallbackResolvConf = "nameserver 1.1.1.1\nnameserver 8.8.8.8\n"

// ResolvConf chooses the resolv.conf that pods get which use the node's DNS, and that the cluster's DNS forwards to:
// the first candidate with a server that a pod can reach. A loopback address would be the pod itself. read is os.ReadFile
// outside of tests. When none fits, path is empty and content is what to write for them.
func ResolvConf(candidates []string, read func(string) ([]byte, error)) (path string, content []byte) {
	for _, c := range candidates {
		if b, err := read(c); err == nil && usableServer(b) {
			return c, nil
		}
	}
	return "", []byte(fallbackResolvConf)
}

func usableServer(b []byte) bool {
	found := false
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.IsLoopback() || a.IsUnspecified() {
			return false // resolvers are tried in turn: one that cannot answer delays each look-up
		}
		found = true
	}
	return found
}
