// Package schema describes a device's configuration as a JSON Schema, with which editors complete and check the file while
// it is written. It is apart from package config because its library has no place in PID 1.
package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/skerryos/skerry/initd/config"
)

// JSON renders the schema (draft 2020-12), indented and with a final newline. The strict parser of package config stays
// the judge: the schema is looser where JSON Schema cannot say what is meant.
func JSON() ([]byte, error) {
	reflector := jsonschema.Reflector{
		FieldNameTag:               "yaml",
		DoNotReference:             true,
		RequiredFromJSONSchemaTags: true,
		Mapper:                     mapper,
	}
	s := reflector.Reflect(&config.Config{})
	s.ID = ""
	s.Title = "Skerry device configuration"
	s.Description = "The user-data file of a device; its first line is #cloud-config"
	if err := refine(s); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot render the schema: %w", err)
	}
	return append(data, '\n'), nil
}

// mapper describes the types that are written in more than one way.
func mapper(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`}
	case reflect.TypeFor[config.Bytes]():
		return &jsonschema.Schema{Type: "string", Pattern: "^[0-9]+(KiB|MiB|GiB)$"}
	case reflect.TypeFor[config.Labels]():
	default:
		return nil
	}
	value := &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}, {Type: "null"}}}
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
		{Type: "object", AdditionalProperties: value},
		{Type: "array", Items: &jsonschema.Schema{Type: "string", Pattern: "^[^=]+=.*$"}, UniqueItems: true},
	}}
}

// refine adds what struct tags cannot say.
func refine(s *jsonschema.Schema) error {
	disable, err := find(s, "skerry", "disable")
	if err != nil {
		return err
	}
	for _, addon := range config.Addons {
		disable.Items.Enum = append(disable.Items.Enum, addon)
	}
	checks, err := find(s, "skerry", "health", "checks")
	if err != nil {
		return err
	}
	for _, kind := range []string{"http", "tcp", "kubernetes", "job"} {
		checks.Items.OneOf = append(checks.Items.OneOf, &jsonschema.Schema{Required: []string{kind}})
	}
	return nil
}

// find follows keys from section to section.
func find(s *jsonschema.Schema, path ...string) (*jsonschema.Schema, error) {
	for _, key := range path {
		next, ok := s.Properties.Get(key)
		if !ok {
			return nil, fmt.Errorf("cannot refine the schema: there is no key %q of %q", key, path)
		}
		s = next
	}
	return s, nil
}
