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
	f.Add("SecRule ARGS \"\xa2\" \"id:1\"")
	f.Add(`SecRule ARGS "\xa2\pL" "id:1"`)
	for _, m := range mistakes {
		f.Add(m.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
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
	})
}
