package merlon_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// The import direction: a package may import only packages of lines above its
// own. It states policy (docs/design.md, section 2); do not change it to make
// a build pass.
var layers = []string{
	".",
	"secrets ledger merlontest identity/account count geo internal/field internal/loose internal/webpage",
	"identity/attempts",
	"record certs upstream headers mask origin decoy ban limit challenge waf stuffing csrf access throttle payload schema egress sandbox sqlguard seal backup identity/*",
	"identity",
	"audit prove",
	"internal/store internal/store/* internal/portal/*",
	"internal/portal",
	"internal/config",
	"internal/gateway internal/console internal/demo",
	"cmd/*",
}

// What tests, generators and benchmarks are made of may import anything.
var free = []string{"test", "test/*", "bench", "bench/*", "internal/config/*", "examples/*", "identity/session/sessiontest", "identity/attempts/attemptstest", "count/counttest", "ban/bantest", "geo/geotest"}

func TestImportDirection(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		from := short(p.ImportPath)
		if matches(from, free) {
			continue
		}
		for _, imp := range p.Imports {
			to := short(imp)
			if to == imp || to == "merlontest" && from != to || within(from, to) {
				if to == "merlontest" {
					t.Errorf("%s may not import merlontest: it is for tests", from)
				}
				continue
			}
			if layer(t, from) <= layer(t, to) {
				t.Errorf("%s may not import %s", from, to)
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d packages were seen", seen)
	}
}

const module = "github.com/merlon-dev/merlon"

// short returns the folder of one of our packages; others keep their path.
func short(importPath string) string {
	if importPath == module {
		return "."
	}
	if rest, ok := strings.CutPrefix(importPath, module+"/"); ok {
		return rest
	}
	return importPath
}

// within reports whether to is a part of from's own package: waf/internal/x
// belongs to waf, and its parts may use each other.
func within(from, to string) bool {
	top, _, internal := strings.Cut(to, "/internal/")
	if !internal || strings.HasPrefix(to, "internal/") {
		return false
	}
	return from == top || strings.HasPrefix(from, top+"/internal/")
}

func layer(t *testing.T, folder string) int {
	t.Helper()
	if top, _, ok := strings.Cut(folder, "/internal/"); ok {
		folder = top
	}
	for i, l := range layers {
		if matches(folder, strings.Fields(l)) {
			return i
		}
	}
	t.Errorf("%s is in no layer: say in imports_test.go where it stands", folder)
	return -1
}

func matches(folder string, patterns []string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, folder); err == nil && ok {
			return true
		}
	}
	return false
}
