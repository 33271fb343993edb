package uboot

import (
	"strings"
	"testing"
)

// program is around an environment as around U-Boot's.
func program(environment string) string {
	return "\x7fcode\x00bootcmd\x00bootdelay=\x00\x00" + strings.ReplaceAll(environment, "|", "\x00") + "\x00\x00more\x00code"
}

func TestSetEnvironment(t *testing.T) {
	const before = "bootcmd=scan|bootdelay=2|stdin=serial,usb|spare=0123456789"
	tests := []struct {
		name, program string
		set, unset    []string
		want          string // the environment
		err           string
	}{
		{name: "nothing", program: program(before), want: before},
		{
			name: "longer, with the room of another", program: program(before),
			set: []string{"bootdelay=-2", "bootcmd=scan; reset"}, unset: []string{"spare"},
			want: "bootcmd=scan; reset|bootdelay=-2|stdin=serial,usb|||||||||",
		},
		{
			name: "new ones come last", program: program(before),
			set: []string{"a=1", "b=2"}, unset: []string{"spare"},
			want: "bootcmd=scan|bootdelay=2|stdin=serial,usb|a=1|b=2|||||||||",
		},
		{name: "no room", program: program(before), set: []string{"bootdelay=-22"}, err: "2 bytes are missing"},
		{name: "the beginning of a name is another one", program: program("bootcmd=scan|spare1=1|spare=1"), unset: []string{"spare"}, want: "bootcmd=scan|spare1=1||||||||"},
		{name: "nothing to unset", program: program(before), unset: []string{"spare", "more"}, err: "no variable more to unset"},
		{name: "empty value", program: program(before), set: []string{"bootdelay="}, err: `cannot set "bootdelay="`},
		{name: "zero byte", program: program(before), set: []string{"bootdelay=1\x00"}, err: "without zero bytes"},
		{name: "no name", program: program(before), set: []string{"=1"}, err: `cannot set "=1"`},
		{name: "no environment", program: "bootcmd=scan\x00\x00", err: "no place in U-Boot's program"},
		{name: "two environments", program: program(before) + program(before), err: "or more than one"},
		{name: "cut off", program: "\x00bootcmd=scan\x00bootdelay", err: "has no end"},
		{name: "something else", program: program("bootcmd=scan|another text"), err: `"another text" in it, which is no variable`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			given := test.program
			got, err := SetEnvironment([]byte(given), test.set, test.unset)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got %v, want an error with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := program(test.want); string(got) != want {
				t.Errorf("got\n%q, want\n%q", got, want)
			}
		})
	}
}
