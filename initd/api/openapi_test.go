package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"

	v1 "github.com/skerryos/skerry/initd/api/v1"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// TestOpenAPI holds the description against routes and types.
func TestOpenAPI(t *testing.T) {
	want, err := json.MarshalIndent(describeAPI(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(openAPIDocument, want) {
		t.Error("openapi.json is out of date: go test ./initd/api -run TestOpenAPI -update")
	}
}

type object = map[string]any

// describeAPI makes the description (OpenAPI 3.1). The text of the types' fields is in package v1.
func describeAPI(t *testing.T) object {
	s := schemas{}
	failure := object{"description": "refused or failed", "content": object{"application/json": object{"schema": s.of(t, v1.Error{})}}}
	paths := object{}
	parameter := regexp.MustCompile(`\{(\w+)\}`)
	for _, r := range Routes() {
		success := object{"description": r.Doc}
		if r.Answer != nil {
			success["content"] = object{"application/json": object{"schema": s.of(t, r.Answer)}}
		}
		op := object{"summary": r.Doc, "responses": object{fmt.Sprint(r.Status): success, "default": failure}}
		if r.Admin {
			op["security"] = []object{{"admin": []string{}}}
		} else {
			op["security"] = []object{{"admin": []string{}}, {"reader": []string{}}}
		}
		var parameters []object
		for _, m := range parameter.FindAllStringSubmatch(r.Path, -1) {
			parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		parameters = append(parameters, queries[r.Method+" "+r.Path]...)
		if parameters != nil {
			op["parameters"] = parameters
		}
		if r.Path == "/v1/upgrade" {
			op["requestBody"] = object{"required": true, "content": object{"application/octet-stream": object{}}}
		}
		path, _ := paths[r.Path].(object)
		if path == nil {
			path = object{}
			paths[r.Path] = path
		}
		path[strings.ToLower(r.Method)] = op
	}
	certificate := func(role string) object {
		return object{"type": "mutualTLS", "description": "a client certificate whose organization (O) is " + role}
	}
	return object{
		"openapi":    "3.1.0",
		"info":       object{"title": "Skerry device API", "version": "1", "description": "HTTPS with client certificates; on the device itself over a unix socket."},
		"paths":      paths,
		"components": object{"schemas": s, "securitySchemes": object{"admin": certificate(v1.RoleAdmin), "reader": certificate(v1.RoleReader)}},
	}
}

func query(name, kind string, allowed ...string) object {
	schema := object{"type": kind}
	if allowed != nil {
		schema["enum"] = allowed
	}
	return object{"name": name, "in": "query", "schema": schema}
}

var queries = map[string][]object{
	"GET /v1/logs/{unit}": {query("previous", "boolean"), query("boot", "string", "previous"), query("follow", "boolean")},
	"POST /v1/upgrade":    {query("force", "boolean"), query("try", "boolean"), {"name": "Skerry-Chunk", "in": "header", "schema": object{"type": "integer"}}},
	"POST /v1/rollback":   {query("reason", "string")},
	"POST /v1/reset":      {query("scope", "string", "data", "everything")},
}

// schemas are those of named types, by name.
type schemas object

// of returns a reference to a type's schema, whose descriptions are the comments in package v1.
func (s schemas) of(t *testing.T, answer any) object {
	t.Helper()
	var r jsonschema.Reflector
	r.Anonymous, r.AllowAdditionalProperties = true, true // a newer device says more
	if err := r.AddGoComments("github.com/skerryos/skerry/initd/api", "./v1", jsonschema.WithFullComment()); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(r.Reflect(answer))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Ref  string         `json:"$ref"`
		Defs map[string]any `json:"$defs"`
	}
	const here, there = "#/$defs/", "#/components/schemas/"
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte(here), []byte(there)), &schema); err != nil {
		t.Fatal(err)
	}
	maps.Copy(s, schema.Defs)
	return object{"$ref": schema.Ref}
}
