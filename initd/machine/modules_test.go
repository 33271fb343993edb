package machine

import (
	"strings"
	"testing"
	"testing/fstest"
)

func tables(t *testing.T) *Modules {
	t.Helper()
	m, err := ReadModules(fstest.MapFS{
		"modules.dep": {Data: []byte(`kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz kernel/net/802/stp.ko.xz
kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz
kernel/net/802/stp.ko.xz:
kernel/drivers/net/virtio_net.ko.xz:
`)},
		"modules.softdep": {Data: []byte("# comment\nsoftdep libcrc32c pre: crc32c-generic post: nothing\n")},
		"modules.alias":   {Data: []byte("alias virtio:d00000001v* virtio_net\nalias pci:v00008086d*sv*sd*bc*sc*i* e1000e\n")},
		"modules.builtin": {Data: []byte("kernel/drivers/block/loop.ko\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOrder(t *testing.T) {
	m := tables(t)
	for _, c := range []struct{ name, want string }{
		{"virtio_net", "virtio_net"},
		{"loop", ""}, // built in
		{"br-netfilter", "stp bridge br_netfilter"},
		{"erofs", "crc32c_generic libcrc32c erofs"},
	} {
		files, err := m.Order(c.name)
		if err != nil {
			t.Errorf("Order(%s): %v", c.name, err)
		}
		var names []string
		for _, f := range files {
			names = append(names, ModuleName(f))
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("Order(%s) = %q, want %q", c.name, got, c.want)
		}
	}
	if _, err := m.Order("zfs"); err == nil || !strings.Contains(err.Error(), "zfs") {
		t.Errorf("Order(zfs) = %v, want an error that names it", err)
	}
}

func TestMatch(t *testing.T) {
	m := tables(t)
	for alias, want := range map[string]string{
		"virtio:d00000001v00001AF4":                             "virtio_net",
		"virtio:d00000002v00001AF4":                             "",
		"pci:v00008086d000015BEsv00001028sd000007F1bc02sc00i00": "e1000e",
	} {
		if got := strings.Join(m.Match(alias), " "); got != want {
			t.Errorf("Match(%s) = %q, want %q", alias, got, want)
		}
	}
}
