package machine

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// The tables are cut out of a real kernel's (Debian 6.12), plus names made up for what it has no case of.
var moduleTables = fstest.MapFS{
	"modules.dep": {Data: []byte(`kernel/lib/libcrc32c.ko.xz: kernel/crypto/crc32c_generic.ko.xz
kernel/crypto/crc32c_generic.ko.xz:
kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz kernel/crypto/crc16.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/crypto/crc16.ko.xz:
kernel/net/a.ko.xz: kernel/net/b.ko.xz kernel/net/c.ko.xz
kernel/net/b.ko.xz: kernel/net/c.ko.xz
kernel/net/c.ko.xz:
kernel/drivers/net/virtio-net.ko.xz:
kernel/drivers/net/igb.ko.zst: kernel/drivers/dca.ko.gz
kernel/drivers/dca.ko.gz:
kernel/loop/one.ko: kernel/loop/two.ko
kernel/loop/two.ko: kernel/loop/one.ko
kernel/hard.ko: kernel/absent.ko
kernel/wisher.ko:
kernel/crypto/crc32c-intel.ko.xz:
`)},
	"modules.softdep": {Data: []byte(`# Soft dependencies extracted from modules themselves.
softdep ext4 pre: crc32c-intel crc16 post: c
softdep libcrc32c pre: crc32c_generic
softdep virtio_net pre: absent builtin_one
softdep wisher pre: crypto-crc32c post: igb
softdep broken
`)},
	"modules.builtin": {Data: []byte("kernel/lib/builtin-one.ko\n")},
	"modules.alias": {Data: []byte(`# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias pci:v00008086d00001533sv*sd*bc*sc*i* igb
alias pci:v00008086d*sv*sd*bc02sc00i* a
alias usb:v0525pA4A[0-2]d*dc*dsc*dp*ic*isc*ip*in* b
alias crypto-crc32c crc32c_generic
alias crypto-crc32c crc32c_intel
alias [ broken
alias too short
`)},
}

func TestModuleOrder(t *testing.T) {
	m, err := ReadModules(moduleTables)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want, fail string }{
		{"crc16", "crc16", ""},
		{"erofs", "crc32c_generic libcrc32c erofs", ""},
		// A soft dependency comes first, though the hard ones would bring it later; one that is missing is left out.
		{"ext4", "crc32c_intel crc16 mbcache jbd2 ext4 c", ""},
		// A wish can be for an alias, which all who have it fulfil, and for afterwards.
		{"wisher", "crc32c_generic crc32c_intel wisher dca igb", ""},
		{"a", "c b a", ""},
		// Either spelling of the name; soft dependencies that are built in or absent do not matter.
		{"virtio-net", "virtio_net", ""},
		{"virtio_net", "virtio_net", ""},
		{"igb", "dca igb", ""},
		{"builtin_one", "", ""},
		{"one", "two one", ""},
		{"absent", "", "no kernel module absent"},
		{"hard", "", "module hard: the image has no kernel module absent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, own, err := m.Order(c.name)
			if err == nil && len(files) > 0 && ModuleName(own) != ModuleName(c.name) {
				t.Errorf("its own file is %s", own)
			}
			var got []string
			for _, f := range files {
				got = append(got, ModuleName(f))
			}
			switch {
			case c.fail == "" && err != nil:
				t.Error(err)
			case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)):
				t.Errorf("error %v, want one with %q", err, c.fail)
			case c.fail == "" && strings.Join(got, " ") != c.want:
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestModuleMatch(t *testing.T) {
	m, err := ReadModules(moduleTables)
	if err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[string]string{
		"virtio:d00000001v00001AF4":                               "virtio_net",
		"pci:v00008086d00001533sv00008086sd00000001bc02sc00i00":   "igb a",
		"usb:v0525pA4A2d0404dc02dsc00dp00ic02isc06ip00in00":       "b",
		"usb:v0525pA4A3d0404dc02dsc00dp00ic02isc06ip00in00":       "",
		"of:NcpuT(null)Carm,cortex-a53":                           "",
		"pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00":   "",
		"dmi:bvnSeaBIOS:bvr1.16/2:bd04/01/2014:br0.0:svnQEMU:pn/": "",
	} {
		if got := strings.Join(m.Match(alias), " "); got != want {
			t.Errorf("%s: got %q, want %q", alias, got, want)
		}
	}
}

// TestModuleMatchSlash: a modalias may hold a slash (the names of DMI and device trees), which * must match.
func TestModuleMatchSlash(t *testing.T) {
	tables := fstest.MapFS{}
	for name, f := range moduleTables {
		tables[name] = f
	}
	tables["modules.alias"] = &fstest.MapFile{Data: []byte("alias dmi:*:svnVendor*:* a\n")}
	m, err := ReadModules(tables)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Match("dmi:bvr1.16/2:svnVendor/Ltd:pn1"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %v", got)
	}
}

func TestMatchAlias(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "", false}, {"*", "", true}, {"**", "x", true}, {"a*", "a", true},
		{"*b*c", "abbcabc", true}, {"*b*c", "abbcab", false}, {"a*b", "ab", true}, {"a*b", "aXbY", false},
		{"?", "x", true}, {"?", "", false}, {"a?c", "abc", true}, {"[a-c]x", "bx", true}, {"[a-c]x", "dx", false},
		{"[0-9A-F]*", "Bcd", true}, {"x[13]", "x3", true}, {"x[13]", "x2", false}, {"x[", "x[", false},
		{"*a*a*a*a*a*a*a*a*b", strings.Repeat("a", 5000), false}, // must not take forever
	} {
		if got := matchAlias(c.pattern, c.text); got != c.want {
			t.Errorf("%q against %.20q: %v", c.pattern, c.text, got)
		}
	}
}

func TestReadModulesNeedsItsTables(t *testing.T) {
	for missing := range moduleTables {
		tables := fstest.MapFS{}
		for name, f := range moduleTables {
			if name != missing {
				tables[name] = f
			}
		}
		if _, err := ReadModules(tables); err == nil || !strings.Contains(err.Error(), missing) {
			t.Errorf("without %s: error %v", missing, err)
		}
	}
}
