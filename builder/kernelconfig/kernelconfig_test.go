package kernelconfig

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skerryos/skerry/builder/plan"
)

func TestParse(t *testing.T) {
	_, err := Parse("x.config", []byte(`# a comment
CONFIG_CGROUPS=y # limits

## stage: boot
CONFIG_EXT4_FS=m # ext4: data
CONFIG_EVIL=n # hardening
## stage: probe
CONFIG_SND=m # snd_a,snd-b: sound: loud
`))
	if err == nil || !strings.Contains(err.Error(), "x.config:8: CONFIG_SND=m does not name its modules") {
		t.Errorf("a module with a dash: got %v", err)
	}
	got, err := Parse("x.config", []byte(`# a comment
CONFIG_CGROUPS=y # limits

## stage: boot
CONFIG_EXT4_FS=m # ext4: data
CONFIG_EVIL=n # hardening
## stage: probe
CONFIG_SND=m # snd_a,snd_b: sound: loud
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []plan.Option{
		{Name: "CONFIG_CGROUPS", Value: "y", Reason: "limits", Origin: "x.config:2"},
		{Name: "CONFIG_EXT4_FS", Value: "m", Modules: []string{"ext4"}, Stage: "boot", Reason: "data", Origin: "x.config:5"},
		{Name: "CONFIG_EVIL", Value: "n", Reason: "hardening", Origin: "x.config:6"},
		{Name: "CONFIG_SND", Value: "m", Modules: []string{"snd_a", "snd_b"}, Stage: "probe", Reason: "sound: loud", Origin: "x.config:8"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Lines can be for some processors only, and a module can have one name in one kernel and another in the next.
func TestParseOfWhatIsNotTheSameEverywhere(t *testing.T) {
	got, err := Parse("x.config", []byte(`## architectures: amd64, arm64
CONFIG_KASLR=y # hardening
## architectures: all
## stage: boot
CONFIG_CRC=m # crc_generic|crc_cryptoapi: checksums
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []plan.Option{
		{Name: "CONFIG_KASLR", Value: "y", Architectures: []string{"amd64", "arm64"}, Reason: "hardening", Origin: "x.config:2"},
		{Name: "CONFIG_CRC", Value: "m", Modules: []string{"crc_generic|crc_cryptoapi"}, Stage: "boot", Reason: "checksums", Origin: "x.config:5"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, has := range []string{"crc_generic", "crc_cryptoapi", "crc"} {
		k := Kernel{Name: "kernel", Values: map[string]string{"CONFIG_CRC": "m"}, Modules: map[string]bool{has: true}}
		if err := Check(got[1:], k); (err == nil) != (has != "crc") {
			t.Errorf("a kernel with %s: %v", has, err)
		}
	}
	if _, err := Parse("x.config", []byte("## architectures: amd64, x86\n")); err == nil || !strings.Contains(err.Error(), `unknown architecture "x86"`) {
		t.Errorf("unknown architecture: %v", err)
	}
}

func TestParseMistakes(t *testing.T) {
	_, err := Parse("x.config", []byte(`CONFIG_EARLY=m # early: before a stage
## stage: late
## stage: load
CONFIG_A=m # no modules here
CONFIG_B=y
CONFIG_C=y #
CONFIG_D=maybe # why
CONFIG_E=y # once
CONFIG_E=y # twice
export PATH
CONFIG_F=m # f:
`))
	want := `x.config:1: CONFIG_EARLY=m is before the first stage: write a line such as ## stage: load
x.config:2: unknown stage "late"; allowed here: boot, disk, load, probe
x.config:4: CONFIG_A=m does not name its modules: write # module,module: reason
x.config:5: cannot read "CONFIG_B=y": a line is CONFIG_NAME=y|m|n # module,module: reason
x.config:6: CONFIG_C has no reason: say in a few words why an image needs it
x.config:7: cannot read "CONFIG_D=maybe # why": a line is CONFIG_NAME=y|m|n # module,module: reason
x.config:9: CONFIG_E was already given in line 8
x.config:10: cannot read "export PATH": a line is CONFIG_NAME=y|m|n # module,module: reason
x.config:11: CONFIG_F has no reason: say in a few words why an image needs it`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestCheck(t *testing.T) {
	k := Kernel{Name: "kernel 6.12"}
	k.ReadConfig([]byte("# CONFIG_OFF is not set\nCONFIG_BUILTIN=y\nCONFIG_MODULE=m\nCONFIG_NUMBER=17\nCONFIG_TEXT=\"x\"\n"))
	k.ReadBuiltin([]byte("kernel/fs/fuse/fuse.ko\nkernel/drivers/char/virtio-console.ko\n"))
	k.AddModule("usr/lib/modules/6.12/kernel/fs/ext4/ext4.ko.xz")
	k.AddModule("usr/lib/modules/6.12/kernel/drivers/usb/storage/usb-storage.ko")
	for _, c := range []struct {
		option plan.Option
		want   string // empty: met
	}{
		{plan.Option{Name: "CONFIG_BUILTIN", Value: "y"}, ""},
		{plan.Option{Name: "CONFIG_MODULE", Value: "y"}, "must be built in (y), but is m in kernel 6.12"},
		{plan.Option{Name: "CONFIG_NUMBER", Value: "y"}, "must be built in (y), but is 17 in kernel 6.12"},
		{plan.Option{Name: "CONFIG_OFF", Value: "y"}, "is not set in kernel 6.12"},
		{plan.Option{Name: "CONFIG_ABSENT", Value: "m", Modules: []string{"ext4"}}, "is not set in kernel 6.12"},
		{plan.Option{Name: "CONFIG_MODULE", Value: "m", Modules: []string{"ext4"}}, ""},
		{plan.Option{Name: "CONFIG_MODULE", Value: "m", Modules: []string{"usb_storage"}}, ""},
		{plan.Option{Name: "CONFIG_BUILTIN", Value: "m", Modules: []string{"fuse", "virtio_console"}}, ""},
		{plan.Option{Name: "CONFIG_MODULE", Value: "m", Modules: []string{"ext4", "ext5"}}, "kernel 6.12 has no module ext5, neither as a file nor built in; is its name right?"},
		{plan.Option{Name: "CONFIG_OFF", Value: "n"}, ""},
		{plan.Option{Name: "CONFIG_MODULE", Value: "n"}, "must not be set, but is m in kernel 6.12"},
	} {
		c.option.Origin, c.option.Reason = "x.config:1", "why"
		want := c.want
		if want != "" {
			want = "x.config:1: " + c.option.Name + " (why): " + want
		}
		err := Check([]plan.Option{c.option}, k)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s=%s %v: got %q, want %q", c.option.Name, c.option.Value, c.option.Modules, got, want)
		}
	}
	err := Check([]plan.Option{{Name: "CONFIG_X", Value: "y", Origin: "a:1"}, {Name: "CONFIG_Y", Value: "y", Origin: "b:2"}}, k)
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two options that are missing must be two lines, got: %v", err)
	}
}
