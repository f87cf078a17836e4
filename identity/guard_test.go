package identity_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/merlontest"
)

// says is a prover with one answer, if the request has a header field.
type says struct {
	name string
	id   *merlon.Identity
	err  error
}

func (s says) Name() string { return s.name }

func (s says) Prove(r *merlon.Request) (*merlon.Identity, error) {
	if r.Header.Get("X-"+s.name) == "" {
		return nil, merlon.ErrNoProof
	}
	if s.id == nil {
		return nil, s.err
	}
	id := *s.id
	return &id, s.err
}

type silent struct{}

func (silent) Name() string                                    { return "silent" }
func (silent) Prove(*merlon.Request) (*merlon.Identity, error) { return nil, nil }

type withStatus struct{ status int }

func (withStatus) Error() string             { return "no" }
func (w withStatus) Status() int             { return w.status }
func (withStatus) Reason() merlon.Reason     { return "test-reason" }
func (withStatus) RetryAfter() time.Duration { return 1500 * time.Millisecond }

func ann(methods ...string) *merlon.Identity {
	return &merlon.Identity{Subject: "ANN-ID", Name: "ann", Methods: methods}
}

func TestGuard(t *testing.T) {
	guard := func(t *testing.T) merlon.Guard {
		g, err := identity.New(identity.Config{Login: []identity.Rule{{Users: []string{"ann", "bob"}, From: []string{"192.0.2.0/24"}}}},
			says{"certificate", ann("certificate"), nil},
			says{"key", ann("key"), nil},
			says{"other", &merlon.Identity{Subject: "BOB-ID", Name: "bob", Methods: []string{"key"}}, nil},
			says{"nobody", &merlon.Identity{Subject: "EVE-ID", Name: "eve", Methods: []string{"key"}}, nil},
			says{"bad", nil, errors.New("a bad proof")},
			says{"busy", nil, withStatus{503}},
			says{"fast", nil, withStatus{429}},
			says{"clear", nil, withStatus{403}},
			says{"down", nil, &session.Error{Reason: session.Unavailable}},
			says{"stale", nil, &session.Error{Reason: session.Ended}},
			says{"moved", nil, &session.Error{Reason: session.Elsewhere}},
			says{"session", ann("password"), nil},
		)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	merlontest.Run(t, guard, merlontest.Options{}, []merlontest.Case{
		{Name: "nothing", Request: "GET /", Want: identity.NobodyProved},
		{Name: "a session", Request: "GET /\nX-Session: 1", Want: identity.Proved},
		{Name: "a key", Request: "GET /\nX-Key: 1", Want: identity.Proved},
		{Name: "a key and the same user's session", Request: "GET /\nX-Key: 1\nX-Session: 1", Want: identity.Proved},
		{Name: "a key and another user's session", Request: "GET /\nX-Other: 1\nX-Session: 1", Want: identity.ProofsDisagree, Status: 401},
		{Name: "a proof that does not hold", Request: "GET /\nX-Bad: 1", Want: identity.ProofFailed, Status: 401},
		{Name: "and a session beside it", Request: "GET /\nX-Bad: 1\nX-Session: 1", Want: identity.ProofFailed, Status: 401},
		{Name: "a prover that cannot say", Request: "GET /\nX-Busy: 1", Want: "test-reason", Status: 503},
		{Name: "a store of sessions that is down", Request: "GET /\nX-Down: 1", Want: session.Unavailable, Status: 503},
		{Name: "too many tries", Request: "GET /\nX-Fast: 1", Want: "test-reason", Status: 429},
		{Name: "forbidden", Request: "GET /\nX-Clear: 1", Want: "test-reason", Status: 403},
		{Name: "a session that has ended", Request: "GET /\nX-Stale: 1", Want: session.Ended},
		{Name: "a session that has ended, and a key", Request: "GET /\nX-Stale: 1\nX-Key: 1", Want: identity.Proved},
		{Name: "a session of another network", Request: "GET /\nX-Moved: 1", Want: session.Elsewhere},
		{Name: "trap 45: a session from an unlisted address", Client: "198.51.100.1", Request: "GET /\nX-Session: 1", Want: identity.NotAllowedHere},
		{Name: "trap 45: a key from an unlisted address", Client: "198.51.100.1", Request: "GET /\nX-Key: 1", Want: identity.NotAllowedHere, Status: 401},
		{Name: "trap 45: the listed address, mapped", Client: "::ffff:192.0.2.9", Request: "GET /\nX-Session: 1", Want: identity.Proved},
		{Name: "a user in no rule", Request: "GET /\nX-Nobody: 1", Want: identity.NotAllowedHere, Status: 401},
	})
}

func TestGuardAnswers(t *testing.T) {
	g, err := identity.New(identity.Config{},
		says{"certificate", ann("certificate"), nil},
		says{"key", &merlon.Identity{Subject: "ANN-ID", Name: "ann", Methods: []string{"key"}, Scopes: []string{"read"}}, nil},
		says{"bad", nil, errors.New("x")}, says{"fast", nil, withStatus{429}},
		says{"stale", nil, &session.Error{Reason: session.Ended}}, says{"moved", nil, &session.Error{Reason: session.Elsewhere}},
		says{"session", ann("password"), nil})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(fields ...string) (*merlon.Request, merlon.Decision) {
		wire := "GET /"
		for _, f := range fields {
			wire += "\nX-" + f + ": 1"
		}
		r := merlontest.Request(t, wire)
		r.Site = `sh"op.example`
		return r, g.Check(r)
	}
	if _, d := ask("bad"); d.Header.Get("WWW-Authenticate") != `Bearer realm="sh\"op.example", error="invalid_token"` {
		t.Errorf("%v", d.Header)
	}
	if _, d := ask("fast"); d.Header.Get("Retry-After") != "2" {
		t.Errorf("%v", d.Header)
	}
	if _, d := ask("stale"); !strings.Contains(d.Header.Get("Set-Cookie"), "__Host-merlon=;") || d.Header.Get("Clear-Site-Data") != "" {
		t.Errorf("%v", d.Header)
	}
	if _, d := ask("moved"); d.Header.Get("Set-Cookie") != "" {
		t.Errorf("a cookie that is good elsewhere is cleared: %v", d.Header)
	}
	if r, _ := ask("key", "session"); !slices.Equal(r.Identity.Methods, []string{"key"}) || !slices.Equal(r.Identity.Scopes, []string{"read"}) {
		t.Errorf("a key that may little became a session: %+v", r.Identity)
	}
	if r, _ := ask("certificate", "session"); account.StrengthOf(r.Identity.Methods) != account.PhishingResistant {
		t.Errorf("%v", r.Identity.Methods)
	}
	broken, err := identity.New(identity.Config{}, silent{})
	if err != nil {
		t.Fatal(err)
	}
	if d := broken.Check(merlontest.Request(t, "GET /")); d.Code() != 503 {
		t.Errorf("a prover that says nothing: %+v", d)
	}
}

// A role that was given or taken brings a new cookie (trap 49).
func TestRightsRotateTheCookie(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	b := w.browser("192.0.2.1").signIn("ann")
	before := b.jar["__Host-merlon"]
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Roles = []string{"team"}; return nil }); err != nil {
		t.Fatal(err)
	}
	w.sessions.Forget("ANN-ID")
	deadline := time.Now().Add(10 * time.Second)
	for b.jar["__Host-merlon"] == before && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond) // it waits for requests on their way
		b.who()
	}
	if b.jar["__Host-merlon"] == before || !slices.Equal(b.who().Roles, []string{"team"}) {
		t.Errorf("the cookie stayed, roles %v", b.who().Roles)
	}
}

