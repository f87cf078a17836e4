package merlon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/merlontest"
)

type guard struct {
	name  string
	check func(*merlon.Request) merlon.Decision
	dones int
}

func (g *guard) Name() string                             { return g.name }
func (g *guard) Check(r *merlon.Request) merlon.Decision  { return g.check(r) }
func (g *guard) Done(_ *merlon.Request, _ merlon.Outcome) { g.dones++ }

func answers(name string, d merlon.Decision) *guard {
	return &guard{name: name, check: func(*merlon.Request) merlon.Decision { return d }}
}

func TestTheZeroDecisionRefuses(t *testing.T) {
	var d merlon.Decision
	if d.Passed() || d.Code() != http.StatusForbidden {
		t.Errorf("passed %v with status %d", d.Passed(), d.Code())
	}
	var e merlon.Effect
	if err := e.UnmarshalText([]byte("nonsense")); err != nil || e != merlon.Deny {
		t.Errorf("an unknown effect is %v, %v", e, err)
	}
}

func TestGate(t *testing.T) {
	pass, refuse := merlon.Pass("fine"), merlon.Refuse(http.StatusForbidden, "bad")
	boom := &guard{name: "boom", check: func(*merlon.Request) merlon.Decision { panic("boom") }}
	for _, c := range []struct {
		name   string
		guards []merlon.Guard
		passes bool
		asked  int
		by     string
	}{
		{"no guard refuses", []merlon.Guard{answers("a", pass), answers("b", pass)}, true, 2, ""},
		{"the first refusal is obeyed", []merlon.Guard{answers("a", refuse), answers("b", pass)}, false, 1, "a"},
		{"a monitored refusal is recorded, not obeyed", []merlon.Guard{merlon.Monitor(answers("a", refuse)), answers("b", pass)}, true, 2, ""},
		{"a panic refuses", []merlon.Guard{boom, answers("b", pass)}, false, 1, "boom"},
		{"a forgotten decision refuses", []merlon.Guard{answers("a", merlon.Decision{})}, false, 1, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			gate := merlon.NewGate(c.guards...)
			r := merlontest.Request(t, "GET /")
			d := gate.Check(r)
			if d.Passed() != c.passes || len(r.Verdicts()) != c.asked || r.RefusedBy() != c.by {
				t.Errorf("passed %v, %d asked, refused by %q", d.Passed(), len(r.Verdicts()), r.RefusedBy())
			}
			gate.Done(r, merlon.Outcome{})
			gate.Done(r, merlon.Outcome{})
			for i, g := range c.guards {
				want := 0
				if i < c.asked {
					want = 1
				}
				if g, ok := g.(*guard); ok && g.dones != want {
					t.Errorf("%s had %d Dones, want %d", g.name, g.dones, want)
				}
			}
		})
	}
}

func TestMonitoredRefusalsTellTheClientNothing(t *testing.T) {
	refuse := merlon.Refuse(http.StatusTooManyRequests, "bad")
	refuse.Header = http.Header{"Retry-After": {"9"}}
	pass := merlon.Pass("fine")
	pass.Header = http.Header{"Ratelimit": {"r=1"}}
	r := merlontest.Request(t, "GET /")
	merlon.NewGate(merlon.Monitor(answers("a", refuse)), merlon.Monitor(answers("b", pass))).Check(r)
	h := http.Header{}
	r.AddHeader(h)
	if h.Get("Retry-After") != "" || h.Get("RateLimit") == "" {
		t.Errorf("the client is told %v", h)
	}
}

func TestPeekLeavesTheBodyWhole(t *testing.T) {
	body := strings.Repeat("0123456789", 10_000)
	r := merlontest.Request(t, "POST /\n\n"+body)
	for _, max := range []int64{0, 5, 99_999, 100_000, 100_001, 7} {
		head, whole, err := r.Peek(max)
		want := body[:min(max, int64(len(body)))]
		if err != nil || string(head) != want || whole != (max >= int64(len(body))) {
			t.Fatalf("Peek(%d): %d bytes, whole %v, %v", max, len(head), whole, err)
		}
	}
	got, err := io.ReadAll(r.Request.Body)
	if err != nil || string(got) != body {
		t.Errorf("%d bytes were left, %v", len(got), err)
	}
}

// A peeker looks at the body, takes the whole of it, and refuses.
type peeker struct{ merlon.Guard }

