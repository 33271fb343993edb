package uboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/skerryos/skerry/initd/slot/slottest"
)

// A board is U-Boot on a machine of slottest: its variables, its memory and the commands that our scripts use.
type board struct {
	machine   *slottest.UBoot
	variables map[string]string
	loops     map[string]string // variables of for, which lie beneath the environment
	memory    map[uint64][]byte
	commands  map[string]command
	// said is what echo has printed, started what was started.
	said    []string
	started started
}

// partition is the boot partition, as U-Boot names it.
const partition = "1234abcd-01"

// What was started.
type started struct {
	image                    []byte
	arguments, slot, command string
}

// What ends a script before its end.
var (
	errStarted = errors.New("the kernel is started")
	errReset   = errors.New("reset")
)

func newBoard(m *slottest.UBoot, fdtfile string) *board {
	return &board{machine: m, commands: commands(), loops: map[string]string{}, memory: map[uint64][]byte{},
		variables: map[string]string{"devtype": "mmc", "devnum": "0", "fdtfile": fdtfile}}
}

// boot runs the boot script of a board that is switched on.
func (b *board) boot(script []byte) error {
	b.memory[0] = script
	_, err := b.source(0)
	return err
}

// source runs a script in memory. Like U-Boot it refuses one whose checksums are wrong.
func (b *board) source(at uint64) (ok bool, err error) {
	image := b.memory[at]
	be := binary.BigEndian
	if len(image) < 72 || be.Uint32(image) != 0x27051956 {
		return false, nil
	}
	header := bytes.Clone(image[:64])
	be.PutUint32(header[4:], 0)
	if be.Uint32(image[4:]) != crc32.ChecksumIEEE(header) || be.Uint32(image[24:]) != crc32.ChecksumIEEE(image[64:]) {
		return false, nil
	}
	n, err := parse(string(image[72:]))
	if err != nil {
		return false, err
	}
	return b.run(n)
}

func (b *board) value(name string) string {
	if v, ok := b.variables[name]; ok {
		return v
	}
	return b.loops[name]
}

// expand makes arguments of words. A variable outside of quotes is split at spaces, and is nothing if it is empty.
func (b *board) expand(words []word) []string {
	var out []string
	for _, w := range words {
		text, any := "", false
		for _, p := range w {
			v := p.text
			if p.variable {
				v = b.value(p.text)
			}
			if p.variable && !p.quoted && len(w) == 1 {
				out = append(out, strings.Fields(v)...)
				continue
			}
			text, any = text+v, true
		}
		if any {
			out = append(out, text)
		}
	}
	return out
}

func (b *board) run(n node) (ok bool, err error) {
	switch n.kind {
	case "command":
		args := b.expand(n.words)
		if len(args) > 16 {
			return false, fmt.Errorf("%s has more than the 16 words that U-Boot takes for certain (CONFIG_SYS_MAXARGS)", args[0])
		}
		return b.command(args)
	case "&&", "||":
		ok, err = b.run(n.nodes[0])
		if err != nil || ok == (n.kind == "||") {
			return ok, err
		}
		return b.run(n.nodes[1])
	case "if":
		ok, err = b.run(n.nodes[0])
		switch {
		case err != nil:
			return ok, err
		case ok:
			return b.run(n.nodes[1])
		case len(n.nodes) == 3:
			return b.run(n.nodes[2])
		}
		return true, nil
	case "for":
		for _, item := range b.expand(n.words) {
			if _, taken := b.variables[n.name]; taken {
				return false, fmt.Errorf("variable %s of a for is hidden by one of the environment", n.name)
			}
			b.loops[n.name] = item
			if ok, err = b.run(n.nodes[0]); err != nil {
				return ok, err
			}
		}
		return ok, nil
	}
	for _, c := range n.nodes { // list
		if ok, err = b.run(c); err != nil {
			return ok, err
		}
	}
	return ok, nil
}

// hexadecimal reads a number as most of U-Boot does.
func hexadecimal(s string) uint64 {
	s = strings.TrimPrefix(s, "0x")
	n := 0
	for n < len(s) && strings.ContainsRune("0123456789abcdefABCDEF", rune(s[n])) {
		n++
	}
	v, _ := strconv.ParseUint(s[:n], 16, 64) // no digits: 0
	return v
}

// A command has so many words, or any number if it is -1.
type command struct {
	words int
	do    func(*board, []string) (bool, error)
}

func commands() map[string]command {
	nothing := func(*board, []string) (bool, error) { return true, nil }
	return map[string]command{
		"echo": {-1, func(b *board, a []string) (bool, error) {
			b.said = append(b.said, strings.Join(a[1:], " "))
			return true, nil
		}},
		"setenv": {-1, (*board).setenv}, "env": {-1, (*board).env},
		"setexpr": {5, (*board).setexpr}, "test": {4, (*board).test}, "itest": {4, (*board).itest},
		"mmc": {-1, (*board).disk}, "usb": {-1, (*board).disk}, "load": {5, (*board).load},
		"part": {5, func(b *board, a []string) (bool, error) {
			if a[1] != "uuid" || a[2] != b.variables["devtype"] || a[3] != b.variables["devnum"]+":1" {
				return false, fmt.Errorf("cannot run %q", a)
			}
			b.variables[a[4]] = partition
			return true, nil
		}},
		"source": {2, func(b *board, a []string) (bool, error) { return b.source(hexadecimal(a[1])) }},
		"mw.l": {4, func(b *board, a []string) (bool, error) {
			b.memory[hexadecimal(a[1])] = binary.LittleEndian.AppendUint32(nil, uint32(hexadecimal(a[2])))
			return true, nil
		}},
		"booti": {4, (*board).start}, "bootz": {4, (*board).start},
		"fdt": {3, nothing}, "sleep": {2, nothing},
		"reset": {1, func(*board, []string) (bool, error) { return false, errReset }},
	}
}

