// Package ruleset_test sends labelled requests through the real binary: what
// it refuses must be what its guards refuse in process.
package ruleset_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/ledger"
	"github.com/merlon-dev/merlon/origin"
	"github.com/merlon-dev/merlon/test/corpus"
	"github.com/merlon-dev/merlon/test/harness"
	"github.com/merlon-dev/merlon/waf"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

const backendMark = "X-Backend"

// backend answers 200 to everything.
func backend(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(backendMark, "yes")
		_, _ = io.Copy(io.Discard, r.Body) // what breaks off is for Merlon to answer
		_, _ = io.WriteString(w, "fine")
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// settings are the defaults but for what a test needs in order to send
// thousands of requests from one address and to hear about each.
const settings = `
limit: {rate: 1000000/s, burst: 1000000}
ledger: {burst: 10000, max_total: 8GiB}
`

// serve starts Merlon in front of a backend.
func serve(t *testing.T, flags ...string) *harness.Merlon {
	t.Helper()
	file := filepath.Join(t.TempDir(), "merlon.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	return harness.Serve(t, harness.Options{Insecure: true}, append([]string{"-c", file, "--upstream", backend(t)}, flags...)...)
}

// onlyWAF are the flags with which only the WAF enforces.
const onlyWAF = "--monitor=origin,limit,csrf,headers"

// share returns every step-th request; all of them if MERLON_FULL is set.
func share(list []corpus.Request, step int) []corpus.Request {
	if os.Getenv("MERLON_FULL") != "" {
		step = 1
	} else if raced && step > 1 {
		step *= 8
	}
	var out []corpus.Request
	for i := 0; i < len(list); i += step {
		out = append(out, list[i])
	}
	return out
}

// inProcess asks the guard about a request as net/http reads it, and lets its
// body go by as it would on the way to a backend. readable is false where
// net/http cannot read the request at all.
func inProcess(g *waf.Guard, c corpus.Request) (d merlon.Decision, readable bool) {
	hr, err := c.HTTP()
	if err != nil {
		return d, false
	}
	r := merlon.NewRequest(hr)
	gate := merlon.NewGate(g)
	defer gate.Done(r, merlon.Outcome{})
	if d = gate.Check(r); !d.Passed() {
		return d, true
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return merlon.BodyFailed(err), true
	}
	return d, true
}

// A row is one request, what came back, and what the guard says in process.
type row struct {
	corpus.Request
	answer
	own      merlon.Decision
	readable bool
	flaps    bool // asked again, one of the two changed its mind
}

// compare sends the list and asks the guard in process about the same bytes.
// Where they differ both are asked again: Coraza's verdict about repeated
// names can differ from run to run.
func compare(t *testing.T, m *harness.Merlon, g *waf.Guard, list []corpus.Request) []row {
	t.Helper()
	var mu sync.Mutex
	var rows []row
	sendAll(t, plainDial(m.Insecure), list, func(c corpus.Request, a answer, again func() answer) {
		r := row{Request: c, answer: a}
		r.own, r.readable = inProcess(g, c)
		for i := 0; i < 10 && r.readable && r.own.Passed() != a.passed() && !r.flaps; i++ {
			d, _ := inProcess(g, c)
			r.flaps = d.Passed() == a.passed() || r.own.Passed() == again().passed()
		}
		mu.Lock()
		rows = append(rows, r)
		mu.Unlock()
	})
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.ID(), b.ID()) })
	return rows
}

func answersOf(rows []row) []answer {
	var all []answer
	for _, r := range rows {
		all = append(all, r.answer)
	}
	return all
}

// ID is the request's name, not the answer's.
func (r row) ID() string { return r.Request.ID }

// A cause is who refused a request, and why.
type cause struct {
	Guard  string
	Reason merlon.Reason
	Early  bool // before it was a request: on its bytes, or by net/http
}

func (c cause) String() string { return c.Guard + " " + string(c.Reason) }

// causes reads from the event log who refused each request. Events reach the
// disk a moment after the answer.
func causes(t *testing.T, m *harness.Merlon, answers []answer) map[string]ledger.Event {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		all := refusals(t, m)
		missing := slices.ContainsFunc(answers, func(a answer) bool {
			_, ok := all[a.ID]
			return a.ID != "" && !a.passed() && !a.Backend && !ok
		})
		if !missing || time.Now().After(deadline) {
			return all // what is missing still is told as unknown
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func refusals(t *testing.T, m *harness.Merlon) map[string]ledger.Event {
	t.Helper()
	text, code := m.Run(t, "events", "-o", "json", "--limit", "0")
	if code != 0 {
		t.Fatalf("merlon events: exit code %d", code)
	}
	all := map[string]ledger.Event{}
	dec := json.NewDecoder(strings.NewReader(text))
	for {
		var e ledger.Event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if e.Kind == ledger.Refusal || e.Kind == ledger.ResponseRefusal {
			all[e.ID] = e
		}
	}
}

// why names who gave an answer that is not the backend's usual one.
func why(a answer, events map[string]ledger.Event) cause {
	e, ok := events[a.ID]
	status := merlon.Reason(strconv.Itoa(a.Status))
	switch {
	case a.Status == 0:
		return cause{"nobody", "closed-without-answer", false}
	case a.ID == "":
		return cause{"net/http", status, a.Status >= http.StatusBadRequest}
	case ok:
		// The framing layer cannot be monitored, and knows no method yet. What
		// it refuses in the middle of a body is told by whoever reads that.
		early := e.Guard == "origin" && e.Method == "" || e.Reason == origin.BadFraming || e.Reason == origin.SlowBody
		return cause{e.Guard, e.Reason, early}
	case a.Backend:
		return cause{"backend", status, false}
	}
	return cause{"unknown", status, false}
}

// A count lists how often things happened.
type count map[string]int

func (c count) log(t *testing.T, title string) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(c)) {
		t.Logf("%s: %5d %s", title, c[k], k)
	}
}

