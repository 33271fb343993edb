// Package schema describes a device's configuration as a JSON Schema, with which editors complete and check the file while
// it is written. It is apart from package config because its library has no place in PID 1.
package schema

import (
	"encoding/json"
	"fmt"
	"reflect"

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
	if t != reflect.TypeFor[config.Labels]() {
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
	section, ok := s.Properties.Get("skerry")
	if !ok {
		return fmt.Errorf("cannot refine the schema: config has no section skerry")
	}
	disable, ok := section.Properties.Get("disable")
	if !ok {
		return fmt.Errorf("cannot refine the schema: section skerry has no key disable")
	}
	for _, addon := range config.Addons {
		disable.Items.Enum = append(disable.Items.Enum, addon)
	}
	return nil
}
