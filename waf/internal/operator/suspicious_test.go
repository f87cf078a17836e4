package operator

import (
	"go/build"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/corazawaf/libinjection-go"
)

// tables reads libinjection's list of fingerprints, and its words with the
// letters of their kinds, from its source.
func tables(t *testing.T) (fingerprints []string, words map[string]string) {
	t.Helper()
	pkg, err := build.Import("github.com/corazawaf/libinjection-go", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(pkg.Dir, "sqli_data.go"))
	if err != nil {
		t.Fatal(err)
	}
	words = make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^\s*"(\S[^\n]*)":\s*'(.)',$`).FindAllStringSubmatch(string(source), -1) {
		switch {
		case m[2] == "F":
			fingerprints = append(fingerprints, m[1][1:])
		default:
			words[m[1]] = strings.ToUpper(m[2])
		}
	}
	if len(fingerprints) < 8000 || len(words) < 900 {
		t.Fatalf("%d fingerprints and %d words: is that the right file?", len(fingerprints), len(words))
	}
	return fingerprints, words
}

func TestSuspects(t *testing.T) {
	fingerprints, _ := tables(t)
	var sets []kinds
	for _, f := range fingerprints {
		if strings.ContainsAny(f, `SC();{}X\`) {
			continue // not made without something critical
		}
		set := kindsOf(strings.NewReplacer(",", "", ":", "", ".", "", "?", "").Replace(f))
		if len(f) == 3 && f[1] == 'K' {
			set |= into
		}
		if !set.suspect() {
			t.Errorf("%s is not suspect", f)
		}
		sets = append(sets, set)
	}
	for _, s := range suspects {
		if !slices.Contains(sets, s) {
			t.Errorf("no fingerprint is of kinds %b", s)
		}
	}
}

func TestKeywords(t *testing.T) {
	_, words := tables(t)
	for word, kind := range words {
		if word == "@>" {
			continue // never read as one: "@" begins a name
		}
		if l := lexemes[word[0]]; l != letter && l != operator {
			t.Errorf("%q begins like no word, or operator", word)
		}
		if lexemes[word[0]] == operator {
			if kind == "&" != (word == "&&" || word == "||") {
				t.Errorf("%q is of kind %s", word, kind)
			}
			continue
		}
		first, rest, phrase := strings.Cut(word, " ")
		next, _, _ := strings.Cut(rest, " ")
		segment, _, _ := strings.Cut(first, ".")
		k := wordKinds(strings.ToLower(segment))
		if want := kindsOf(kind); k&want != want {
			t.Errorf("%q: %b, want %b", word, k, want)
		}
		if !phrase && strings.Contains("OA", kind) && k&folding == 0 {
			t.Errorf("%q is folded", word)
		}
		if phrase && (k&begins == 0 || wordKinds(next)&second == 0) {
			t.Errorf("%q is a phrase", word)
		}
		for _, w := range []string{segment, next} {
			if own, ok := words[w]; (!ok || own == "N") && wordKinds(w)&bareWord == 0 {
				t.Errorf("%q alone is a bare word", w)
			}
		}
	}
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if unicode.ToUpper(r) < 0x80 && wordKinds("a"+string(r)) != anyKind {
			t.Errorf("%q is %q in upper case", r, unicode.ToUpper(r))
		}
	}
}

func FuzzSuspicious(f *testing.F) {
	for _, v := range []string{"1 union select 1", "foo in bar", "1e1union select 1.5 from x", "a and b or c", "@@x like null", "[a] is not null"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if is, print := libinjection.IsSQLi(v); is && !suspicious(v) {
			t.Errorf("%q (%s) is not suspicious", v, print)
		}
		if libinjection.IsXSS(v) && !strings.ContainsAny(v, "<=") {
			t.Errorf("%q is found", v)
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"", "-", "+7", "9223372036854775808", "-9223372036854775809", "18446744073709551616x", "9999999999999999999x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if want, _ := strconv.Atoi(s); number(s) != want {
			t.Errorf("%q is %d, want %d", s, number(s), want)
		}
	})
}

// What libinjection finds is suspicious.
func TestSuspicious(t *testing.T) {
	_, words := tables(t)
	var all []string
	for w := range words {
		all = append(all, strings.ToLower(w))
	}
	slices.Sort(all)
	tokens := strings.Fields(`1 2 1 1.5 .5 1e 1e5 1e- 1d 1f 0x 0xab 0b 0b1 a b foo user into outfile in not like and or union select from as is null
		x.y . , : ; + - * / = < > ! ~ % ^ | & && || :: := @ @@ @a [ ] [a] [] { } ? ( ) ' " # -- /* */ $ $1 \ ſelect unıon é dbms_lock sys collate a_b int`)
	tokens = append(tokens, "\x00", "\xa0", "\x01", "\n")
	inPhrases := strings.Fields(`1 a for update group by in boolean mode union all select into outfile current date not like is between and or null x`)
	r := rand.New(rand.NewPCG(5, 6))
	found, dull := 0, 0
	for n := range 60_000 {
		var s strings.Builder
		list := tokens
		if n%3 == 1 { // more than libinjection reads, unless there is a quote
			s.WriteString([]string{"a b 1 c d e ", "foo in a foo in b ", "a and b c d e "}[r.IntN(3)])
		}
		if n%3 == 2 {
			list = inPhrases
		}
		for range 1 + r.IntN(10) {
			switch r.IntN(10) {
			case 0:
				s.WriteString(all[r.IntN(len(all))])
			case 1:
				if n%3 < 2 {
					s.WriteByte(byte(r.IntN(256)))
				}
			case 2:
				if n%3 == 1 {
					s.WriteString([]string{"'", `"`}[r.IntN(2)])
				}
			default:
				s.WriteString(list[r.IntN(len(list))])
			}
			if n%3 == 2 || r.IntN(3) > 0 {
				s.WriteByte(' ')
			}
		}
		v := s.String()
		is, print := libinjection.IsSQLi(v)
		if is {
			found++
			if !suspicious(v) {
				t.Errorf("%q (%s) is not suspicious", v, print)
			}
		} else if !suspicious(v) {
			dull++
		}
	}
	if found < 500 || dull < 1000 {
		t.Errorf("%d found, %d not suspicious", found, dull)
	}
}