func TestStrip(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.ann()
	keys := apikey.New(apikey.NewMemory(), w.store)
	text, _, err := keys.Issue(ctx, apikey.Key{Account: "ANN-ID", Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	key := text.Reveal()
	c := identity.Config{Basic: &identity.Basic{}}
	basic, err := identity.NewBasic(c, w.env, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := says{"token", ann("token"), nil}
	guard := func(c identity.Config) *identity.Guard {
		g, err := identity.New(c, keys, basic, own, w.sessions)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	for _, row := range []struct{ name, in, out string }{
		{"nothing of ours", "Authorization: Bearer theirs\nCookie: a=1; b=2", "Authorization: Bearer theirs\nCookie: a=1; b=2"},
		{"a key", "Authorization: Bearer " + key, ""},
		{"a key in its own field", "X-Api-Key: " + key + "\nAuthorization: Bearer theirs", "Authorization: Bearer theirs"},
		{"their key", "X-Api-Key: sk_live", "X-Api-Key: sk_live"},
		{"a key that does not hold", "Authorization: Bearer mk_x", ""},
		{"trap 51: Basic", "Authorization: Basic YW5uOng=", ""},
		{"trap 51: basic", "Authorization: bAsIc YW5uOng=", ""},
		{"a token of ours", "Authorization: Bearer ours\nX-Token: 1", "X-Token: 1"},
		{"cookies", "Cookie: a=1; __Host-merlon=x; b=2; __Host-merlon-device=y; __Host-merlonx=z", "Cookie: a=1; b=2; __Host-merlonx=z"},
		{"only cookies of ours", "Cookie: __Host-merlon=x; __Host-merlon-try=y", ""},
		{"several fields", "Cookie: __Host-merlon=x\nCookie: a=1", "Cookie: a=1"},
	} {
		r := merlontest.Request(t, "GET /\n"+row.in)
		h := r.Header.Clone()
		guard(c).Strip(r, h)
		want := merlontest.Request(t, "GET /\n"+row.out).Header
		if fmt.Sprint(h) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", row.name, h, want)
		}
		if row.in != "" && fmt.Sprint(r.Header) == fmt.Sprint(want) && row.in != row.out {
			t.Errorf("%s: the request itself was changed", row.name)
		}
	}
	c.ForwardAuthorization = true
	r := merlontest.Request(t, "GET /\nAuthorization: Basic YW5uOng=\nCookie: __Host-merlon=x")
	h := r.Header.Clone()
	guard(c).Strip(r, h)
	if h.Get("Authorization") == "" || h.Get("Cookie") != "" {
		t.Errorf("%v", h)
	}
}

func BenchmarkGuardSession(b *testing.B) {
	w := newWorld(b, identity.Config{})
	w.ann()
	br := w.browser("192.0.2.1").signIn("ann")
	r := br.visit().Request
	b.ReportAllocs()
	for b.Loop() {
		if d := w.guard.Check(r); !d.Passed() || r.Identity == nil {
			b.Fatal(d)
		}
	}
}

// A file of passwords has no second factors. Who asks for some and lets its
// users in is told.
func TestPasswordFilesBesideRequiredFactorsAreTold(t *testing.T) {
	for _, c := range []struct {
		required, roles []string
		told            bool
	}{{[]string{"all"}, nil, true}, {[]string{"admin"}, []string{"reader", "admin"}, true}, {[]string{"admin"}, []string{"reader"}, false}, {nil, nil, false}} {
		g, err := identity.New(identity.Config{
			MFA: identity.MFA{Required: c.required}, Basic: &identity.Basic{Htpasswd: "/etc/merlon/htpasswd", Roles: c.roles},
		})
		if err != nil {
			t.Fatal(err)
		}
		if w := g.Weak(); (len(w) == 1) != c.told {
			t.Errorf("%v beside %v: %q", c.required, c.roles, w)
		}
	}
}

func BenchmarkGuardAnonymous(b *testing.B) {
	w := newWorld(b, identity.Config{Basic: &identity.Basic{}})
	keys := apikey.New(apikey.NewMemory(), w.store)
	basic, err := identity.NewBasic(identity.Config{Basic: &identity.Basic{}}, w.env, nil)
	if err != nil {
		b.Fatal(err)
	}
	g, err := identity.New(identity.Config{}, keys, basic, w.sessions)
	if err != nil {
		b.Fatal(err)
	}
	r := merlontest.Request(b, "GET /\nCookie: a=1; b=2")
	b.ReportAllocs()
	for b.Loop() {
		g.Check(r)
	}
}

func BenchmarkBasicRemembered(b *testing.B) {
	w, p := basicWorld(b, identity.Config{Basic: &identity.Basic{}})
	w.ann()
	r := basicRequest(b, "ann:"+annsPassword)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Prove(r); err != nil {
			b.Fatal(err)
		}
	}
}

// renewing is a session whose cookie is to be replaced.
type renewing struct {
	says
	renewed *int
}

func (p renewing) Renew(*merlon.Request) (*http.Cookie, error) {
	*p.renewed++
	return &http.Cookie{Name: "s", Value: "new"}, nil
}

// TestWho: who is only looked up keeps the cookie that the browser has.
func TestWho(t *testing.T) {
	id := ann("password")
	id.Session, id.Groups = "S", []string{"tenant-harbour"}
	renewed := 0
	g, err := identity.New(identity.Config{Tenant: "tenant-"}, says{"bad", nil, errors.New("a bad proof")}, renewing{says{"session", id, nil}, &renewed})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(fields ...string) *merlon.Request {
		hr := httptest.NewRequest("GET", "/", nil)
		hr.Header.Set("Cookie", "s=old")
		for _, f := range fields {
			hr.Header.Set(f, "1")
		}
		return merlon.NewRequest(hr)
	}
	r := ask("X-Session")
	if got := g.Who(r); got == nil || got.Subject != "ANN-ID" || got.Tenant != "harbour" || r.Identity != nil {
		t.Errorf("%+v, and the request says %+v", got, r.Identity)
	}
	if renewed != 0 {
		t.Error("the cookie was replaced, and nobody was given the new one")
	}
	if got := g.Who(ask("X-Session", "X-Bad")); got != nil {
		t.Errorf("a proof beside it does not hold: %+v", got)
	}
	if got := g.Who(ask()); got != nil {
		t.Errorf("nobody: %+v", got)
	}
	if d := g.Check(r); renewed != 1 || len(d.Header["Set-Cookie"]) != 1 {
		t.Error("Check does not replace it, so that nothing is shown")
	}
}
