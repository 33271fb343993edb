package token

import (
	"regexp"
	"strings"
	"testing"
)

var hash = strings.Repeat("0123456789abcdef", 4)

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		want     Token
		err      string // part of the message, empty for success
	}{
		{"full", "K10" + hash + "::server:s3cret", Token{hash, "server", "s3cret"}, ""},
		{"upper-case digits", "K10" + strings.ToUpper(hash) + "::server:s", Token{hash, "server", "s"}, ""},
		{"secret with colons", "K10" + hash + "::server:a::b:c", Token{hash, "server", "a::b:c"}, ""},
		{"from a file", "\tK10" + hash + "::node:x\n", Token{hash, "node", "x"}, ""},
		{"short", "hello", Token{Secret: "hello"}, ""},
		{"short that looks like a prefix", "K10boat", Token{Secret: "K10boat"}, ""},
		{"empty", " \n", Token{}, "it is empty"},
		{"two lines", "a\nb", Token{}, "white space"},
		{"hash too short", "K10abcd::server:x", Token{}, "64 hex digits"},
		{"hash not hex", "K10" + strings.Repeat("z", 64) + "::server:x", Token{}, "64 hex digits"},
		{"no user", "K10" + hash + "::x", Token{}, "user:secret"},
		{"empty user", "K10" + hash + ":::x", Token{}, "user:secret"},
		{"empty secret", "K10" + hash + "::server:", Token{}, "secret is empty"},
		{"a file by mistake", strings.Repeat("x", MaxSecret+1), Token{}, "1024 are allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				if strings.Contains(err.Error(), "s3cret") {
					t.Error("the error shows the secret")
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestBootstrap(t *testing.T) {
	id, secret := Token{Secret: "hello"}.Bootstrap()
	if !regexp.MustCompile(`^[a-z0-9]{6}$`).MatchString(id) || !regexp.MustCompile(`^[a-z0-9]{16}$`).MatchString(secret) {
		t.Fatalf("%s.%s is not a Kubernetes bootstrap token", id, secret)
	}
	// Fielded nodes derive it too: the value may never change.
	if got, want := id+"."+secret, "zcopwd.6c6rgx3xsw2xo5vs"; got != want {
		t.Errorf("derived %s, want %s", got, want)
	}
	full := Token{CAHash: hash, User: User, Secret: "hello"}
	if id2, secret2 := full.Bootstrap(); id2 != id || secret2 != secret {
		t.Error("short and full form of one token derive different bootstrap tokens")
	}
}

func TestGenerateIsNew(t *testing.T) {
	if a, b := Generate(), Generate(); a == b || len(a.Secret) != 32 {
		t.Errorf("generated %q and %q", a.Secret, b.Secret)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("K10" + hash + "::server:s")
	f.Add("short")
	f.Add("K10::")
	f.Fuzz(func(t *testing.T, in string) {
		tok, err := Parse(in)
		if err != nil {
			return
		}
		again, err := Parse(tok.String())
		if err != nil || again != tok {
			t.Fatalf("%q reads as %+v, which writes as %q and reads as %+v, %v", in, tok, tok.String(), again, err)
		}
	})
}
