package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindFirmware(t *testing.T) {
	const usual = `{"interface-types": ["uefi"], "targets": [{"architecture": "%s", "machines": ["%s"]}], "features": [%s],
		"mapping": {"device": "flash", "executable": {"filename": "%s", "format": "raw"}, "nvram-template": {"filename": "%s", "format": "raw"}}}`
	tests := []struct {
		name string
		// descriptors by file name: architecture, machines, features, code file (made if its name does not begin with "missing")
		descriptors map[string][4]string
		want        string // code file
		wantErr     string
	}{
		{
			name: "first by name that fits",
			descriptors: map[string][4]string{
				"40-enrolled.json": {"x86_64", "pc-q35-*", `"enrolled-keys"`, "enrolled.fd"},
				"50-secure.json":   {"x86_64", "pc-q35-*", `"requires-smm"`, "secure.fd"},
				"55-arm.json":      {"aarch64", "virt-*", ``, "arm.fd"},
				"60-plain.json":    {"x86_64", "pc-q35-*", `"acpi-s3"`, "plain.fd"},
				"70-plain.json":    {"x86_64", "pc-q35-*", ``, "later.fd"},
			},
			want: "plain.fd",
		},
		{
			name: "a descriptor without its files is passed over",
			descriptors: map[string][4]string{
				"60-plain.json": {"x86_64", "pc-q35-*", ``, "missing.fd"},
				"70-plain.json": {"x86_64", "pc-q35-*", ``, "present.fd"},
			},
			want: "present.fd",
		},
		{
			name:        "none",
			descriptors: map[string][4]string{"50-i440fx.json": {"x86_64", "pc-i440fx-*", ``, "bios.fd"}},
			wantErr:     "install QEMU",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, d := range test.descriptors {
				code, vars := filepath.Join(dir, d[3]), filepath.Join(dir, "vars-"+d[3])
				if !strings.HasPrefix(d[3], "missing") {
					for _, file := range []string{code, vars} {
						if err := os.WriteFile(file, nil, 0o644); err != nil {
							t.Fatal(err)
						}
					}
				}
				text := fmt.Sprintf(usual, d[0], d[1], d[2], code, vars)
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := findFirmware(machines["amd64"], []string{filepath.Join(dir, "absent"), dir})
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("got error %v, want one with %q", err, test.wantErr)
				}
				return
			}
			want := Firmware{filepath.Join(dir, test.want), filepath.Join(dir, "vars-"+test.want)}
			if err != nil || got != want {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
		})
	}
}

func TestFindFirmwareBrokenDescriptor(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "1.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := findFirmware(machines["amd64"], []string{dir})
	if err == nil || !strings.Contains(err.Error(), "1.json") {
		t.Errorf("got error %v, want one that names the file", err)
	}
}
