package account_test

import (
	"testing"

	"github.com/merlon-dev/merlon/identity/account"
)

// Trap 44: one person is one bucket and one account, however the name is typed.
func TestFold(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"ann", "ann"},
		{"Ann", "ann"},
		{"ＡＮＮ", "ann"},
		{" ann ", "ann"},
		{"Jörg", "jörg"},
		{"Jo\u0308rg", "jörg"},
		{"Ann@Example.COM", "ann@example.com"},
		{"o'brien@example.com", "o'brien@example.com"},
		{"ann b", ""},
		{"ann\x00", ""},
		{"ann\u200b", ""},
		{"\u202eann", ""},
		{"", ""},
		{"@example.com", ""},
		{"ann@", ""},
		{"ann@a@b.c", ""},
		{"ann@example", ""},
		{"ann@exa mple.com", ""},
		{"a\r\nBcc: x@y.z", ""},
	} {
		got, err := account.Fold(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: got %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

// Folding again changes nothing, and what differs in case only is one name.
func FuzzFold(f *testing.F) {
	for _, s := range []string{"Ann", "ＡＤＭＩＮ", "ann@example.com", "ß", "İ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once, err := account.Fold(s)
		if err != nil {
			return
		}
		if twice, err := account.Fold(once); err != nil || twice != once {
			t.Errorf("%q is %q, and that is %q, %v", s, once, twice, err)
		}
	})
}
