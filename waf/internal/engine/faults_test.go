package engine_test

import (
	"os"
	"slices"
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

// guardRules are the rules of a guard with paranoia level 1.
func guardRules(t *testing.T) []ruleset.Source {
	t.Helper()
	types, err := body.NewTypes(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := ruleset.Setup{Paranoia: 1, Threshold: 5, OutboundThreshold: 4, Arguments: 1000, Limit: 1 << 20, Types: types}
	return s.Around(nil, nil)
}

func newEngine(t *testing.T, src []ruleset.Source) *engine.Engine {
	t.Helper()
	var list []seclang.Source
	for _, s := range src {
		list = append(list, seclang.Source{Name: s.Name, Text: s.Text})
	}
	rs, err := seclang.Parse(ruleset.Files{}, list...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(rs)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// requests are every step-th of the CRS's tests.
func requests(t *testing.T, step int) []*message.Request {
	t.Helper()
	list, err := corpus.CRS()
	if err != nil {
		t.Fatal(err)
	}
	r, err := traffic.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	var out []*message.Request
	for i := 0; i < len(list); i += step {
		if hr, err := list[i].HTTP(); err == nil {
			if m, err := r.Request(hr); err == nil {
				out = append(out, m)
			}
		}
	}
	return out
}

// recorded is an engine that is asked once about each request.
type recorded struct {
	message.Engine
	verdicts map[*message.Request]message.Verdict
}

func (e recorded) Request(m *message.Request) (message.Exchange, message.Verdict, error) {
	v, ok := e.verdicts[m]
	if !ok {
		x, judged, err := e.Engine.Request(m)
		if err != nil {
			return nil, v, err
		}
		x.Close()
		v, e.verdicts[m] = judged, judged
	}
	return closed{}, v, nil
}

type closed struct{ message.Exchange }

func (closed) Close() {}

// Comparison with Coraza finds every mistake that is planted, and none where
// none is.
func TestFaultsAreFound(t *testing.T) {
	step := 4
	if os.Getenv("MERLON_FULL") != "" {
		step = 1
	}
	if raced {
		step = 8
	}
	src := guardRules(t)
	c, err := coraza.New(src)
	if err != nil {
		t.Fatal(err)
	}
	reference := recorded{c, map[*message.Request]message.Verdict{}}
	list := requests(t, step)
	differs := func(e *engine.Engine, m *message.Request) (different, missed bool) {
		o, err := oracle.Compare(e, reference, m, nil)
		if err != nil {
			t.Fatal(err)
		}
		return o.Diff != "", o.Missed()
	}
	sound := newEngine(t, src)
	all := len(list)
	list = slices.DeleteFunc(list, func(m *message.Request) bool { // Coraza has been asked but once
		different, _ := differs(sound, m)
		return different
	})
	if all-len(list) > all/100+1 {
		t.Fatalf("%d of %d differ where nothing is planted", all-len(list), all)
	}
	find := func(e *engine.Engine) (n, missed int) {
		for _, m := range list {
			d, clean := differs(e, m)
			if d {
				n++
			}
			if clean {
				missed++
			}
			if raced && n > 0 {
				break
			}
		}
		return n, missed
	}
	for i, f := range engine.Faults {
		if raced && i%5 > 0 {
			continue
		}
		e := newEngine(t, src)
		f.Plant(e)
		n, missed := find(e)
		t.Logf("%s: %d of %d differ, %d are missed", f.Name, n, len(list), missed)
		if n == 0 {
			t.Errorf("%s: not found", f.Name)
		}
	}
}