// libinjection finds no script without "<" or "=".
func TestNoScript(t *testing.T) {
	pieces := strings.Fields(`script onerror onload style javascript: xmlns href ! - -- [if xml import doctype % ? / > ' " & &#60; : a 1 svg`)
	pieces = append(pieces, "`", " ", "\x00", "\n", "\x80")
	r := rand.New(rand.NewPCG(7, 8))
	with := 0
	for range 30_000 {
		v := ""
		for range r.IntN(10) {
			v += pieces[r.IntN(len(pieces))]
		}
		if libinjection.IsXSS(v) {
			t.Fatalf("%q is found", v)
		}
		if libinjection.IsXSS(v[:len(v)/2] + "<" + v[len(v)/2:] + "=") {
			with++
		}
	}
	if with < 300 {
		t.Fatalf("only %d found with both", with)
	}
}

func TestNotSuspicious(t *testing.T) {
	for v, want := range map[string]bool{
		"hello world": false, "3f2504e0-4f89-11d3-9a0c-0305e82c3301": false, "2024-01-01T10:00:00Z": false, "john@example.com": false,
		"the quick brown fox jumps over and or select union": false,
		"fish and chips and salt and select union":           true, "fish and chips in a shop and a select in union": false, "a/b/c.html?x=1": false, "in the house": false, "12345": false, "": false,
		"1 union select": true, "it's": true, "f(x)": true, "a -- b": true, "1 and 1": true, "1=@x": true,
		"[] union select": true, "1e 1e 1e 1e 1e 1e 1 union select": true, "a and a in": true, "a b c d e f ' or 1=1 --": true,
		"natural right outer join lock in union all not own3d by": true, "1 lock in share mode 1 select in acos": true,
	} {
		if suspicious(v) != want {
			t.Errorf("%q: %v", v, !want)
		}
	}
}
