package kubeconfig

import (
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func TestMarshalIsReadByClientGo(t *testing.T) {
	tests := []struct {
		name string
		in   Config
		user string // what client-go must see as credentials
	}{
		{"files", Config{Server: "https://127.0.0.1:6443", CAFile: "/var/a b/ca.crt", CertFile: "/c.crt", KeyFile: "/c.key"}, "/c.crt /c.key  "},
		{"data", Config{Server: "https://[::1]:6443", CAData: []byte("ca"), CertData: []byte("cert\n"), KeyData: []byte("key")}, "  cert\n key"},
		{"token", Config{Server: "https://a:1", CAData: []byte("ca"), Token: "abc.def"}, "abc.def"},
		{"anonymous", Config{Server: "https://a:1"}, "   "},
		{"odd name", Config{Name: "a: \"b\" # c", Server: "https://a:1"}, "   "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := clientcmd.Load(tt.in.Marshal())
			if err != nil {
				t.Fatalf("%v in\n%s", err, tt.in.Marshal())
			}
			name := tt.in.Name
			if name == "" {
				name = "default"
			}
			ctx := got.Contexts[got.CurrentContext]
			if got.CurrentContext != name || ctx == nil {
				t.Fatalf("current context %q of %v", got.CurrentContext, got.Contexts)
			}
			cluster, user := got.Clusters[ctx.Cluster], got.AuthInfos[ctx.AuthInfo]
			if cluster.Server != tt.in.Server || cluster.CertificateAuthority != tt.in.CAFile || string(cluster.CertificateAuthorityData) != string(tt.in.CAData) {
				t.Errorf("cluster %+v", cluster)
			}
			creds := user.Token
			if creds == "" {
				creds = user.ClientCertificate + " " + user.ClientKey + " " + string(user.ClientCertificateData) + " " + string(user.ClientKeyData)
			}
			if creds != tt.user {
				t.Errorf("credentials %q, want %q", creds, tt.user)
			}
		})
	}
}