func (p peeker) Check(r *merlon.Request) merlon.Decision {
	_, _, _ = r.Peek(3)
	return p.Guard.Check(r)
}

func (peeker) CheckResponse(*merlon.Request, *http.Response) merlon.Decision {
	return merlon.Refuse(http.StatusBadGateway, "leak")
}

// Whatever a shadow does, the request is answered as without it.
func TestShadowsAreRecordedAndNotObeyed(t *testing.T) {
	refuse := merlon.Refuse(http.StatusTooManyRequests, "bad")
	refuse.Header, refuse.Close = http.Header{"Retry-After": {"9"}}, true
	told := merlon.Pass("fine")
	told.Header = http.Header{"Ratelimit": {"r=1"}}
	for _, c := range []struct {
		name     string
		shadow   merlon.Guard
		enforced merlon.Decision
	}{
		{"refuses", answers("a", refuse), merlon.Pass("fine")},
		{"passes what is refused", answers("a", told), merlon.Refuse(403, "bad")},
		{"both refuse", answers("a", refuse), merlon.Refuse(403, "worse")},
		{"panics", &guard{name: "a", check: func(*merlon.Request) merlon.Decision { panic("boom") }}, merlon.Pass("fine")},
		{"cannot decide", answers("a", merlon.Unable(errors.New("down"))), merlon.Pass("fine")},
		{"watches the body", watcher{}, merlon.Pass("fine")},
		{"reads the body, refuses the answer", peeker{answers("a", refuse)}, merlon.Pass("fine")},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := merlontest.Request(t, "POST /\n\nsome evil")
			gate := merlon.NewGate(merlon.Shadow(c.shadow), answers("a", c.enforced))
			d := gate.Check(r)
			if d.Effect != c.enforced.Effect || d.Reason != c.enforced.Reason || d.Shadow || d.Header != nil {
				t.Errorf("the decision is %+v", d)
			}
			if d.Passed() {
				if late := gate.CheckResponse(r, &http.Response{Body: http.NoBody}); !late.Passed() {
					t.Errorf("the answer is refused: %+v", late)
				}
			}
			if by := r.RefusedBy(); (by == "a") != (c.enforced.Effect == merlon.Deny) {
				t.Errorf("refused by %q", by)
			}
			if got, err := io.ReadAll(r.Request.Body); err != nil || string(got) != "some evil" {
				t.Errorf("the body was %q, %v", got, err)
			}
			h := http.Header{}
			if r.AddHeader(h); len(h) > 0 {
				t.Errorf("the client is told %v", h)
			}
			v := r.Verdicts()
			if len(v) != 2 || !v[0].Decision.Shadow || v[0].Guard != c.shadow.Name() || v[1].Decision.Shadow {
				t.Errorf("the verdicts are %+v", v)
			}
			gate.Done(r, merlon.Outcome{})
			if g, ok := c.shadow.(*guard); ok && g.dones != 1 {
				t.Errorf("%d Dones", g.dones)
			}
		})
	}
	if d := merlon.NewGate(merlon.Shadow(answers("a", refuse))).Check(merlontest.Request(t, "GET /")); d.Effect != merlon.Allow || d.Shadow {
		t.Errorf("a shadow's decision is the gate's: %+v", d)
	}
	if d := merlon.Shadow(answers("a", merlon.Refuse(403, "bad"))).Check(merlontest.Request(t, "GET /")); !d.Passed() || !d.Shadow {
		t.Errorf("asked without a gate: %+v", d)
	}
}

// A watcher refuses the rest of a body at a marker.
// A program may put one guard around its whole and another around a page.
func TestAnInnerMiddlewareKnowsWhoIsAsking(t *testing.T) {
	who := &guard{name: "who", check: func(r *merlon.Request) merlon.Decision {
		if r.Header.Get("Proof") == "good" {
			r.Identity = &merlon.Identity{Name: "ann"}
		}
		return merlon.Decision{Effect: merlon.Allow}
	}}
	may := &guard{name: "may", check: func(r *merlon.Request) merlon.Decision {
		if r.Identity == nil {
			return merlon.Refuse(http.StatusForbidden, "nobody")
		}
		return merlon.Decision{Effect: merlon.Allow}
	}}
	outer, inner := "", ""
	page := merlon.Middleware(may)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if inner = merlon.From(r).ID; inner != outer {
			t.Errorf("the request is %q, and %q inside", outer, inner)
		}
	}))
	whole := merlon.Middleware(who)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer = merlon.From(r).ID
		page.ServeHTTP(w, r)
	}))
	for proof, want := range map[string]int{"good": http.StatusOK, "": http.StatusForbidden} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Proof", proof)
		w := httptest.NewRecorder()
		whole.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("proof %q: %d, want %d", proof, w.Code, want)
		}
	}
	if inner == "" || who.dones != 2 || may.dones != 2 {
		t.Errorf("the page was asked for %q, the guards done %d and %d times", inner, who.dones, may.dones)
	}
}

