package config

import (
	_ "embed"
	"encoding/json"
	"sync"
)

// The generated files: `go generate ./internal/config` makes them from the
// packages' Config types, their comments and their reasons.
//
//go:generate go run ./gen
var (
	//go:embed schema.json
	schema []byte
	//go:embed reasons.json
	reasons []byte
)

// Schema returns the JSON Schema (draft 2020-12) of the file.
func Schema() []byte { return schema }

var reasonTexts = sync.OnceValue(func() map[string]string {
	texts := map[string]string{}
	if err := json.Unmarshal(reasons, &texts); err != nil {
		panic(err) // made by the generator, checked by its test
	}
	return texts
})

// ReasonText says what a guard's reason means and what to do about it; empty
// if there is no such reason.
func ReasonText(guard, reason string) string {
	texts := reasonTexts()
	if t := texts[guard+"/"+reason]; t != "" {
		return t
	}
	return texts["/"+reason]
}
