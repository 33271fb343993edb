package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "..", "secret"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler("web-0", data))
	defer server.Close()
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/", "", 200, "web-0\n"},
		{"GET", "/other", "", 404, ""},
		{"GET", "/healthz", "", 200, "ok\n"},
		{"GET", "/data/a", "", 404, ""},
		{"PUT", "/data/a", "first", 204, ""},
		{"PUT", "/data/a", "second", 204, ""},
		{"GET", "/data/a", "", 200, "second"},
		{"GET", "/data/..%2fsecret", "", 500, ""},
		{"PUT", "/data/..%2fsecret", "gone", 500, ""},
		{"PUT", "/data/big", strings.Repeat("x", maxFile+1), 413, ""},
		{"DELETE", "/data/a", "", 405, ""},
	} {
		request, err := http.NewRequest(c.method, server.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != c.status || c.status < 300 && string(body) != c.want {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, response.StatusCode, body, c.status, c.want)
		}
	}
	if secret, _ := os.ReadFile(filepath.Join(data, "..", "secret")); string(secret) != "x" {
		t.Errorf("a file outside of the data directory was changed: %q", secret)
	}
	if entries, _ := os.ReadDir(data); len(entries) != 1 {
		t.Errorf("data directory has %v", entries)
	}
}
