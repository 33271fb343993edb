package api

import (
	_ "embed"
	"net/http"
)

// openAPIDocument is made from Routes and package v1 by a test, which also says when it is out of date.
//
//go:embed openapi.json
var openAPIDocument []byte

func (h *handler) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openAPIDocument) // fails when the client went away: nobody to tell
	return nil
}
