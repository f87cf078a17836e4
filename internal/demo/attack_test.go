package demo_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/merlon-dev/merlon/internal/demo"
)

func TestEveryAttackWorksOnTheBareShopAndEveryTwinToo(t *testing.T) {
	srv := open(t)
	for round := range 2 {
		for _, a := range demo.Attacks() {
			r := a.Fire(t.Context(), srv.Client(), srv.URL, nil)
			if !r.Attack.Worked || r.Attack.Evidence == "" {
				t.Errorf("round %d: %s: the attack failed: %+v", round, a.Name, r.Attack)
			}
			if !r.Twin.Worked {
				t.Errorf("round %d: %s: the twin failed: %+v", round, a.Name, r.Twin)
			}
		}
	}
	if _, text := body(t, srv.URL+"/product/obriens-mug"); strings.Contains(text, "<script") || strings.Contains(text, "dishwasher safe") {
		t.Error("the attacks left reviews behind")
	}
}

func TestEveryAttackSaysWhatItIs(t *testing.T) {
	var names, notYet []string
	for _, a := range demo.Attacks() {
		if a.Name == "" || a.Title == "" || a.Hole == "" || a.Twin == "" || slices.Contains(names, a.Name) {
			t.Errorf("%+v is not told, or told twice", a)
		}
		names = append(names, a.Name)
		if a.NotYet != "" {
			notYet = append(notYet, a.Name)
		}
	}
	for _, must := range []string{"log-in-sql", "search-union", "stored-xss", "reflected-xss", "form-csrf", "command", "metadata", "guess", "stuffing", "spray",
		"password-only", "enumeration", "after-log-out", "fixation", "forged-token", "forged-header", "log-in-csrf", "open-redirect", "cookie-object",
		"guess-own", "stuffing-own", "decoy", "bots", "slow"} {
		if !slices.Contains(names, must) || slices.Contains(notYet, must) {
			t.Errorf("%s is not among the attacks that must be stopped", must)
		}
	}
}

