package password

import (
	_ "embed"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

//go:embed common.txt
var commonText string

// common returns the words of common.txt, forwards and backwards, and how many
// bits they take by their place in it.
var common = sync.OnceValue(func() map[string]float64 {
	words := make(map[string]float64, 6000)
	rank := 0.0
	for line := range strings.Lines(commonText) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for w := range strings.FieldsSeq(line) {
			rank++
			addWord(words, w, math.Log2(rank+1))
		}
	}
	return words
})

// addWord adds a word that is not there with fewer bits, and backwards with one more.
func addWord(words map[string]float64, w string, bits float64) {
	for i, text := range []string{w, backwards(w)} {
		if old, ok := words[text]; !ok || old > bits+float64(i) {
			words[text] = bits + float64(i)
		}
	}
}

func backwards(s string) string {
	rs := []rune(s)
	slices.Reverse(rs)
	return string(rs)
}

const (
	// minBits is how many times, as a power of two, somebody who knows what
	// people do must guess before a password is found. Eight letters by chance
	// are more than enough; eight digits mostly not, since many are dates; a
	// common word with a year and some marks never is.
	minBits = 25
	// maxJudged is how many characters are looked at: so many with fewer bits
	// than that are one long repetition.
	maxJudged = 128
	maxWord   = 16 // characters of a word that is looked for
)

// rows are what fingers run along: keyboards' rows and columns, the alphabet.
var rows = [][]rune{
	[]rune("12345678901234567890"), []rune("abcdefghijklmnopqrstuvwxyz"), []rune("qwertyuiop"), []rune("asdfghjkl"), []rune("zxcvbnm"),
	[]rune("qwertzuiop"), []rune("yxcvbnm"), []rune("azertyuiop"), []rune("qsdfghjklm"), []rune("wxcvbn"), []rune("йцукенгшщзхъ"), []rune("фывапролджэ"), []rune("ячсмитьбю"),
	[]rune("qazwsxedcrfvtgbyhnujmikolp"), []rune("1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol"), []rune("1q2w3e4r5t6y7u8i9o0p"), []rune("!@#$%^&*()"), []rune(`!"§$%&/()=`),
}

// plain are the characters that people put in letters' places.
var plain = [2]map[rune]rune{
	{'@': 'a', '4': 'a', '8': 'b', '(': 'c', '3': 'e', '9': 'g', '6': 'g', '1': 'i', '!': 'i', '|': 'i', '0': 'o', '$': 's', '5': 's', '7': 't', '+': 't', '2': 'z'},
	{'@': 'a', '4': 'a', '8': 'b', '(': 'c', '3': 'e', '9': 'g', '6': 'b', '1': 'l', '!': 'l', '|': 'l', '0': 'o', '$': 's', '5': 's', '7': 't', '+': 't', '2': 'z'},
}

// A guesser estimates how soon a password is guessed by who tries words, names,
// sequences and repetitions first.
type guesser struct {
	text   []rune  // as typed
	folded []rune  // in lower case
	forms  [3]form // that, and with letters in the places of other characters
	words  []map[string]float64
	whole  []string  // what is looked for as it stands
	best   []float64 // the least bits of the first i characters
}

// A form is a text whose stretches can be looked up.
type form struct {
	text string
	at   []int // where each character begins, and the end
}

func newForm(text []rune) form {
	f := form{text: string(text), at: make([]int, 0, len(text)+1)}
	for i := range f.text {
		f.at = append(f.at, i)
	}
	f.at = append(f.at, len(f.text))
	return f
}

// guessBits returns the logarithm of about how many guesses it takes for who
// knows the common words and what is called so.
func guessBits(password string, called ...[]string) float64 {
	g := guesser{text: []rune(password), words: []map[string]float64{common()}, whole: wholes(called...)}
	if len(called) > 0 {
		g.words = append(g.words, ownWords(called...))
	}
	g.text = g.text[:min(len(g.text), maxJudged)]
	n := len(g.text)
	g.folded = make([]rune, n)
	for i, r := range g.text {
		g.folded[i] = unicode.ToLower(r)
	}
	g.forms[0] = newForm(g.folded)
	for k := range plain {
		changed := slices.Clone(g.folded)
		for i, r := range changed {
			if p, ok := plain[k][r]; ok {
				changed[i] = p
			}
		}
		g.forms[k+1] = newForm(changed)
	}
	g.best = make([]float64, n+1)
	for i := 1; i <= n; i++ {
		g.best[i] = math.Inf(1)
	}
	for i := range n {
		g.reach(i, i+1, alone(g.text[i]))
		g.repeats(i)
		g.runs(i)
		g.years(i)
		g.wordsFrom(i)
		g.wholesFrom(i)
	}
	return g.best[n]
}

// reach notes that the characters from i to j take so many bits.
func (g *guesser) reach(i, j int, bits float64) { g.best[j] = min(g.best[j], g.best[i]+bits) }