func (b *board) command(args []string) (bool, error) {
	if len(args) == 0 {
		return false, errors.New("a command is empty")
	}
	c, known := b.commands[args[0]]
	if !known || c.words >= 0 && len(args) != c.words {
		return false, fmt.Errorf("cannot run %q", args)
	}
	return c.do(b, args)
}

func (b *board) setenv(a []string) (bool, error) {
	if len(a) < 3 {
		return false, fmt.Errorf("%q would delete the variable", a)
	}
	b.variables[a[1]] = strings.Join(a[2:], " ")
	return true, nil
}

func (b *board) setexpr(a []string) (bool, error) {
	x, y := hexadecimal(a[2]), hexadecimal(a[4])
	switch a[3] {
	case "+":
		x += y
	case "-":
		x -= y
	default:
		return false, fmt.Errorf("cannot compute %q", a)
	}
	b.variables[a[1]] = strconv.FormatUint(x, 16)
	return true, nil
}

func (b *board) test(a []string) (bool, error) {
	if a[2] != "=" {
		return false, fmt.Errorf("cannot test %q", a)
	}
	return a[1] == a[3], nil
}

func (b *board) itest(a []string) (bool, error) {
	if a[2] != ">" {
		return false, fmt.Errorf("cannot test %q", a)
	}
	return uint32(hexadecimal(a[1])) > uint32(hexadecimal(a[3])), nil
}

func (b *board) env(a []string) (bool, error) {
	switch line := strings.Join(a, " "); {
	case strings.HasPrefix(line, "env import -c ") && len(a) > 5 && a[4] == "200":
		block := b.memory[hexadecimal(a[3])]
		if len(block) != sectorSize {
			return false, fmt.Errorf("%s: there is no block", line)
		}
		values, valid := slottest.DecodeEnv(block)
		if !valid {
			return false, nil
		}
		for _, key := range a[5:] { // those that the block does not have are deleted
			delete(b.variables, key)
			if v, has := values[key]; has {
				b.variables[key] = v
			}
		}
		return true, nil
	case strings.HasPrefix(line, "env export -c -s 200 ") && len(a) > 6:
		at := hexadecimal(a[5])
		for other := range maps.Keys(b.memory) {
			if other > at && other < at+envSize {
				delete(b.memory, other) // cleared
			}
		}
		b.memory[at] = slottest.EncodeEnv(a[6:], func(key string) string { return b.variables[key] }, sectorSize)
		return true, nil
	}
	return false, fmt.Errorf("cannot run %q", a)
}

// disk is mmc, usb and the like: dev, read, write.
func (b *board) disk(a []string) (bool, error) {
	switch {
	case a[0] != b.variables["devtype"]:
	case len(a) == 3 && a[1] == "dev":
		return a[2] == b.variables["devnum"], nil
	case len(a) == 5 && a[1] == "read" && a[4] == "1":
		data, err := b.machine.ReadSector(hexadecimal(a[3]))
		if err != nil {
			return false, nil
		}
		b.memory[hexadecimal(a[2])] = bytes.Clone(data)
		return true, nil
	case len(a) == 5 && a[1] == "write" && a[4] == "1":
		err, cut := b.machine.WriteSector(hexadecimal(a[3]), b.memory[hexadecimal(a[2])])
		return err == nil, cut
	}
	return false, fmt.Errorf("cannot run %q", a)
}

func (b *board) load(a []string) (bool, error) {
	if a[1] != b.variables["devtype"] || a[2] != b.variables["devnum"]+":1" {
		return false, fmt.Errorf("cannot run %q", a)
	}
	data, err := b.machine.Load(a[4])
	if err != nil {
		return false, nil
	}
	at := hexadecimal(a[3])
	if len(data) > 0 {
		b.memory[at] = data
	}
	b.variables["filesize"] = strconv.FormatInt(int64(len(data)), 16)
	return true, nil
}

// start is booti and bootz: kernel, initramfs with its size, device tree. All were loaded in this boot, or it is an error.
func (b *board) start(a []string) (bool, error) {
	initramfs, size, _ := strings.Cut(a[2], ":")
	k, i, d := b.memory[hexadecimal(a[1])], b.memory[hexadecimal(initramfs)], b.memory[hexadecimal(a[3])]
	if k == nil || i == nil || d == nil || hexadecimal(size) != uint64(len(i)) {
		return false, fmt.Errorf("%q: something was not loaded", a)
	}
	b.started = started{slices.Concat(k, d, i), b.variables["bootargs"], b.variables["slot"], a[0]}
	return false, errStarted
}