// proxy stands in front of the shop and lets judge answer instead of it.
func proxy(t *testing.T, shop string, judge func(w http.ResponseWriter, r *http.Request) (answered bool)) *httptest.Server {
	t.Helper()
	target, err := url.Parse(shop)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ErrorLog = log.New(io.Discard, "", 0)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !judge(w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func problem(w http.ResponseWriter, status int) bool {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"type":"about:blank","status":403,"id":"ID7"}`))
	return true
}

// hostile is a gate just good enough for the attacks as they are.
func hostile(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return true
	}
	q := strings.ToLower(r.URL.RawQuery)
	if r.Method == http.MethodPost {
		b, _ := io.ReadAll(r.Body) // of a request that is never finished nothing is looked for
		q = strings.ToLower(string(b))
		r.Body = io.NopCloser(strings.NewReader(string(b)))
	}
	if u, err := url.QueryUnescape(q); err == nil {
		q = u
	}
	for _, bad := range []string{"admin' --", "union select", "<script", "child_process", "/etc/passwd", "169.254", "10.0.0.5", "localhost"} {
		if strings.Contains(q, bad) {
			return true
		}
	}
	return false
}

// beyond are the attacks that a log-in in front of the shop stops, or who counts.
var beyond = []string{"cookie-object", "guess", "stuffing", "spray", "password-only", "enumeration", "after-log-out", "fixation",
	"forged-token", "forged-header", "log-in-csrf", "open-redirect",
	"guess-own", "stuffing-own", "decoy", "bots", "slow", "scan", "walk", "flood", "hammer"}

func TestReport(t *testing.T) {
	text := func(r demo.Report) string {
		var b strings.Builder
		if err := r.Write(&b, false); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	some := slices.DeleteFunc(demo.Attacks(), func(a demo.Attack) bool { return a.Name == "slow" || a.Name == "hammer" }) // they take seconds
	about := func(r demo.Report, name string) (found []string) {
		for _, p := range r.Problems() {
			if strings.HasPrefix(p, name+": ") {
				found = append(found, p)
			}
		}
		return found
	}

	t.Run("a gate that stops what it should is fine, but for log-ins and traffic, which it leaves to the shop", func(t *testing.T) {
		t.Parallel()
		srv := open(t)
		var asked atomic.Int64
		gate := proxy(t, srv.URL, func(w http.ResponseWriter, r *http.Request) bool {
			asked.Add(1)
			return hostile(r) && problem(w, http.StatusForbidden)
		})
		r := demo.Trial{Bare: srv.URL, Gated: gate.URL, Client: srv.Client(), Explain: func(id string) string { return "gate: said " + id }}.Run(t.Context())
		for _, p := range r.Problems() {
			if name, _, _ := strings.Cut(p, ":"); !slices.Contains(beyond, name) || !strings.Contains(p, "gets through behind Merlon") {
				t.Errorf("problem: %s", p)
			}
		}
		got := text(r)
		for _, want := range []string{"stopped        gate: said ID7", "not yet        csrf will"} {
			if !strings.Contains(got, want) {
				t.Errorf("the table is without %q:\n%s", want, got)
			}
		}
		if n := asked.Load(); n > 1000 {
			t.Errorf("%d requests reached the gate, want at most 1000", n)
		}
	})
	t.Run("no gate at all is noticed", func(t *testing.T) {
		t.Parallel()
		srv := open(t)
		r := demo.Trial{Bare: srv.URL, Gated: srv.URL, Client: srv.Client(), Fire: some}.Run(t.Context())
		if r.OK() || len(about(r, "log-in-sql")) == 0 || len(about(r, "md5")) != 0 {
			t.Errorf("problems: %s", r.Problems())
		}
		if got := text(r); !strings.Contains(got, "got through") || !strings.Contains(got, "Wrong:") {
			t.Errorf("the table does not say so:\n%s", got)
		}
	})
	t.Run("a gate that refuses everything is noticed", func(t *testing.T) {
		t.Parallel()
		srv := open(t)
		gate := proxy(t, srv.URL, func(w http.ResponseWriter, r *http.Request) bool { return problem(w, http.StatusForbidden) })
		r := demo.Trial{Bare: srv.URL, Gated: gate.URL, Client: srv.Client()}.Run(t.Context())
		if len(r.Problems()) != len(demo.Attacks()) {
			t.Errorf("%d problems, want one for each twin: %s", len(r.Problems()), r.Problems())
		}
	})
	t.Run("a gate that only breaks things does not stop attacks", func(t *testing.T) {
		t.Parallel()
		srv := open(t)
		gate := proxy(t, srv.URL, func(w http.ResponseWriter, r *http.Request) bool {
			return hostile(r) && problem(w, http.StatusBadGateway)
		})
		r := demo.Trial{Bare: srv.URL, Gated: gate.URL, Client: srv.Client(), Fire: some}.Run(t.Context())
		if p := about(r, "search-union"); len(p) != 1 || !strings.Contains(p[0], "broken") {
			t.Errorf("problems: %s", r.Problems())
		}
	})
	t.Run("nobody there is noticed", func(t *testing.T) {
		t.Parallel()
		srv := open(t)
		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		r := demo.Trial{Bare: srv.URL, Gated: gone.URL, Client: srv.Client()}.Run(t.Context())
		if len(r.Problems()) != 2*len(demo.Attacks()) {
			t.Errorf("%d problems, want two for each attack: %s", len(r.Problems()), r.Problems())
		}
	})
	t.Run("a bare shop that withstands is noticed", func(t *testing.T) {
		t.Parallel()
		srv := open(t)
		firm := proxy(t, srv.URL, func(w http.ResponseWriter, r *http.Request) bool {
			return hostile(r) && problem(w, http.StatusForbidden)
		})
		r := demo.Trial{Bare: firm.URL, Gated: firm.URL, Client: srv.Client(), Fire: some}.Run(t.Context())
		if p := about(r, "command"); len(p) != 1 || !strings.Contains(p[0], "shows nothing") {
			t.Errorf("problems: %s", r.Problems())
		}
	})
	t.Run("no attack is no proof", func(t *testing.T) {
		if (demo.Report{}).OK() {
			t.Error("an empty report is OK")
		}
	})
	t.Run("colour only where asked for", func(t *testing.T) {
		t.Parallel()
		srv := open(t)
		r := demo.Trial{Bare: srv.URL, Gated: srv.URL, Client: srv.Client(), Fire: some}.Run(t.Context())
		var b strings.Builder
		if err := r.Write(&b, true); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "\x1b[31m") || strings.Contains(text(r), "\x1b[") {
			t.Error("colours are missing where asked for, or there where not")
		}
	})
}
