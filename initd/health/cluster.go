package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
)

// A Cluster answers questions about Kubernetes objects, with the rights of a kubeconfig file. It speaks plain HTTPS:
// client-go has no place in process 1.
type Cluster struct {
	path string

	mu         sync.Mutex
	kubeconfig []byte // that client was made from
	client     *http.Client
	server     string
}

// NewCluster makes a Cluster from the path of a kubeconfig, which need not exist yet and may change at any time.
func NewCluster(path string) *Cluster { return &Cluster{path: path} }

// connect reads the kubeconfig and makes a client, unless that was done already.
func (c *Cluster) connect() (*http.Client, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, err := os.ReadFile(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", errors.New("the control plane has not started yet")
	case err != nil:
		return nil, "", err
	case c.client != nil && bytes.Equal(text, c.kubeconfig):
		return c.client, c.server, nil
	}
	server, security, err := parseKubeconfig(text)
	if err != nil {
		return nil, "", fmt.Errorf("cannot use %s: %w", c.path, err)
	}
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	c.kubeconfig, c.server = text, server
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: security, MaxIdleConnsPerHost: 2}}
	return c.client, c.server, nil
}

// parseKubeconfig reads what cluster/kubeconfig writes for people: one cluster, one user, everything in the file, a key and
// its value on a line. Anything else is an error.
func parseKubeconfig(text []byte) (server string, security *tls.Config, err error) {
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		switch key {
		case "server", "certificate-authority-data", "client-certificate-data", "client-key-data":
			if values[key] != "" {
				return "", nil, fmt.Errorf("it has %s twice", key)
			}
			values[key] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	data := func(key string) []byte {
		b, derr := base64.StdEncoding.DecodeString(values[key])
		if err == nil && (derr != nil || len(b) == 0) {
			err = fmt.Errorf("it has no %s in Base64", key)
		}
		return b
	}
	ca, cert, key := data("certificate-authority-data"), data("client-certificate-data"), data("client-key-data")
	if err != nil {
		return "", nil, err
	}
	server = strings.TrimSuffix(values["server"], "/")
	if !strings.HasPrefix(server, "https://") {
		return "", nil, fmt.Errorf("its server %q is no https URL", server)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return "", nil, fmt.Errorf("client certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return "", nil, errors.New("it has no certificate of an authority")
	}
	return server, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}

// A statusError is an answer of the API server that is no object.
type statusError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Details struct {
		Name string `json:"name"`
	} `json:"details"`
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the API server answers %d: %s", e.Code, e.Message)
}

// missing says whether err is about something that the API server does not have.
func missing(err error) (e *statusError, ok bool) {
	ok = errors.As(err, &e) && e.Code == http.StatusNotFound
	return e, ok
}

// get reads a JSON object. An answer other than 200 is a [statusError].
func (c *Cluster) get(ctx context.Context, path string, into any) error {
	client, server, err := c.connect()
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "skerry-health")
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("no answer from the API server: %w", cause(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4*largestBody))
	if err != nil {
		return fmt.Errorf("the answer of the API server breaks off: %w", cause(err))
	}
	if response.StatusCode != http.StatusOK {
		e := &statusError{}
		if json.Unmarshal(body, e) != nil || e.Message == "" {
			e.Message = string(body)
		}
		e.Code = response.StatusCode
		return e
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the API server's answer to %s is no JSON that is understood: %w", path, err)
	}
	return nil
}
