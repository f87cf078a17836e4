package password_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/merlon-dev/merlon/identity/password"
)

func newPolicy(t testing.TB, c password.Config) *password.Policy {
	t.Helper()
	p, err := password.NewPolicy(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func rules(problems []password.Problem) string {
	var names []string
	for _, p := range problems {
		names = append(names, string(p.Rule))
	}
	return strings.Join(names, " ")
}

func TestPolicy(t *testing.T) {
	words := []string{
		"ann-marie", "Ann-Marie O'Neil", "ann.oneil1977@bluebell-bakery.example", "Gatehouse", "wolfeschlegel",
		"n@thelongestnameofahost.museum", "x.y@z.co.uk",
	}
	p := newPolicy(t, password.Config{Words: []string{"Roadrunner", "Springfield Works"}})
	for _, c := range []struct {
		password string
		second   bool
		want     string
	}{
		// Length (D3): 15 alone, 8 beside a second factor; characters, not bytes.
		{"kP3~vQz8tLm2wX", false, "too-short"},
		{"kP3~vQz8tLm2wXs", false, ""},
		{"kP3~vQz", true, "too-short"},
		{"kP3~vQz8", true, ""},
		{"ü7ö#ä2ß", true, "too-short"},
		{"", false, "too-short guessable"},
		{strings.Repeat("x7#kQ", 205), false, "too-long"},
		{"abc\xff\xfe~kQ8 not text at all", false, "not-text"},

		// All characters are good, and no classes of them are asked for.
		{"purple ferrets annoy the lazy mongoose", false, ""},
		{"hjzkwqpvnytrxmb", false, ""},
		{"83650194726183740", false, ""},
		{"密码要长一点才不容易被人猜到啊", false, ""},
		{"🦔🪗🧶🪁🦩🎐🧭🪕🛶", true, ""},
		{"tab\tand\x00NUL are kept, too", false, ""},

		// What is guessed first.
		{"password", true, "guessable"},
		{"password12345678", false, "guessable"},
		{"P@ssw0rd2024!!!!", false, "guessable"},
		{"drowssapdrowssap", false, "guessable"},
		{"passwordpassword", false, "guessable"},
		{"Sunshine2019!", true, "guessable"},
		{"iloveyou", true, "guessable"},
		{"ILoveYou!", true, "guessable"},
		{"trustno1trustno1", false, "guessable"},
		{"qwertyuiopasdfghjkl", false, "guessable"},
		{"1qaz2wsx3edc4rfv", false, "guessable"},
		{"123456789012345", false, "guessable"},
		{"987654321987654321", false, "guessable"},
		{"aaaaaaaaaaaaaaaaaaaa", false, "guessable"},
		{"abcabcabcabcabcabc", false, "guessable"},
		{"abcdefghijklmnopqrstuvwxyz", false, "guessable"},
		{"kQ8kQ8kQ8kQ8kQ8kQ8", false, "guessable"},
		{"dragonmonkeyshadow", false, "guessable"},
		{"letmeinletmein99", false, "guessable"},
		{"йцукенгшщзхъ", true, "guessable"},
		{"schatz1234schatz", false, "guessable"},
		{"        ", true, "guessable"},

		// What the user and the site are called, ASVS 6.2.11.
		{"wolfeschlegel1", true, "personal"},
		{"annmarie1", true, "guessable"}, // as both are common names
		{"Ann-Marie2024", true, "personal"},
		{"oneil1977oneil1977", false, "personal"},
		{"Bluebell2024", true, "personal"},
		{"bakery-bluebell-2024", false, "personal"},
		{"G@tehouse2024!!", false, "personal"},
		{"esuohetag1", true, "personal"},
		{"roadrunner12345", false, "guessable"}, // in the list of common words, too
		{"Springfield#works1", false, "personal"},
		// Names and addresses as they stand, with what people put behind them.
		{"ann.oneil1977@bluebell-bakery.example", false, "personal"},
		{"ann.oneil1977@bluebell-bakery.example1", false, "personal"},
		{"Ann-Marie O'Neil Ann-Marie", false, "personal"},
		{"N@TheLongestNameOfAHost.museum!", false, "personal"},
		{"n@thelongestnameofahost.museum n@thelongestnameofahost.museum", false, "personal"},
		{"x.y@z.co.uk2024", false, "personal"},
		// They may be in it.
		{"ann likes marmalade on 7 trains", false, ""},
		{"Gatehouse of nine purple geese", false, ""},
	} {
		problems, err := p.Check(t.Context(), c.password, words, c.second)
		if err != nil {
			t.Error(err)
		}
		if got := rules(problems); got != c.want {
			t.Errorf("%.40q: %q, not %q (%.1f bits)", c.password, got, c.want, password.GuessBits(c.password, words...))
		}
		for _, problem := range problems {
			text := problem.String()
			if !strings.HasPrefix(text, "It ") || !strings.HasSuffix(text, ".") || len(c.password) > 8 && strings.Contains(text, c.password) {
				t.Errorf("%q: %s", c.password, text)
			}
		}
	}
}

func TestPolicyOfBcrypt(t *testing.T) {
	long := "kP3~vQz8" + strings.Repeat("y7 ö", 20)
	for name, c := range map[string]struct {
		config password.Config
		want   string
	}{
		"bcrypt":            {password.Config{Hash: "bcrypt"}, "too-long"},
		"bcrypt and pepper": {password.Config{Hash: "bcrypt", Pepper: "env:X"}, ""},
		"argon2id":          {password.Config{}, ""},
	} {
		problems, err := newPolicy(t, c.config).Check(t.Context(), long, nil, false)
		if err != nil || rules(problems) != c.want {
			t.Errorf("%s: %v, %v", name, problems, err)
		}
	}
	p := newPolicy(t, password.Config{Hash: "bcrypt"})
	if problems, _ := p.Check(t.Context(), "kP3~vQz8tLm2wXs\x00", nil, false); rules(problems) != "not-text" {
		t.Errorf("NUL: %v", problems)
	}
	// What the policy lets pass, the hasher takes: 24 times 3 bytes.
	if problems, _ := p.Check(t.Context(), "漢字仮名交文書道茶華武士刀剣弓馬竹林風雅月雪花", nil, false); len(problems) != 0 {
		t.Errorf("72 bytes: %v", problems)
	}
}

func TestPolicySettings(t *testing.T) {
	short := newPolicy(t, password.Config{Length: password.Length{Alone: 8}})
	if problems, _ := short.Check(t.Context(), "kP3~vQz8", nil, false); len(problems) != 0 {
		t.Errorf("8 characters: %v", problems)
	}
	long := newPolicy(t, password.Config{Length: password.Length{Alone: 20, WithSecondFactor: 12}})
	if problems, _ := long.Check(t.Context(), "kP3~vQz8tLm", nil, true); len(problems) != 1 || problems[0].Bound != 12 {
		t.Errorf("11 of 12 characters: %v", problems)
	}
	for _, c := range []struct {
		config password.Config
		want   string
	}{
		{password.Config{Length: password.Length{Alone: 7}}, `length.alone "7": must be from 8 to 64`},
		{password.Config{Length: password.Length{Alone: 65}}, `length.alone "65": must be from 8 to 64`},
		{password.Config{Length: password.Length{WithSecondFactor: 6}}, `length.with_second_factor "6": must be from 8 to 64`},
		{password.Config{Length: password.Length{Alone: 12, WithSecondFactor: 14}}, `length.with_second_factor "14": must not be more than length.alone`},
		{password.Config{Words: []string{"acme", "ab"}}, `words[1] "ab": must have words of 3 to 16`},
		{password.Config{Breached: "/nowhere/filter"}, `breached "/nowhere/filter": open /nowhere/filter: no such file`},
		{password.Config{RangeAPI: "http://api.example/range"}, `range_api "http://api.example/range": must be an address such as`},
		{password.Config{RangeAPI: "https://user@api.example/"}, `range_api`},
		{password.Config{RangeAPI: "https://api.example/?key=1"}, `range_api`},
		{password.Config{RangeTimeout: time.Minute}, `range_timeout "1m0s": must be from 100ms to 10s`},
	} {
		_, err := password.NewPolicy(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
}

// Everything on the list of common passwords is refused, alone and with what
// people put behind it. ASVS 6.2.4 asks for the 3,000 most common ones.
func TestCommonPasswords(t *testing.T) {
	words := password.CommonWords()
	tails := []string{"", "1", "123", "2024!", "@123"}
	n := 0
	for _, w := range words {
		for _, tail := range tails {
			first, size := utf8.DecodeRuneInString(w)
			for _, text := range []string{w + tail, string(unicode.ToUpper(first)) + w[size:] + tail, w + w} {
				n++
				if bits := password.GuessBits(text); bits >= password.MinBits {
					t.Errorf("%s is thought to have %.1f bits", text, bits)
				}
			}
		}
	}
	if len(words) < 3000 || n < 40_000 {
		t.Errorf("only %d words, %d passwords", len(words), n)
	}
	t.Logf("%d words, %d passwords", len(words), n)
}

// What machines make, and sentences of words by chance, may not be refused.
func TestRandomPasswordsAreGood(t *testing.T) {
	pick := func(n int) int {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
		if err != nil {
			t.Fatal(err)
		}
		return int(i.Int64())
	}
	var words []string
	for i, w := range password.CommonWords() {
		if i > 200 && len(w) > 3 {
			words = append(words, w)
		}
	}
	const tries = 1000
	for name, c := range map[string]struct {
		make func() string
		bad  int // how many of them may be refused
	}{
		"8 letters and digits": {func() string { return rand.Text()[:8] }, tries / 100},
		"15 letters":           {func() string { return rand.Text()[:15] }, 0},
		"12 digits":            {func() string { return fmt.Sprintf("%012d", pick(1e12)) }, tries / 20},
		"4 words": {func() string {
			return words[pick(len(words))] + " " + words[pick(len(words))] + " " + words[pick(len(words))] + " " + words[pick(len(words))]
		}, 0},
		"3 words, joined": {func() string { return words[pick(len(words))] + words[pick(len(words))] + words[pick(len(words))] }, tries / 10},
	} {
		bad := 0
		for range tries {
			if password.GuessBits(c.make()) < password.MinBits {
				bad++
			}
		}
		t.Logf("%s: %d of %d refused", name, bad, tries)
		if bad > c.bad {
			t.Errorf("%s: %d of %d are refused", name, bad, tries)
		}
	}
}

// FuzzPolicy: no password, however strange, breaks the policy; what it lets
// pass is long enough, and the hasher takes it.
func FuzzPolicy(f *testing.F) {
	f.Add("password", "ann", true)
	f.Add("\xff\x00", "", false)
	f.Add("kP3~vQz8tLm2wXs", "ann@example.com", false)
	f.Add(strings.Repeat("ａ", 400), "a@", false)
	p := newPolicy(f, password.Config{Hash: "bcrypt"})
	f.Fuzz(func(t *testing.T, text, word string, second bool) {
		problems, err := p.Check(t.Context(), text, []string{word}, second)
		if err != nil {
			t.Error(err)
		}
		if len(problems) == 0 && (len([]rune(text)) < 8 || len(text) > 72 || strings.Contains(text, "\x00")) {
			t.Errorf("%q passed", text)
		}
	})
}

func TestBreachedFile(t *testing.T) {
	lost := "purple ferrets annoy the lazy mongoose"
	decomposed := "a man\u0303ana purple mongoose"
	file := filepath.Join(t.TempDir(), "breached.filter")
	build(t, file, 1, fullLines(lost, decomposed))
	p := newPolicy(t, password.Config{Breached: file})
	for text, want := range map[string]string{
		lost:                        "breached",
		lost + "!":                  "",
		decomposed:                  "breached",
		"a mañana purple mongooses": "",
	} {
		problems, err := p.Check(t.Context(), text, nil, false)
		if err != nil || rules(problems) != want {
			t.Errorf("%q: %v, %v", text, problems, err)
		}
		if got, err := p.Breached(t.Context(), text); err != nil || got != (want != "") {
			t.Errorf("%q at log-in: %v, %v", text, got, err)
		}
	}
	if got, err := p.Breached(context.Background(), strings.Repeat("x", 1<<20)); got || err != nil {
		t.Errorf("1 MB: %v, %v", got, err)
	}
}