// alone returns what a character takes that belongs to nothing.
func alone(r rune) float64 {
	switch {
	case r >= '0' && r <= '9':
		return 3.33
	case r == ' ':
		return 3
	case r >= 'a' && r <= 'z':
		return 4.7
	case r >= 'A' && r <= 'Z':
		return 5.2
	case r == '!' || r == '.':
		return 2.5 // the marks that come to mind
	case r < 128:
		return 5
	}
	return 7
}

// repeats finds what stands already up to 16 characters before i.
func (g *guesser) repeats(i int) {
	for d := 1; d <= min(i, maxWord); d++ {
		for j := i; j < len(g.folded) && g.folded[j] == g.folded[j-d]; j++ {
			if length := j + 1 - i; length > 2 || d == 1 {
				g.reach(i, j+1, 1+math.Log2(float64(d))+math.Log2(float64(length)))
			}
		}
	}
}

// runs finds stretches of the rows, in both directions.
func (g *guesser) runs(i int) {
	for _, keys := range rows {
		for at, k := range keys {
			if k != g.folded[i] {
				continue
			}
			bits := 6.0
			if at == 0 || at == len(keys)-1 {
				bits = 4
			}
			for _, step := range [...]int{1, -1} {
				j, p := i+1, at+step
				for j < len(g.folded) && p >= 0 && p < len(keys) && g.folded[j] == keys[p] {
					j, p = j+1, p+step
					if j-i > 2 {
						g.reach(i, j, bits+math.Log2(float64(j-i)))
					}
				}
			}
		}
	}
}

// years finds 1900 to 2099.
func (g *guesser) years(i int) {
	if i+4 > len(g.folded) {
		return
	}
	y := g.folded[i : i+4]
	century := y[0] == '1' && y[1] == '9' || y[0] == '2' && y[1] == '0'
	if century && isDigit(y[2]) && isDigit(y[3]) {
		g.reach(i, i+4, 6)
	}
}

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

// wordsFrom finds words from i on, also with other characters in letters'
// places.
func (g *guesser) wordsFrom(i int) {
	for j := i + 2; j <= min(i+maxWord, len(g.folded)); j++ {
		style := -1.0
		for k, f := range &g.forms {
			w := f.text[f.at[i]:f.at[j]]
			if k > 0 && w == g.forms[0].text[g.forms[0].at[i]:g.forms[0].at[j]] {
				continue
			}
			for _, words := range g.words {
				bits, ok := words[w]
				if !ok {
					continue
				}
				if style < 0 {
					style = capitals(g.text[i:j])
				}
				if k > 0 {
					bits += 2
				}
				g.reach(i, j, bits+style)
			}
		}
	}
}

// wholesFrom finds names and addresses as they stand, however long they are.
func (g *guesser) wholesFrom(i int) {
	rest := g.forms[0].text[g.forms[0].at[i]:]
	for _, w := range g.whole {
		if strings.HasPrefix(rest, w) {
			j := i + utf8.RuneCountInString(w)
			g.reach(i, j, 1+capitals(g.text[i:j]))
		}
	}
}

// capitals returns what capital letters add to a word: little in the usual
// places.
func capitals(rs []rune) float64 {
	upper := 0
	for _, r := range rs {
		if unicode.IsUpper(r) {
			upper++
		}
	}
	switch {
	case upper == 0:
		return 0
	case upper == len(rs) || upper == 1 && (unicode.IsUpper(rs[0]) || unicode.IsUpper(rs[len(rs)-1])):
		return 1
	}
	return min(float64(upper)+1, 4)
}

// ownWords returns what the words that a user or a site is called by are made
// of: "Ann-Marie O'Neil" is annmarieoneil, ann, marie, and neil; of an address
// the part before the @ and the names of the host but its last.
func ownWords(lists ...[]string) map[string]float64 {
	own := make(map[string]float64)
	add := func(w string) {
		if n := utf8.RuneCountInString(w); n >= minOwnWord && n <= maxWord {
			addWord(own, w, 1)
		}
	}
	for _, list := range lists {
		for _, text := range list {
			text = strings.ToLower(norm.NFC.String(text[:min(len(text), MaxBytes)]))
			local, host, isAddress := strings.Cut(text, "@")
			if isAddress {
				if dot := strings.LastIndexByte(host, '.'); dot > 0 {
					host = host[:dot]
				}
				text = local + " " + host
				add(letters(local))
			}
			add(letters(text))
			for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
				add(part)
				add(strings.TrimRightFunc(part, unicode.IsDigit))
			}
		}
	}
	return own
}

// wholes returns what a user or a site is called by, in lower case: what cannot
// be taken apart into words, such as a long name of a host, is found by that.
func wholes(lists ...[]string) (whole []string) {
	for _, list := range lists {
		for _, text := range list {
			text = strings.ToLower(norm.NFC.String(text[:min(len(text), MaxBytes)]))
			if utf8.RuneCountInString(text) >= minOwnWord {
				whole = append(whole, text)
			}
		}
	}
	return whole
}

// letters returns only the letters and digits of a text.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, s)
}
