package match_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/match"
)

// hungry patterns need more states than there is room for.
var hungry = []string{
	`a[ab]{12}c`,
	`(?i)(?:\ba.{1,40}b.{1,40}\b)+c`,
	`(?:a.{0,300}){2}c`,
	`(?:é|a)[^b]{10}(?:c|$)`,
}

// Texts that need many states are answered rightly, and do not make the table
// grow beyond its limit.
func TestTableIsBounded(t *testing.T) {
	for _, expr := range hungry {
		s := newSubject(t, expr)
		rnd := rand.New(rand.NewPCG(1, 1))
		for range 50 {
			s.check(t, randomText(rnd, "aaabbb b\nA", 200+rnd.IntN(400))+randomText(rnd, "abcé", 12))
			if got := s.Size(); got > match.MaxSize {
				t.Fatalf("%q: the states take %d bytes, want at most %d", expr, got, match.MaxSize)
			}
		}
	}
}

// Several goroutines that share a pattern get the answers of one that has it
// alone, also while states are made and forgotten.
func TestConcurrent(t *testing.T) {
	for _, expr := range append(hungry, `(?i)\bkiss\b|^x+$`) {
		shared := newSubject(t, expr)
		texts, want := make([]string, 60), make([]bool, 60)
		rnd := rand.New(rand.NewPCG(1, 3))
		for i := range texts {
			texts[i] = randomText(rnd, "aaabbb b\nA", 100+rnd.IntN(200)) + randomText(rnd, "abcé", 12)
			want[i] = shared.oracle.MatchString(texts[i])
		}
		var all sync.WaitGroup
		for g := range 4 {
			all.Go(func() {
				for i := range texts {
					i := (i*7 + g*15) % len(texts)
					if shared.Match(texts[i]) != want[i] {
						t.Errorf("%q in %q: %v with others about", expr, texts[i], !want[i])
					}
				}
			})
		}
		all.Wait()
	}
}

// A pattern that is too large for an automaton is matched all the same.
func TestTooLarge(t *testing.T) {
	s := newSubject(t, `(a|bcdefghijklmnopqrstuvwx){1,1000}y`)
	if s.HasDFA() {
		t.Fatal("not too large")
	}
	s.check(t, "bcdabcdefghijklmnopqrstuvwxaay")
	s.check(t, "bcdaba")
	s.checkGroups(t, "baay")
}

func TestMatchDoesNotAllocate(t *testing.T) {
	r, err := match.Compile(`(?i)\b(?:union|select)\b.*?\bfrom\b`)
	if err != nil {
		t.Fatal(err)
	}
	a := match.NewAutomaton(r.Required().Literals)
	sc := a.NewScanner()
	const text = "Select the shoes that you like frOm the list, größe 42"
	n := testing.AllocsPerRun(100, func() {
		if !r.Match(text) || len(a.Scan(sc, match.Fold(text))) == 0 {
			t.Fatal("not matched")
		}
		have := match.Presence(text)
		for _, need := range r.Required().Needs {
			if !have.Meets(&need) {
				t.Fatal("not met")
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
