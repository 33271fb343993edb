package health

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/skerryos/skerry/initd/config"
)

// outcome runs a check once and gives what it says, with its server's address made the same in each run.
func outcome(t *testing.T, c Check, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := c.Run(ctx)
	if err == nil {
		return "passed"
	}
	return strings.ReplaceAll(err.Error(), address, "HOST")
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("all is ok here")) })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.Handle("/moved", http.RedirectHandler("/ok", http.StatusFound))
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("short"))
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	closed := httptest.NewServer(mux)
	closed.Close()
	for _, test := range []struct {
		name   string
		server *httptest.Server
		check  config.HTTPCheck
		want   string
	}{
		{"any good status", plain, config.HTTPCheck{URL: "/ok"}, "passed"},
		{"content", plain, config.HTTPCheck{URL: "/ok", Contains: "is ok"}, "passed"},
		{"other content", plain, config.HTTPCheck{URL: "/ok", Contains: "bad"}, `the answer from http://HOST/ok does not contain "bad"; it begins "all is ok here"`},
		{"bad status", plain, config.HTTPCheck{URL: "/busy"}, "HTTP 503 from http://HOST/busy"},
		{"other status", plain, config.HTTPCheck{URL: "/ok", Status: 204}, "HTTP 200 from http://HOST/ok, 204 is wanted"},
		{"wanted status", plain, config.HTTPCheck{URL: "/busy", Status: 503}, "passed"},
		{"redirect is followed", plain, config.HTTPCheck{URL: "/moved"}, "passed"},
		{"redirect is wanted", plain, config.HTTPCheck{URL: "/moved", Status: 302}, "passed"},
		{"cut off", plain, config.HTTPCheck{URL: "/cut", Contains: "x"}, "the answer from http://HOST/cut breaks off: unexpected EOF"},
		{"refused", closed, config.HTTPCheck{URL: "/ok"}, "no answer from http://HOST/ok: connection refused"},
		{"unknown authority", secure, config.HTTPCheck{URL: "/ok"}, "no answer from https://HOST/ok: tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"own authority", secure, config.HTTPCheck{URL: "/ok", CA: ca}, "passed"},
		{"insecure", secure, config.HTTPCheck{URL: "/ok", Insecure: true}, "passed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.check.URL = test.server.URL + test.check.URL
			c := FromConfig([]config.HealthCheck{{Name: "a", HTTP: &test.check}}, nil)[0]
			if got := outcome(t, c, test.server.Listener.Addr().String()); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	c := FromConfig([]config.HealthCheck{{Name: "plc", TCP: address}}, nil)[0]
	if got := outcome(t, c, address); got != "passed" {
		t.Error(got)
	}
	l.Close()
	if got, want := outcome(t, c, address), "no connection to HOST: connection refused"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