type watcher struct{}

func (watcher) Name() string { return "watcher" }
func (watcher) Check(r *merlon.Request) merlon.Decision {
	r.WrapBody(func(body io.ReadCloser, refuse func(merlon.Decision) error) io.ReadCloser {
		return &watched{body, refuse}
	})
	return merlon.Pass("")
}

type watched struct {
	io.ReadCloser
	refuse func(merlon.Decision) error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if bytes.Contains(p[:n], []byte("evil")) {
		if late := w.refuse(merlon.Refuse(http.StatusForbidden, "evil")); late != nil {
			return 0, late
		}
	}
	return n, err
}

func TestLateRefusal(t *testing.T) {
	r := merlontest.Request(t, "POST /\n\nsome evil")
	merlon.NewGate(watcher{}).Check(r)
	_, err := io.ReadAll(r.Request.Body)
	if d := merlon.BodyFailed(err); d.Reason != "evil" || d.Passed() || r.RefusedBy() != "watcher" {
		t.Errorf("err %v, decision %+v", err, d)
	}
	r = merlontest.Request(t, "POST /\n\nsome evil")
	merlon.NewGate(merlon.Monitor(watcher{})).Check(r)
	if got, err := io.ReadAll(r.Request.Body); err != nil || string(got) != "some evil" {
		t.Errorf("monitored, the body was %q, %v", got, err)
	}
	if v := r.Verdicts(); len(v) != 2 || v[1].Decision.Reason != "evil" || !v[1].Decision.Monitored {
		t.Errorf("monitored, the verdicts were %+v", v)
	}
}

func TestRespondTellsOnlyTheID(t *testing.T) {
	d := merlon.Refuse(http.StatusForbidden, "attack")
	d.Err = errors.New("rule 942100 matched")
	d.Findings = []merlon.Finding{{Rule: "942100", Value: "' OR 1=1"}}
	for _, c := range []struct{ name, accept, media string }{
		{"a program", "*/*", "application/problem+json"},
		{"an API client", "application/json, text/html;q=0.5", "application/problem+json"},
		{"a browser", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := merlontest.Request(t, "GET /\nAccept: "+c.accept)
			w := httptest.NewRecorder()
			merlon.Respond(w, r, d)
			body := w.Body.String()
			if w.Code != 403 || w.Header().Get("Content-Type") != c.media || w.Header().Get("X-Request-Id") != r.ID {
				t.Errorf("%d %v", w.Code, w.Header())
			}
			if !strings.Contains(body, r.ID) || strings.Contains(body, "942100") || strings.Contains(body, "OR 1=1") {
				t.Errorf("body: %s", body)
			}
			if c.media == "application/problem+json" {
				var p struct {
					ID     string
					Status int
				}
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.ID != r.ID || p.Status != 403 {
					t.Errorf("%v: %s", err, body)
				}
			}
		})
	}
}

func TestSettingErrorsKeepTheirPlace(t *testing.T) {
	err := merlon.Within("sites[0]", merlon.Within("tls", errors.Join(
		merlon.BadSetting("profile", "old", "must be modern or intermediate"),
		merlon.BadSetting("[1]", "", "must be set"))))
	want := "sites[0].tls.profile \"old\": must be modern or intermediate\nsites[0].tls[1]: must be set"
	if err.Error() != want {
		t.Errorf("%v", err)
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"0", "1MiB", "512 KiB", "-1", "9223372036854775807GiB", "1.5MiB", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again merlon.Size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if s < 0 {
			t.Errorf("%q is read as %d", text, int64(s))
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%q is written %q and read back as %d, %v", text, s, int64(again), err)
		}
	})
}

func TestSubscriber(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "64:ff9b::c000:201": "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := merlon.Subscriber(netip.MustParseAddr(in)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if merlon.Subscriber(netip.Addr{}).IsValid() {
		t.Error("no address became one")
	}
}
