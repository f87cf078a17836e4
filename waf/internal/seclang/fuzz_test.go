package seclang_test

import (
	"strings"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// FuzzParse: reading ends without a panic, and what is read is what Coraza
// reads.
func FuzzParse(f *testing.F) {
	for _, text := range sound {
		f.Add(text)
	}
	for _, m := range mistakes {
		f.Add(m.text)
	}
	f.Add("SecRule ARGS \"\xa2\" \"id:1\"")
	f.Add(`SecRule ARGS "\xa2\pL" "id:1"`)
	f.Fuzz(readAsCoraza)
}

// FuzzRule is the same for the parts of a rule, which are more often sound
// than a whole text.
func FuzzRule(f *testing.F) {
	for _, text := range sound {
		for l := range strings.Lines(text) {
			part := strings.SplitN(l, `"`, 5)
			if variables, ok := strings.CutPrefix(part[0], "SecRule "); ok && len(part) == 5 {
				f.Add(strings.TrimSpace(variables), part[1], strings.TrimPrefix(part[3], "id:"))
			}
		}
	}
	f.Fuzz(func(t *testing.T, variables, operator, actions string) {
		readAsCoraza(t, "SecRule "+variables+" \""+operator+"\" \"id:"+actions+"\"\nSecMarker END\n")
	})
}

func readAsCoraza(t *testing.T, text string) {
	source := seclang.Source{Name: "text", Text: text}
	rs, err := seclang.Parse(ownFiles, source)
	if err != nil {
		return
	}
	if again := parse(t, ownFiles, source); written(again) != written(rs) {
		t.Fatal("read again, it is something else")
	}
	lower := strings.ToLower(text)
	for _, word := range []string{"secauditlog", "secupload", "secdebuglog", "secdatadir", "sectmpdir", "secruleremovebymsg"} {
		if strings.Contains(lower, word) { // Coraza writes files, or fails
			return
		}
	}
	sameAsCoraza(t, ownFiles, source)
}
