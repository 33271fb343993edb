package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/skerryos/skerry/builder/vm"
)

// escapeKey is the byte that Ctrl-A sends; the key after it is for us, not for the machine. QEMU has the same.
const escapeKey = 'a' & 0x1f

const keysHelp = "after Ctrl-A: p power button, x pull the plug, r reset button, a Ctrl-A itself, h these keys"

// attachTerminal sends what is typed to the machine's console. If the input is a terminal, each key goes there at once and
// Ctrl-C is a key like any other; restore brings the terminal back.
func attachTerminal(m *vm.VM, in io.Reader, say func(string, ...any)) (restore func(), err error) {
	restore = func() {}
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		state, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return nil, fmt.Errorf("cannot take over the terminal: %w", err)
		}
		restore = func() { _ = term.Restore(int(f.Fd()), state) } // nothing is left to do if it fails
		say("%s", keysHelp)
	}
	buttons := map[byte]func(){
		'p': func() { report(say, m.PowerButton(context.Background())) },
		'r': func() { report(say, m.Reset(context.Background())) },
		'x': m.Kill,
		'h': func() { say("%s", keysHelp) },
	}
	// Reading ends with the process: a read of a terminal cannot be called off.
	go pumpKeys(in, m.Console, buttons)
	return restore, nil
}

func report(say func(string, ...any), err error) {
	if err != nil {
		say("%v", err)
	}
}

// pumpKeys copies keys until the end of the input or the output's first error, and presses buttons for those that follow
// the escape key. An unknown one is dropped.
func pumpKeys(in io.Reader, out io.Writer, buttons map[byte]func()) {
	buffer := make([]byte, 256)
	escaped := false
	for {
		n, err := in.Read(buffer)
		var typed bytes.Buffer
		for _, key := range buffer[:n] {
			switch {
			case !escaped && key == escapeKey:
				escaped = true
				continue
			case !escaped:
				typed.WriteByte(key)
			case key == 'a' || key == escapeKey:
				typed.WriteByte(escapeKey)
			case buttons[key] != nil:
				buttons[key]()
			}
			escaped = false
		}
		if typed.Len() > 0 {
			if _, err := out.Write(typed.Bytes()); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
