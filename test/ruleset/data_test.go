package ruleset_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/merlon-dev/merlon/csrf"
	"github.com/merlon-dev/merlon/origin"
	"github.com/merlon-dev/merlon/test/corpus"
)

// data loads a file of labelled requests that is not part of the project.
func data(t *testing.T, name string, step int) []corpus.Request {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", name)
	list, err := corpus.Load(path)
	if err != nil {
		t.Skipf("%s is not here: %v", path, err)
	}
	return share(list, step)
}

// Collected attacks and recorded ordinary requests get through the binary the
// verdicts that they get in process, source by source.
func TestDataOverHTTP(t *testing.T) {
	for _, name := range []string{"attacks.jsonl", "benign.jsonl"} {
		t.Run(name, func(t *testing.T) {
			list := data(t, name, 60)
			m := serve(t, onlyWAF)
			rows := compare(t, m, newGuard(t), list)
			agree(t, rows, causes(t, m, answersOf(rows)))
			perSource(t, rows)
		})
	}
}

// perSource tells the shares that were refused.
func perSource(t *testing.T, rows []row) {
	t.Helper()
	type shares struct{ n, binary, own int }
	all := map[string]*shares{}
	var names []string
	for _, r := range rows {
		s := all[r.Source]
		if s == nil {
			s = new(shares)
			all[r.Source] = s
			names = append(names, r.Source)
		}
		s.n++
		if !r.passed() {
			s.binary++
		}
		if !r.readable || !r.own.Passed() {
			s.own++
		}
	}
	slices.Sort(names)
	for _, name := range names {
		s := all[name]
		t.Logf("%-16s %5d requests: %5.2f %% refused, %5.2f %% in process", name, s.n,
			100*float64(s.binary)/float64(s.n), 100*float64(s.own)/float64(s.n))
	}
}

// An ordinary application does not notice Merlon: with every guard enforcing
// but the WAF, whose shares are told above, ordinary requests reach the
// backend. The WAF records only, so that the guards behind it are asked about
// what it would refuse, too.
func TestOrdinaryRequestsPassTheOtherGuards(t *testing.T) {
	list := ordinary(t)
	m := serve(t, "--monitor=waf")
	dial := tlsDial(m.HTTPS, &tls.Config{RootCAs: m.CA(t), ServerName: "localhost", MinVersion: tls.VersionTLS12})
	var mu sync.Mutex
	var refused []row
	sendAll(t, dial, append(list, forged), func(c corpus.Request, a answer, _ func() answer) {
		if !a.passed() {
			mu.Lock()
			refused = append(refused, row{Request: c, answer: a})
			mu.Unlock()
		}
	})
	events := causes(t, m, answersOf(refused))
	seen, enforced := count{}, false
	for _, r := range refused {
		c := why(r.answer, events)
		if r.ID() == forged.ID {
			enforced = c.Guard == "csrf"
			continue
		}
		seen[r.Source+" "+c.String()]++
		said := fmt.Sprintf("%s %s %.100s: %d by %s: %s", r.ID(), r.Method, r.Path, r.Status, c, findings(events[r.answer.ID]))
		if deliberate(r.Request, c) {
			t.Log(said)
		} else {
			t.Error("an ordinary request was refused: " + said)
		}
	}
	if !enforced {
		t.Error("a forged form was not refused by csrf: the guards do not enforce")
	}
	t.Logf("%d requests", len(list))
	seen.log(t, "refused")
}

// ordinary is what browsers and programs sent to working applications. What
// differs most from request to request is taken most often.
func ordinary(t *testing.T) []corpus.Request {
	t.Helper()
	var recorded, made []corpus.Request
	for _, r := range data(t, "benign.jsonl", 1) {
		if r.Source == "chrome-har" {
			recorded = append(recorded, r)
		} else {
			made = append(made, r)
		}
	}
	return append(share(recorded, 3), share(made, 60)...)
}

// forged is what a page of another site sends.
var forged = corpus.Request{
	ID: "forged", Method: http.MethodPost, Path: "/transfer", Proto: "HTTP/1.1",
	Header: []corpus.Field{
		{Name: "Content-Type", Value: "application/x-www-form-urlencoded"},
		{Name: "Host", Value: "bank.example"},
		{Name: "Origin", Value: "https://evil.example"},
		{Name: "User-Agent", Value: "Mozilla/5.0"},
	},
	Body: []byte("to=mallory"),
}

// deliberate reports whether such a request is refused on purpose until an
// operator says otherwise:
//
//   - csrf: a page of another host posts. Collectors of statistics and
//     log-ins by form_post live from it; their routes name trusted_origins or
//     switch csrf off.
//   - origin: a slash or dot of the path is encoded twice; routes that take
//     whole addresses in the path say allow_double_encoding.
func deliberate(r corpus.Request, c cause) bool {
	switch {
	case c.Guard == "csrf" && c.Reason == csrf.CrossSite:
		from, err := url.Parse(field(r, "Origin"))
		return err == nil && from.Host != "" && !strings.EqualFold(from.Host, field(r, "Host"))
	case c.Guard == "origin" && c.Reason == origin.AmbiguousPath:
		path, _, _ := strings.Cut(strings.ToUpper(r.Path), "?")
		return strings.Contains(path, "%252F") || strings.Contains(path, "%252E")
	}
	return false
}

func field(r corpus.Request, name string) string {
	for _, f := range r.Header {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}
