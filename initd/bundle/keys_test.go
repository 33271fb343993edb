package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

func text(t *testing.T, k Keys) string {
	t.Helper()
	b, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	for name, k := range map[string]signer{"owner": owner, "stranger": stranger, "third": third} {
		s = strings.ReplaceAll(strings.ReplaceAll(s, k.public.String(), name), KeyID(k.public), name)
	}
	return s
}

var third = newSigner(3)

// twin is the stranger's key under the owner's identifier, which is not part of what a key signs.
func twin(t *testing.T) string {
	t.Helper()
	k := strings.Replace(stranger.public.String(), stranger.public.String()[:14], owner.public.String()[:14], 1)
	// The identifier ends within a digit of base64: take a twin whose identifier is exactly the owner's.
	p, err := ParsePublicKey(k)
	if err != nil || KeyID(p) != KeyID(owner.public) {
		t.Fatalf("not a twin: %s, %v", KeyID(p), err)
	}
	return k
}

func TestApply(t *testing.T) {
	id := func(s signer) string { return KeyID(s.public) }
	for _, tt := range []struct {
		name   string
		change KeyChange
		want   string // the keys afterwards
		err    string
	}{
		{"nothing", KeyChange{}, `{"trusted":["owner"],"retired":["third"]}`, ""},
		{"add", KeyChange{Add: []string{stranger.public.String()}}, `{"trusted":["owner","stranger"],"retired":["third"]}`, ""},
		{"add what is there", KeyChange{Add: []string{owner.public.String()}}, `{"trusted":["owner"],"retired":["third"]}`, ""},
		{"rotate", KeyChange{Add: []string{stranger.public.String()}, Retire: []string{id(owner)}}, `{"trusted":["stranger"],"retired":["third","owner"]}`, ""},
		{"retire what is retired", KeyChange{Retire: []string{id(third)}}, `{"trusted":["owner"],"retired":["third"]}`, ""},
		{"retire what was never there", KeyChange{Retire: []string{id(stranger)}}, `{"trusted":["owner"],"retired":["third","stranger"]}`, ""},
		{"retire the last", KeyChange{Retire: []string{id(owner)}}, `{"trusted":["owner"],"retired":["third"]}`, "no trusted key would be left"},
		{"bring back", KeyChange{Add: []string{third.public.String()}}, `{"trusted":["owner"],"retired":["third"]}`, "is retired"},
		{"one good, one retired", KeyChange{Add: []string{stranger.public.String(), third.public.String()}}, `{"trusted":["owner"],"retired":["third"]}`, "is retired"},
		{"another key of the same identifier", KeyChange{Add: []string{twin(t)}}, `{"trusted":["owner"],"retired":["third"]}`, "another key has this identifier"},
		{"not a key", KeyChange{Add: []string{"key"}}, `{"trusted":["owner"],"retired":["third"]}`, "not a public key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := Keys{trusted: []PublicKey{owner.public}, retired: []string{KeyID(third.public)}}
			err := k.Apply(tt.change)
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error is %v, want %q", err, tt.err)
			}
			if got := text(t, k); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
			if err == nil {
				if err := k.Apply(tt.change); err != nil || text(t, k) != tt.want {
					t.Errorf("applied again: %s, %v", text(t, k), err)
				}
			}
		})
	}
}

func TestRetiredKeys(t *testing.T) {
	stream, _ := create(t)
	var k Keys
	k.Trust(owner.public, stranger.public, owner.public)
	if r, err := k.Open(bytes.NewReader(stream)); err != nil || r.Signer() != KeyID(owner.public) {
		t.Fatalf("trusted: %v", err)
	}
	if err := k.Apply(KeyChange{Retire: []string{KeyID(owner.public)}}); err != nil {
		t.Fatal(err)
	}
	// An image that still lists the key does not bring it back.
	k.Trust(owner.public)
	_, err := k.Open(bytes.NewReader(stream))
	var u *UntrustedError
	if !errors.As(err, &u) || !u.Retired || u.KeyID != KeyID(owner.public) || !strings.Contains(err.Error(), "retired") {
		t.Errorf("retired: %v", err)
	}
	if got := text(t, k); got != `{"trusted":["stranger"],"retired":["owner"]}` {
		t.Errorf("keys are %s", got)
	}
}

func TestKeysState(t *testing.T) {
	k := Keys{trusted: []PublicKey{owner.public, stranger.public}, retired: []string{KeyID(third.public)}}
	b, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var again Keys
	if err := json.Unmarshal(b, &again); err != nil || text(t, again) != text(t, k) {
		t.Errorf("came back as %s: %v", text(t, again), err)
	}
	for name, bad := range map[string]string{
		"unknown field": `{"trusted":[],"retired":[],"colour":1}`,
		"bad key":       `{"trusted":["x"],"retired":[]}`,
		"bad id":        `{"trusted":[],"retired":["x"]}`,
		"list":          `[]`,
	} {
		if err := json.Unmarshal([]byte(bad), &again); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if text(t, again) != text(t, k) {
		t.Error("what could not be read changed the keys")
	}
}

func TestReadKeys(t *testing.T) {
	file := func(k PublicKey) *fstest.MapFile {
		b, err := k.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		return &fstest.MapFile{Data: append(b, '\n')}
	}
	dir := fstest.MapFS{"b.pub": file(owner.public), "a.pub": file(stranger.public), "README": {Data: []byte("x")}}
	keys, err := ReadKeys(dir)
	if err != nil || len(keys) != 2 || !keys[0].Equal(stranger.public) || !keys[1].Equal(owner.public) {
		t.Errorf("keys are %v: %v", keys, err)
	}
	dir["c.pub"] = &fstest.MapFile{Data: []byte("hello")}
	if _, err := ReadKeys(dir); err == nil || !strings.Contains(err.Error(), "c.pub") {
		t.Errorf("a file that is no key: %v", err)
	}
	if keys, err := ReadKeys(fstest.MapFS{}); err != nil || keys != nil {
		t.Errorf("empty folder: %v, %v", keys, err)
	}
}
