package transform_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/merlon-dev/merlon/waf/internal/match"
	"github.com/merlon-dev/merlon/waf/internal/transform"
)

// pieces is what the transformations look for, whole and cut off, to be put
// together at random.
var pieces = append(strings.Fields(`
	a B z 0 9 F f é É ß ſ K İ 你 à Å 😀 _ - * ** + = . / \ ~ ( ) { } [ ] , ; ^ " ' & # : $ % @ ! ? | <
	.. ... / // ./ ../ /. /.. \.. c: C:/ a.txt. b:stream ::$DATA
	/* */ <!-- --> -- # */- */# -->/ *//*
	%41 %4 %zz %u0041 %uff01 %uFF5E %u00e9 %u2018 %u12 %U0041 %u %+ %%41 %0a %00
	\n \x41 \X41 \x4 \u0041 \uff21 \u{41} \u{ff21} \u{0ff21} \u{1234567} \u{} \u{41 \101 \400 \377 \8 \18 \41 \\ \' \" \? \q \a \v
	\41 \000041 \0 \ff21 \10ffff \110000 \d800 \26 \g
	&lt; &lt &ltx &amp; &ampx &#60; &#x3c; &#X3C &#0; &#128; &#xd800; &#1114112; &#99999999999; &#x; &# &# &; &nGt; &nLl; &notit; &notin;
	&hellip; &ThickSpace; &AMP &copy= &CounterClockwiseContourIntegral; &aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;
	YWJj YQ== YWI= YW-_ YW+/ 4142 414 c0
	SELECT union Script`),
	" ", "  ", "\t", "\n", "\r\n", "\v", "\f", "\x00", "\u0085", "\u00a0", "\xa0", "\x85", "\xe3\xa0", "\xff", "\xc2", "\u2003", "\u3000",
	"\\\n", "\\41 ", "\\41\t", " /", " (", ", ;", "\ufffd", "\U0010ffff", "\u0130", "\u1e9e", "\ud7a3")

func random(r *rand.Rand) string {
	s := ""
	for range r.IntN(6) {
		p := pieces[r.IntN(len(pieces))]
		switch r.IntN(12) {
		case 0:
			p = p[:r.IntN(len(p))]
		case 1:
			p = string([]byte{byte(r.IntN(256))})
		case 2:
			p = strings.ToUpper(p)
		}
		s += p
	}
	return s
}

func TestLikeCoraza(t *testing.T) {
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			o, x := newOracle(t, name), lookup(t, name)
			var a transform.Arena
			agree(t, o, x, &a, "")
			for c := range 256 {
				agree(t, o, x, &a, string([]byte{byte(c)}))
			}
			for _, p := range pieces {
				for _, s := range []string{p, p + p, "x" + p, p + "x", " " + p + " ", "/" + p + "/"} {
					agree(t, o, x, &a, s)
				}
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 3000 {
				agree(t, o, x, &a, random(r))
				a.Reset()
			}
		})
	}
}

// checkPromise fails unless a value that holds nothing of what Changes, Folds
// and Always name, or that Keeps knows, stays as it is.
func checkPromise(tb testing.TB, x *transform.Transformation, s, got string, changed bool) {
	tb.Helper()
	holds := match.Presence(s)
	if got == s && len(s) > 0 && unsafe.StringData(got) != unsafe.StringData(s) {
		tb.Fatalf("%s of %q is a copy", x.Name, s)
	}
	keeps := x.Keeps != nil && x.Keeps(s)
	if keeps && !x.Keeps(lowerASCII(s)) {
		tb.Fatalf("%s: whether %q is kept depends on case", x.Name, s)
	}
	if x.Always || holds.Meets(&x.Changes) && !keeps {
		return
	}
	want := s
	if x.Folds {
		want = lowerASCII(s)
	}
	if got != want || changed != (want != s) {
		tb.Fatalf("%s of %q: %q, changed %v, though it should stay", x.Name, s, got, changed)
	}
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}

