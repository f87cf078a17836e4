package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// leaks are the patterns and words by which the CRS finds what answers should
// not hold.
var leaks = sync.OnceValues(func() (patterns, words []string) {
	rs, err := seclang.Parse(ruleset.Files{}, seclang.Source{Text: "Include @crs-setup.conf.example\nInclude @owasp_crs/*.conf\n"})
	if err != nil {
		return nil, nil
	}
	for _, r := range rs.Rules {
		if r.Phase != 3 && r.Phase != 4 {
			continue
		}
		for _, l := range r.Links {
			switch {
			case l.Op == nil || !l.Op.Arg.Static():
			case l.Op.Name == "rx":
				patterns = append(patterns, l.Op.Arg.String())
			case l.Op.Name == "pm":
				words = append(words, strings.Fields(l.Op.Arg.String())...)
			case l.Op.Name == "pmFromFile":
				words = append(words, l.Op.Lines...)
			}
		}
	}
	return patterns, words
})

// answer is an answer with a leak in it, most times.
func answer(r *rand.Rand) *message.Response {
	patterns, words := leaks()
	leak := ""
	switch r.IntN(6) {
	case 0, 1, 2:
		leak = traffic.Member(r, patterns[r.IntN(len(patterns))])
	case 3, 4:
		leak = words[r.IntN(len(words))]
	}
	if r.IntN(4) == 0 {
		leak = traffic.Mutator{Rand: r}.Mutate(leak)
	}
	text := "<!DOCTYPE html>\n<html><body><h1>" + traffic.Prose(r, 5) + "</h1>\n<p>" + traffic.Prose(r, r.IntN(80)) + leak
	if r.IntN(3) == 0 {
		text = leak // at the beginning, and alone
	}
	a := &message.Response{
		Status: []int{200, 200, 404, 500, 403, 302}[r.IntN(6)], Proto: "HTTP/1.1", Body: []byte(text + pick(r, "", "</p></body></html>\n", " "+traffic.Prose(r, 20))),
		Header: []message.Pair{{Name: "Content-Type", Value: pick(r, "text/html", "text/html; charset=utf-8", "text/plain", "text/xml")}},
	}
	if r.IntN(5) == 0 {
		a.Header = append(a.Header, message.Pair{Name: pick(r, "Location", "X-Powered-By", "Content-Encoding"), Value: pick(r, "gzip", "PHP/8.1", "/x?"+leak)})
	}
	if r.IntN(20) == 0 {
		a.Body = nil
	}
	return a
}

// Answers with what the CRS looks for, and without.
func TestAnswers(t *testing.T) {
	if patterns, words := leaks(); len(patterns) < 30 || len(words) < 500 {
		t.Fatalf("only %d patterns and %d words", len(patterns), len(words))
	}
	for level, few := range map[int]int{1: 500, 2: 150, 4: 150} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			s := crs(t, level).compare(t, sample(10_000, few), func(i int) named {
				r := rand.New(rand.NewPCG(uint64(i), 4))
				m := traffic.Ordinary(r)
				if r.IntN(10) == 0 {
					m = traffic.Places[0].Request("' or 1=1")
				}
				return named{fmt.Sprint("answer ", i), m, answer(r)}
			})
			if s.flagged.Load()*4 < s.n.Load() {
				t.Error("Coraza flags so little that the comparison has no power")
			}
		})
	}
}
