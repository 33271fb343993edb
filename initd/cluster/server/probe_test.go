package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestProbeTellsWhatFailed(t *testing.T) {
	answer := "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\nlivez check failed\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, answer, http.StatusInternalServerError) }))
	defer s.Close()
	p := probe{s.Client(), s.URL}
	err := p.get(t.Context(), "/livez")
	if want := "/livez answers 500 Internal Server Error: etcd failed: reason withheld"; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
	answer = "out of order"
	if err = p.get(t.Context(), "/livez"); err == nil || !strings.HasSuffix(err.Error(), ": out of order") {
		t.Errorf("got error %v", err)
	}
}
