package match_test

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
)

var rxOperator = regexp.MustCompile(`(?m)^\s*SecRule .*"!?@rx (.*)" *\\?$`)

// crs is every @rx pattern of the Core Rule Set.
var crs = sync.OnceValue(func() []string {
	files, err := fs.Glob(coreruleset.FS, "@owasp_crs/*.conf")
	if err != nil || len(files) < 20 {
		panic(fmt.Sprint(len(files), err))
	}
	var all []string
	for _, f := range files {
		text, err := fs.ReadFile(coreruleset.FS, f)
		if err != nil {
			panic(err)
		}
		for _, m := range rxOperator.FindAllStringSubmatch(string(text), -1) {
			all = append(all, strings.ReplaceAll(m[1], `\"`, `"`))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
})
