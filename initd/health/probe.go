package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/skerryos/skerry/initd/config"
)

// FromConfig makes the operator's checks. The configuration must have been accepted by package config.
func FromConfig(checks []config.HealthCheck, cluster *Cluster) []Check {
	var made []Check
	for _, c := range checks {
		check := Check{Name: c.Name}
		switch {
		case c.HTTP != nil:
			check.Run = httpCheck(*c.HTTP)
		case c.Kubernetes != nil:
			check.Run = cluster.condition(*c.Kubernetes)
		case c.Job != nil:
			check.Run = cluster.job(*c.Job)
		default:
			check.Run = tcpCheck(c.TCP)
		}
		made = append(made, check)
	}
	return made
}

// largestBody is how many bytes of an answer are looked at.
const largestBody = 1 << 20

// httpCheck asks for a URL, with a new connection each time: one that is kept says nothing about whether there can be another.
func httpCheck(c config.HTTPCheck) func(context.Context) error {
	security := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure}
	if c.CA != "" {
		security.RootCAs = x509.NewCertPool()
		security.RootCAs.AppendCertsFromPEM([]byte(c.CA))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: security}}
	if c.Status >= 300 && c.Status < 400 {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
		if err != nil {
			return Never(err)
		}
		request.Header.Set("User-Agent", "skerry-health")
		response, err := client.Do(request)
		if err != nil {
			return fmt.Errorf("no answer from %s: %w", c.URL, cause(err))
		}
		defer response.Body.Close()
		right := response.StatusCode == c.Status
		if c.Status == 0 {
			right = response.StatusCode >= 200 && response.StatusCode < 300
		}
		if !right {
			return fmt.Errorf("HTTP %d from %s%s", response.StatusCode, c.URL, wanted(c.Status))
		}
		if c.Contains == "" {
			return nil
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, largestBody))
		if err != nil {
			return fmt.Errorf("the answer from %s breaks off: %w", c.URL, cause(err))
		}
		if !bytes.Contains(body, []byte(c.Contains)) {
			return fmt.Errorf("the answer from %s does not contain %q; it begins %.40q", c.URL, c.Contains, body)
		}
		return nil
	}
}

func wanted(status int) string {
	if status == 0 {
		return ""
	}
	return fmt.Sprintf(", %d is wanted", status)
}

// tcpCheck makes a connection and closes it.
func tcpCheck(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("no connection to %s: %w", address, cause(err))
		}
		return conn.Close()
	}
}

// cause takes off what the messages of the standard library say twice.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		err = op.Err
	}
	return errors.New(strings.TrimPrefix(err.Error(), "connect: "))
}
