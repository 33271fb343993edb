package agent

import (
	"errors"
	"testing"

	bootstrap "k8s.io/cluster-bootstrap/token/jws"

	"github.com/skerryos/skerry/initd/cluster/kubeconfig"
	"github.com/skerryos/skerry/initd/cluster/token"
)

func TestVerifyInfo(t *testing.T) {
	ca := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	content := string(kubeconfig.Config{Server: "https://192.0.2.1:6443", CAData: ca}.Marshal())
	short := token.Token{Secret: "hello"}
	sign := func(tok token.Token, content string) map[string]string {
		id, secret := tok.Bootstrap()
		s, err := bootstrap.ComputeDetachedSignature(content, id, secret)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"kubeconfig": content, "jws-kubeconfig-" + id: s}
	}
	forged := sign(short, content)
	forged["kubeconfig"] = string(kubeconfig.Config{Server: "https://192.0.2.1:6443", CAData: []byte("evil")}.Marshal())
	otherSecret := sign(short, content)
	id, _ := short.Bootstrap()
	otherSecret["jws-kubeconfig-"+id], _ = bootstrap.ComputeDetachedSignature(content, id, "0000000000000000")

	tests := []struct {
		name      string
		data      map[string]string
		token     token.Token
		ok        bool
		untrusted bool // giving up is right
	}{
		{"full token, no signature needed", map[string]string{"kubeconfig": content}, short.Full(ca), true, false},
		{"full token of another cluster", map[string]string{"kubeconfig": content}, short.Full([]byte("other")), false, true},
		{"short token, signed", sign(short, content), short, true, false},
		{"short token, not signed yet", map[string]string{"kubeconfig": content}, short, false, false},
		{"short token, signed by another token", sign(token.Token{Secret: "x"}, content), short, false, false},
		{"short token, authority exchanged", forged, short, false, true},
		{"short token, signer knows the id only", otherSecret, short, false, true},
		{"no kubeconfig", map[string]string{}, short, false, false},
		{"no authority", map[string]string{"kubeconfig": string(kubeconfig.Config{Server: "https://x"}.Marshal())}, short.Full(ca), false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := verifyInfo(tt.data, tt.token)
			if tt.ok != (err == nil) || errors.Is(err, errUntrusted) != tt.untrusted {
				t.Fatalf("error %v, want success %v, untrusted %v", err, tt.ok, tt.untrusted)
			}
			if tt.ok && string(got) != string(ca) {
				t.Errorf("authority %q", got)
			}
		})
	}
}
