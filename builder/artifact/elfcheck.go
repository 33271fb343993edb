package artifact

import (
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/skerryos/skerry/builder/plan"
)

// CheckLinks verifies that every dynamic program and library of the tree finds its interpreter and its libraries
// there, where ld.so(8) looks without a cache: the run path, and below /usr/lib (Debian's ld.so has the multiarch folder and /usr/lib built in). Otherwise the
// mistake would show on the device, as "No such file or directory" about a file that exists.
//
// known are the packages that the plan unpacks; they serve to say what to add.
func CheckLinks(t *Tree, target plan.Target, known []*Unpacked) error {
	var errs []error
	for _, e := range t.Entries() {
		if !e.Mode.IsRegular() || e.Content.Bytes < 4 || strings.HasPrefix(e.Path, "/usr/lib/modules/") {
			continue
		}
		needs, err := readNeeds(e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if needs == nil {
			continue
		}
		if needs.interpreter != "" {
			if _, err := t.Resolve(needs.interpreter); err != nil {
				errs = append(errs, fmt.Errorf("%s (from %s) needs the interpreter %s, which is not in the root file system; %s", e.Path, e.Origin, needs.interpreter, whatToAdd(path.Base(needs.interpreter), known)))
			}
		}
		dirs := append(needs.runPath, "/usr/lib/"+target.Triplet, "/usr/lib")
		for _, lib := range needs.libraries {
			found := false
			for _, d := range dirs {
				_, err := t.Resolve(path.Join(d, lib))
				found = found || err == nil
			}
			if !found {
				errs = append(errs, fmt.Errorf("%s (from %s) needs the library %s, which is not in the root file system; %s", e.Path, e.Origin, lib, whatToAdd(lib, known)))
			}
		}
	}
	return errors.Join(errs...)
}

// needs is what the dynamic section of an ELF file asks for.
type needs struct {
	interpreter string
	libraries   []string
	runPath     []string
}

// readNeeds returns nil for a file that is not ELF or asks for nothing.
func readNeeds(e Entry) (*needs, error) {
	r, err := e.Content.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return nil, err
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("cannot read ELF file %s (from %s): %w", e.Path, e.Origin, err)
	}
	n := &needs{}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("cannot read the interpreter of %s (from %s): %w", e.Path, e.Origin, err)
		}
		n.interpreter = strings.TrimRight(string(b), "\x00")
	}
	if f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return n, nil
	}
	if n.libraries, err = f.ImportedLibraries(); err != nil {
		return nil, fmt.Errorf("cannot read the libraries of %s (from %s): %w", e.Path, e.Origin, err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		list, err := f.DynString(tag)
		if err != nil {
			return nil, fmt.Errorf("cannot read the run path of %s (from %s): %w", e.Path, e.Origin, err)
		}
		for _, s := range list {
			for _, d := range strings.Split(s, ":") {
				d = strings.NewReplacer("$ORIGIN", path.Dir(e.Path), "${ORIGIN}", path.Dir(e.Path)).Replace(d)
				n.runPath = append(n.runPath, d)
			}
		}
	}
	return n, nil
}

// whatToAdd looks for a file of that name in the packages at hand.
func whatToAdd(name string, known []*Unpacked) string {
	for _, u := range known {
		for _, n := range u.Names() {
			if path.Base(n) == name {
				return fmt.Sprintf("add %s to the files of package %s", n, u.Package.Name)
			}
		}
	}
	return "add the Debian package that ships it to the profile, with this file"
}
