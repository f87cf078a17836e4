package oracle_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/merlon-dev/merlon/test/corpus"
	"github.com/merlon-dev/merlon/waf/internal/body"
	"github.com/merlon-dev/merlon/waf/internal/coraza"
	"github.com/merlon-dev/merlon/waf/internal/engine"
	"github.com/merlon-dev/merlon/waf/internal/message"
	"github.com/merlon-dev/merlon/waf/internal/oracle"
	"github.com/merlon-dev/merlon/waf/internal/oracle/traffic"
	"github.com/merlon-dev/merlon/waf/internal/ruleset"
	"github.com/merlon-dev/merlon/waf/internal/seclang"
)

// full has every test compare everything. Otherwise they take samples.
var full = os.Getenv("MERLON_FULL") != ""

// sample is how many of n messages to compare, of few as a rule.
func sample(n, few int) int {
	if raced {
		few = max(few/15, 1)
	}
	if full {
		return n
	}
	return min(n, few)
}

// A pair is the two engines with the same rules.
type pair struct {
	native *engine.Engine
	coraza *coraza.Engine
}

func newPair(src ...ruleset.Source) (pair, error) {
	var list []seclang.Source
	for _, s := range src {
		list = append(list, seclang.Source{Name: s.Name, Text: s.Text})
	}
	rs, err := seclang.Parse(ruleset.Files{}, list...)
	if err != nil {
		return pair{}, err
	}
	var p pair
	if p.native, err = engine.New(rs); err != nil {
		return pair{}, err
	}
	p.coraza, err = coraza.New(src)
	return p, err
}

// sources are the rules of a guard.
func sources(level int, before, after string) ([]ruleset.Source, error) {
	types, err := body.NewTypes(nil)
	if err != nil {
		return nil, err
	}
	s := ruleset.Setup{Paranoia: level, Threshold: 5, OutboundThreshold: 4, Arguments: 1000, Limit: 1 << 20, Types: types}
	return s.Around([]ruleset.Source{{Text: before}}, []ruleset.Source{{Text: after}}), nil
}

// levels are the engines with the CRS at paranoia levels 1 to 4, made when
// they are first asked for.
var levels [5]struct {
	sync.Once
	pair
	err error
}

func newCRS(level int, before, after string) (pair, error) {
	src, err := sources(level, before, after)
	if err != nil {
		return pair{}, err
	}
	return newPair(src...)
}

func crs(t testing.TB, level int) pair {
	t.Helper()
	l := &levels[level]
	l.Do(func() { l.pair, l.err = newCRS(level, "", "") })
	if l.err != nil {
		t.Fatal(l.err)
	}
	return l.pair
}

// tests are the requests of the CRS's regression tests.
var tests = sync.OnceValues(func() ([]named, error) {
	list, err := corpus.CRS()
	if err != nil {
		return nil, err
	}
	return read(list)
})

// A named message is one to compare.
type named struct {
	id      string
	request *message.Request
	answer  *message.Response
}

func read(list []corpus.Request) ([]named, error) {
	r, err := traffic.NewReader()
	if err != nil {
		return nil, err
	}
	var out []named
	for _, c := range list {
		hr, err := c.HTTP()
		if err != nil {
			continue // net/http answers it
		}
		m, err := r.Request(hr)
		if err != nil {
			continue // its framing is broken
		}
		out = append(out, named{c.ID, m, nil})
	}
	return out, nil
}

func crsTests(t testing.TB) []named {
	t.Helper()
	list, err := tests()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A tally counts what came of comparisons.
type tally struct {
	n, flagged, judged, clean, needless, unsteady, different, missed atomic.Int64
}

func (s *tally) String() string {
	return fmt.Sprintf("%d messages: Coraza flags %d, denies or scores %d, screened clean %d, evaluated needlessly %d, Coraza unsteady %d, different %d, missed %d",
		s.n.Load(), s.flagged.Load(), s.judged.Load(), s.clean.Load(), s.needless.Load(), s.unsteady.Load(), s.different.Load(), s.missed.Load())
}

// compare compares n messages. The second time the native engine knows many
// of the values.
func (p pair) compare(t *testing.T, n int, message func(int) named) *tally {
	t.Helper()
	s := &tally{}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if diff := p.one(s, message(i)); diff != "" && s.different.Load() <= shown {
					t.Error(diff)
				}
			}
		})
	}
	wg.Wait()
	t.Log(s)
	return s
}

const shown = 8

// one compares a message, and shows it if the engines differ.
func (p pair) one(s *tally, c named) string {
	s.n.Add(1)
	o, err := oracle.Compare(p.native, p.coraza, c.request, c.answer)
	// Some rules have more outcomes, by the order of values, than runs show.
	if err == nil && o.Diff != "" {
		o, err = oracle.CompareRuns(p.native, p.coraza, c.request, c.answer, 20*oracle.Runs)
		o.Runs += oracle.Runs
		if o.Open {
			o.Diff = ""
		}
	}
	if err != nil {
		s.different.Add(1)
		return fmt.Sprintf("%s: %v", c.id, err)
	}
	count := func(n *atomic.Int64, yes bool) {
		if yes {
			n.Add(1)
		}
	}
	count(&s.flagged, o.Flagged)
	count(&s.judged, o.Judged)
	count(&s.clean, o.Clean)
	count(&s.needless, !o.Clean && !o.Flagged)
	count(&s.unsteady, o.Diff == "" && o.Runs > 1)
	count(&s.missed, o.Missed())
	switch {
	case o.Diff != "":
		s.different.Add(1)
		return fmt.Sprintf("%s: %s\n%s", c.id, o.Diff, show(c))
	case !again(p.native, c):
		s.different.Add(1)
		return fmt.Sprintf("%s: the native engine says something else the second time\n%s", c.id, show(c))
	}
	return ""
}

// again reports whether the native engine says the same once more.
func again(e *engine.Engine, c named) bool {
	o, err := oracle.Compare(e, e, c.request, c.answer)
	return err == nil && o.Diff == "" && o.Runs == 1
}

func show(c named) string {
	var b strings.Builder
	m := c.request
	fmt.Fprintf(&b, "%s %s %s\n", m.Method, strconv.Quote(m.URI), m.Proto)
	for _, h := range m.Header {
		fmt.Fprintf(&b, "%q: %q\n", h.Name, h.Value)
	}
	fmt.Fprintf(&b, "%+v", m.Body)
	if c.answer != nil {
		fmt.Fprintf(&b, "\n%d %q %.2000q", c.answer.Status, c.answer.Header, c.answer.Body)
	}
	return b.String()
}