func TestLookup(t *testing.T) {
	for _, name := range append(slices.Clone(names), "normalizePath", "normalizePathWin", "URLDecodeUni", "utf8ToUnicode") {
		x := lookup(t, name)
		if !strings.EqualFold(strings.Replace(name, "normalize", "normalise", 1), x.Name) {
			t.Errorf("%s is %s", name, x.Name)
		}
	}
	for _, name := range []string{"", "urldecode2", "parityEven7bit"} {
		if x, ok := transform.Lookup(name); ok {
			t.Errorf("%q is %s", name, x.Name)
		}
	}
}

// All UTF-16 units, and the same in other clothes.
func TestUnits(t *testing.T) {
	for name, form := range map[string]string{
		"urlDecodeUni": "%%u%04x", "jsDecode": `\u%04X`, "cssDecode": `\%06x`, "htmlEntityDecode": "&#x%x;",
	} {
		o, x := newOracle(t, name), lookup(t, name)
		var a transform.Arena
		for block := 0; block < 0x10000; block += 256 {
			var s strings.Builder
			for u := block; u < block+256; u++ {
				fmt.Fprintf(&s, form, u)
			}
			agree(t, o, x, &a, s.String())
		}
	}
}

// Values keep their text until the arena is reset, and its memory is used
// again after that.
func TestArena(t *testing.T) {
	var a transform.Arena
	x := lookup(t, "urlDecode")
	for range 3 {
		var made []string
		for i := range 5000 {
			v, _ := x.Apply(&a, strings.Repeat("%61", i%700)+fmt.Sprint("+", i))
			made = append(made, v)
		}
		for i, v := range made {
			if want := strings.Repeat("a", i%700) + fmt.Sprint(" ", i); v != want {
				t.Fatalf("value %d is %q, want %q", i, v, want)
			}
		}
		a.Reset()
	}
}

func TestNoAllocation(t *testing.T) {
	var a transform.Arena
	values := slices.Clone(pieces)
	for _, p := range pieces {
		values = append(values, p+strings.Repeat("filler ", 12)+p)
	}
	for _, name := range names {
		x := lookup(t, name)
		for _, s := range values {
			if name == "htmlEntityDecode" && strings.Contains(s, "&") {
				continue // rare names of entities are looked up elsewhere
			}
			n := testing.AllocsPerRun(10, func() {
				x.Apply(&a, s)
				a.Reset()
			})
			if n > 0 {
				t.Errorf("%s of %q: %v allocations", name, s, n)
			}
		}
	}
}

func FuzzLikeCoraza(f *testing.F) {
	for i := range max(len(names), len(pieces)) {
		f.Add(byte(i), pieces[i%len(pieces)]+pieces[i*7%len(pieces)])
	}
	oracles := make([]*oracle, len(names))
	var a transform.Arena
	f.Fuzz(func(t *testing.T, which byte, s string) {
		i := int(which) % len(names)
		if oracles[i] == nil {
			oracles[i] = newOracle(t, names[i])
		}
		agree(t, oracles[i], lookup(t, names[i]), &a, s)
		a.Reset()
	})
}

// A value of 100 bytes that changes, and one that does not.
func BenchmarkApply(b *testing.B) {
	const filler = "abcdefghij0123456789klmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrst"
	for _, name := range names {
		changing := filler + ` %41&lt;\n A/*é`
		if name == "hexDecode" {
			changing = strings.Repeat("4a", 50)
		}
		for what, s := range map[string]string{"changes": changing, "same": filler + "zzzzzzzz"} {
			b.Run(name+"/"+what, func(b *testing.B) {
				var a transform.Arena
				x := lookup(b, name)
				b.ReportAllocs()
				for b.Loop() {
					x.Apply(&a, s)
					a.Reset()
				}
			})
		}
	}
}
