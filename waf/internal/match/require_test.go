package match_test

import (
	"slices"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

func TestLiterals(t *testing.T) {
	tests := []struct {
		expr string
		want []string
	}{
		{`foo`, []string{"foo"}},
		{`FOO|Bar`, []string{"bar", "foo"}},
		{`foo|`, nil},
		{`(?:foo)?`, nil},
		{`(?:foo)*x{0}`, nil},
		{`(?:foo)+`, []string{"foo"}},
		{`(?:foo){2}`, []string{"foofoo"}},
		{`(?:foo){2,}`, []string{"foofoo"}},
		{`(?:foo){0,2}`, nil},
		{`jo?hn`, []string{"jhn", "john"}},
		{`q(?:x|y)[^a]z`, []string{"qx", "qy"}},
		{`[^a]*quux.*zip`, []string{"quux"}},
		{`a[bc].*qu(?:ux|ax.*)`, []string{"quax", "quux"}}, // what begins the last part is known
		{`(?:.*xa|.*xb)qu`, []string{"xaqu", "xbqu"}},
		{`\bselect\b`, []string{"select"}},
		{`^$`, nil},
		{`.`, nil},
		{`[a-z]`, nil}, // known, but no help
		{`\{`, []string{"{"}},
		{`(?i)k\x{17f}`, []string{"ks"}},
		{`(?i)é`, []string{"É", "é"}},
		{"ab\ufffd", []string{"ab"}}, // U+FFFD is also what is not UTF-8
		{"\ufffd", nil},
		{"abcdefghijklmnopq", []string{"abcdefghijkl"}},
		{`<script|<scr`, []string{"<scr"}},
		{`\xffabc`, []string{"\xffabc"}},
		{`(?i)\xffK`, []string{"\xffk"}},
	}
	for _, tt := range tests {
		r, err := match.Compile(tt.expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Required().Literals; !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.expr, got, tt.want)
		}
	}
}

func TestNeeds(t *testing.T) {
	tests := []struct {
		expr string
		want []string // the bytes of each set
	}{
		{`q`, []string{"Qq"}},
		{`#.*[<>]`, []string{"#", "<>"}},
		{`#|<`, []string{"#<"}},
		{`#{|<`, []string{"#<", "<{"}},
		{`#?`, nil},
		{`(?:#<)+|`, nil},
		{`[^a]`, nil},
		{`\x{17f}`, []string{"Ss\xc5"}},
		{`(?i)k`, []string{"Kk\xe2"}},
		{`[#$]{3}`, []string{"#$"}},
		{`[#$]{0,3}`, nil},
	}
	for _, tt := range tests {
		r, err := match.Compile(tt.expr)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, set := range r.Required().Needs {
			s := ""
			for c := range 256 {
				if set.Has(byte(c)) {
					s += string([]byte{byte(c)})
				}
			}
			got = append(got, s)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.expr, got, tt.want)
		}
	}
}

func TestLeast(t *testing.T) {
	for expr, want := range map[string]int{
		``: 0, `a`: 1, `^abc$`: 3, `(?i)straße`: 6, `ab|c`: 1, `(?:ab|cde)+f`: 3, `a{3,}b?`: 3, `a*`: 0, `.+x`: 2,
	} {
		r, err := match.Compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Required().Least; got != want {
			t.Errorf("%q: %d, want %d", expr, got, want)
		}
	}
}

// Of the Core Rule Set nearly every pattern requires something.
func TestCoreRuleSetRequires(t *testing.T) {
	literals, something := 0, 0
	for _, expr := range crs() {
		r, err := match.Compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		q := r.Required()
		if q.Literals != nil {
			literals++
		}
		if q.Literals != nil || q.Needs != nil {
			something++
		}
	}
	if n := len(crs()); literals < n*7/10 || something < n*9/10 {
		t.Errorf("of %d patterns %d require literals, %d anything", n, literals, something)
	}
}