// agree checks that the binary refused what the guard in process refuses.
func agree(t *testing.T, rows []row, events map[string]ledger.Event) {
	t.Helper()
	early, refused := count{}, count{}
	blocked, own, flaps := 0, 0, 0
	for _, r := range rows {
		var c cause
		if !r.passed() {
			c = why(r.answer, events)
			blocked++
			refused[c.String()]++
		}
		ownBlocks := !r.readable || !r.own.Passed()
		if ownBlocks {
			own++
		}
		switch {
		case r.flaps:
			flaps++
			t.Logf("%s (%s) differs from run to run: %d, in process %s", r.ID(), r.Source, r.Status, r.own.Reason)
		case r.passed() && !r.readable:
			t.Errorf("%s (%s): net/http cannot read it, but it reached the backend", r.ID(), r.Source)
		case r.passed() && ownBlocks:
			t.Errorf("%s (%s): passed, but in process %s refuses: %+v", r.ID(), r.Source, r.own.Reason, r.own.Findings)
		case !r.passed() && c.Early:
			early[c.String()]++
			if r.readable && r.own.Passed() {
				t.Logf("%s (%s): the rules let it pass; %s: %s", r.ID(), r.Source, c, findings(events[r.answer.ID]))
			}
		case !r.passed() && c.Guard != "waf":
			t.Errorf("%s (%s): %d by %s, which must not enforce here", r.ID(), r.Source, r.Status, c)
		case !r.passed() && !ownBlocks:
			t.Errorf("%s (%s): %d by %s, but in process it passes", r.ID(), r.Source, r.Status, c)
		case !r.passed() && r.Status != r.own.Code():
			t.Errorf("%s (%s): %d by %s, but in process %d, %s", r.ID(), r.Source, r.Status, c, r.own.Code(), r.own.Reason)
		}
	}
	if flaps*50 > len(rows) {
		t.Errorf("%d of %d requests differ from run to run", flaps, len(rows))
	}
	t.Logf("%d requests: %d refused, %d in process, %d differ from run to run", len(rows), blocked, own, flaps)
	refused.log(t, "refused")
	early.log(t, "refused before the rules")
}

func findings(e ledger.Event) string {
	var b strings.Builder
	for _, v := range e.Verdicts {
		for _, f := range v.Findings {
			fmt.Fprintf(&b, "%s %s; ", f.Message, f.Value)
		}
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// What takes long to read or to compile is shared by the tests.
var (
	readCRS      = sync.OnceValues(corpus.CRS)
	compileGuard = sync.OnceValues(func() (*waf.Guard, error) { return waf.New(waf.Config{Engine: "coraza"}) }) // what the binary is held to
)

func crs(t *testing.T, step int) []corpus.Request {
	t.Helper()
	list, err := readCRS()
	if err != nil {
		t.Fatal(err)
	}
	return share(list, step)
}

func newGuard(t *testing.T) *waf.Guard {
	t.Helper()
	g, err := compileGuard()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// The Core Rule Set's own regression tests get through the binary the verdicts
// that they get in process.
func TestCRSOverHTTP(t *testing.T) {
	m := serve(t, onlyWAF)
	rows := compare(t, m, newGuard(t), crs(t, 8))
	events := causes(t, m, answersOf(rows))
	agree(t, rows, events)
	byWAF := 0
	for _, r := range rows {
		if !r.passed() && why(r.answer, events).Guard == "waf" {
			byWAF++
		}
	}
	if byWAF*2 < len(rows) {
		t.Errorf("of %d requests the WAF refused only %d: the comparison has no power", len(rows), byWAF)
	}
}

// The control: without the WAF only what is no request is refused.
func TestCRSWithoutWAF(t *testing.T) {
	m := serve(t, onlyWAF, "--off=waf")
	list := crs(t, 8)
	var mu sync.Mutex
	answers := map[string]answer{}
	sendAll(t, plainDial(m.Insecure), list, func(c corpus.Request, a answer, _ func() answer) {
		mu.Lock()
		answers[c.ID] = a
		mu.Unlock()
	})
	events := causes(t, m, slices.Collect(maps.Values(answers)))
	refused, passed := count{}, 0
	for id, a := range answers {
		if a.passed() {
			passed++
			continue
		}
		c := why(a, events)
		refused[c.String()]++
		if !c.Early || a.Status == http.StatusForbidden {
			t.Errorf("%s: not the backend's answer, but %d by %s with the WAF off: %s", id, a.Status, c, findings(events[a.ID]))
		}
	}
	t.Logf("%d requests: %d passed", len(list), passed)
	refused.log(t, "refused")
	if passed*10 < 9*len(list) {
		t.Errorf("of %d requests only %d passed with the WAF off", len(list), passed)
	}
}
