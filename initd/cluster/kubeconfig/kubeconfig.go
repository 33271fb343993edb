// Package kubeconfig writes kubeconfig files. Components get one that names certificate files, so that client-go
// picks up a renewed certificate without a restart; people get one that carries the certificates, so that it can be copied.
package kubeconfig

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"text/template"
)

// Config is what one kubeconfig says. Exactly one of the pairs CAFile/CAData, CertFile/CertData is set; a Token
// replaces the client certificate.
type Config struct {
	// Name names cluster, user and context, as "default" does in K3s' file.
	Name string
	// Server is the URL of the API server.
	Server string

	CAFile, CertFile, KeyFile string // absolute paths
	CAData, CertData, KeyData []byte // PEM
	Token                     string
}

// The file is JSON-compatible YAML: every value is quoted by %q, whose escapes YAML's double-quoted scalars share.
var file = template.Must(template.New("kubeconfig").Funcs(template.FuncMap{
	"quote": func(s string) string { return fmt.Sprintf("%q", s) },
	"b64":   base64.StdEncoding.EncodeToString,
}).Parse(`apiVersion: v1
kind: Config
clusters:
- name: {{quote .Name}}
  cluster:
    server: {{quote .Server}}
{{- if .CAFile}}
    certificate-authority: {{quote .CAFile}}
{{- else if .CAData}}
    certificate-authority-data: {{b64 .CAData}}
{{- end}}
users:
- name: {{quote .Name}}
  user:
{{- if .Token}}
    token: {{quote .Token}}
{{- else if .CertFile}}
    client-certificate: {{quote .CertFile}}
    client-key: {{quote .KeyFile}}
{{- else if .CertData}}
    client-certificate-data: {{b64 .CertData}}
    client-key-data: {{b64 .KeyData}}
{{- else}} {}
{{- end}}
contexts:
- name: {{quote .Name}}
  context:
    cluster: {{quote .Name}}
    user: {{quote .Name}}
current-context: {{quote .Name}}
`))

// Marshal gives the file's content.
func (c Config) Marshal() []byte {
	if c.Name == "" {
		c.Name = "default"
	}
	var b bytes.Buffer
	if err := file.Execute(&b, c); err != nil {
		panic(err) // the template is fixed and a Buffer never fails
	}
	return b.Bytes()
}
