package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

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

// basicWorld is Basic over an htpasswd file or accounts.
func basicWorld(t testing.TB, c identity.Config) (*world, *identity.BasicProver) {
	t.Helper()
	w := newWorld(t, c)
	b, err := identity.NewBasic(c, w.env, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.SetClock(w.now)
	return w, b
}

func basicRequest(t testing.TB, credentials string) *merlon.Request {
	t.Helper()
	return field(t, "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
}

func field(t testing.TB, value string) *merlon.Request {
	t.Helper()
	r := merlontest.Request(t, "GET /")
	r.Header.Set("Authorization", value)
	r.TLS = &tls.ConnectionState{}
	r.Site = "shop.example.com"
	return r
}

func reasonOf(err error) merlon.Reason {
	if e, ok := err.(interface{ Reason() merlon.Reason }); ok {
		return e.Reason()
	}
	return ""
}

func statusOf(err error) int {
	if e, ok := err.(interface{ Status() int }); ok {
		return e.Status()
	}
	return 0
}

func TestBasicAccounts(t *testing.T) {
	w, b := basicWorld(t, identity.Config{
		Basic: &identity.Basic{}, MFA: identity.MFA{Required: []string{"team"}},
		Login: []identity.Rule{{Users: []string{"ann", "zoe", "gone", "tom", "old"}}, {Users: []string{"bob"}, From: []string{"10.8.0.0/16"}}},
	})
	w.ann()
	w.add(account.Account{Name: "bob"})
	w.add(account.Account{Name: "zoe", ID: "ZOE-ID"})
	w.add(account.Account{Name: "gone", Disabled: true})
	w.add(account.Account{Name: "tom", Roles: []string{"team"}})
	w.add(account.Account{Name: "old", MustChange: true})
	if err := w.store.AddFactor(ctx, account.Factor{ID: "t.1", Account: "ZOE-ID", Kind: account.TOTP, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	id, err := b.Prove(basicRequest(t, "ann:"+annsPassword))
	if err != nil || id.Subject != "ANN-ID" || !slices.Equal(id.Methods, []string{"basic"}) || !id.When.IsZero() {
		t.Errorf("%+v, %v", id, err)
	}
	for _, row := range []struct {
		credentials string
		why         merlon.Reason
	}{
		{"ann:wrong", identity.WrongPassword},
		{"nobody:" + annsPassword, identity.NoAccount},
		{"bob:" + annsPassword, identity.NotAllowedHere},
		{"gone:" + annsPassword, identity.AccountDisabled},
		{"zoe:" + annsPassword, identity.BasicNotEnough}, // trap 47
		{"tom:" + annsPassword, identity.BasicNotEnough}, // trap 47
		{"old:" + annsPassword, identity.BasicNotEnough},
	} {
		r := basicRequest(t, row.credentials)
		r.Client = netip.MustParseAddr("198.51.100." + fmt.Sprint(len(row.credentials)))
		if id, err := b.Prove(r); id != nil || reasonOf(err) != row.why || statusOf(err) != 401 {
			t.Errorf("%s: %+v, %v", row.credentials, id, err)
		}
	}
	// trap 51: browsers are answered with a realm of the configuration's words.
	g, err := identity.New(identity.Config{Basic: &identity.Basic{Ask: true}}, b)
	if err != nil {
		t.Fatal(err)
	}
	r := basicRequest(t, "ann:wrong")
	r.Host = "evil.example"
	if d := g.Check(r); d.Code() != 401 || d.Header.Get("WWW-Authenticate") != `Basic realm="shop.example.com", charset="UTF-8"` {
		t.Errorf("%+v", d)
	}
	if c := g.Challenges(r); len(c) != 1 || !strings.HasPrefix(c[0], "Basic ") {
		t.Errorf("%v", c)
	}
}

// trap 51, what a field may hold.
func TestBasicForms(t *testing.T) {
	hash := func(pass string) string {
		h, _ := hasher(t)
		s, err := h.Hash(ctx, pass)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	lines := "# scripts\nann:" + hash("pass:word:") + "\nmüller:" + hash("grün") + "\nempty:" + hash("") + "\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	w, b := basicWorld(t, identity.Config{Basic: &identity.Basic{Htpasswd: path, Realm: "The archive", Groups: []string{"scripts"}, Roles: []string{"reader"}}})
	enc := base64.StdEncoding.EncodeToString
	for i, row := range []struct {
		name, field string
		ok          bool
		why         merlon.Reason
	}{
		{"a colon in the password", "Basic " + enc([]byte("ann:pass:word:")), true, ""},
		{"a colon ends the name", "Basic " + enc([]byte("an:n:pass:word:")), false, identity.NoAccount},
		{"lower case scheme", "basic " + enc([]byte("ann:pass:word:")), true, ""},
		{"UTF-8", "Basic " + enc([]byte("müller:grün")), true, ""},
		{"Latin-1", "Basic " + enc([]byte("m\xfcller:gr\xfcn")), true, ""},
		{"an empty password", "Basic " + enc([]byte("empty:")), true, ""},
		{"no name", "Basic " + enc([]byte(":x")), false, identity.BasicMalformed},
		{"no colon", "Basic " + enc([]byte("ann")), false, identity.BasicMalformed},
		{"no base64", "Basic !!!", false, identity.BasicMalformed},
		{"base64 with more behind it", "Basic " + enc([]byte("ann:pass:word:")) + " x", false, identity.BasicMalformed},
		{"nothing", "Basic", false, identity.BasicMalformed},
		{"20 kB", "Basic " + enc([]byte("ann:"+strings.Repeat("x", 15_000))), false, identity.BasicMalformed},
		{"control characters", "Basic " + enc([]byte("ann:x\x00y")), false, identity.BasicMalformed},
	} {
		r := field(t, row.field)
		r.Client = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		id, err := b.Prove(r)
		if (err == nil) != row.ok || reasonOf(err) != row.why || err != nil && statusOf(err) != 401 {
			t.Errorf("%s: %+v, %v", row.name, id, err)
		}
		if id != nil && (!slices.Equal(id.Roles, []string{"reader"}) || !strings.HasPrefix(id.Subject, "htpasswd:")) {
			t.Errorf("%s: %+v", row.name, id)
		}
	}
	r := field(t, "Basic "+enc([]byte("ann:pass:word:")))
	r.Header.Add("Authorization", "Bearer x")
	if _, err := b.Prove(r); reasonOf(err) != identity.BasicMalformed {
		t.Errorf("two fields: %v", err)
	}
	r = field(t, "Bearer x")
	if _, err := b.Prove(r); !errors.Is(err, merlon.ErrNoProof) {
		t.Errorf("another scheme: %v", err)
	}
	// trap 51: over http, also with the right password.
	r = field(t, "Basic "+enc([]byte("ann:pass:word:")))
	r.TLS = nil
	if _, err := b.Prove(r); reasonOf(err) != identity.BasicInClear || statusOf(err) != 403 {
		t.Errorf("in clear: %v", err)
	}
	g, err := identity.New(w.config, b)
	if err != nil {
		t.Fatal(err)
	}
	if d := g.Check(r); d.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("a client in clear is asked for more: %v", d.Header)
	}
	proxied, err := identity.NewBasic(w.config, w.env, func(*merlon.Request) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proxied.Prove(r); err != nil {
		t.Errorf("behind a trusted TLS terminator: %v", err)
	}
}

// Verified once a minute, dropped when the password changes, and a browser's
// connections at once are one try.
func TestBasicIsRemembered(t *testing.T) {
	w, b := basicWorld(t, identity.Config{Basic: &identity.Basic{}})
	w.ann()
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := b.Prove(basicRequest(t, "ann:"+annsPassword)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	begin := time.Now()
	for range 100 {
		if _, err := b.Prove(basicRequest(t, "ann:"+annsPassword)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > 100*time.Millisecond {
		t.Errorf("100 requests took %v: is each hashed?", took)
	}
	h, err := w.env.Hasher.Hash(ctx, newPassword)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Password = h; return nil }); err != nil {
		t.Fatal(err)
	}
	w.later(time.Second)
	if _, err := b.Prove(basicRequest(t, "ann:"+annsPassword)); reasonOf(err) != identity.WrongPassword {
		t.Errorf("a second after the change: %v", err)
	}
	if _, err := b.Prove(basicRequest(t, "ann:"+newPassword)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	w.later(time.Second)
	if _, err := b.Prove(basicRequest(t, "ann:"+newPassword)); reasonOf(err) != identity.AccountDisabled {
		t.Errorf("a second after it was disabled: %v", err)
	}
}

// F17 for Basic.
func TestBasicIsThrottled(t *testing.T) {
	w, b := basicWorld(t, identity.Config{Basic: &identity.Basic{}})
	w.ann()
	var last error
	for i := range 9 {
		_, last = b.Prove(basicRequest(t, fmt.Sprintf("ann:wrong%d", i)))
	}
	if reasonOf(last) != identity.TooManyTries || statusOf(last) != 429 {
		t.Errorf("%v", last)
	}
}

func TestHtpasswd(t *testing.T) {
	_, good := hasher(t)
	bcrypt := "$2y$10$LMdg.wk8Q0bI8GJ9pXQ1K.Dn3C9kxIvr5wxB0FTUJJ9Twd9oxGMkK"
	_, err := identity.ParseHtpasswd([]byte(strings.Join([]string{
		"ann:" + good, "", "# comment", "bob:" + bcrypt, "md5:$apr1$abc$def", "sha:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "crypt:rqXexS6ZhobKA",
		"plain:secret", "sha512:$6$salt$hash", "nocolon", ":" + good, "ann:" + good, "old:$2y$99$xx", "md:$1$x$y",
	}, "\n")))
	for _, line := range []string{"line 5: has an MD5", "line 6: has a SHA-1", "line 7: ", "line 8: ", "line 9: ", "line 10: ", "line 11: ", "line 12: names a user a second", "line 13: ", "line 14: has an MD5"} {
		if err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("%v does not tell %q", err, line)
		}
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "line 1:") || strings.Contains(err.Error(), "line 4:") {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ann:$apr1$abc$def\n")
	w := newWorld(t, identity.Config{})
	c := identity.Config{Basic: &identity.Basic{Htpasswd: path}}
	if _, err := identity.NewBasic(c, w.env, nil); err == nil || !strings.Contains(err.Error(), "basic.htpasswd") || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("%v", err)
	}
	write("ann:" + good + "\n")
	b, err := identity.NewBasic(c, w.env, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.SetClock(w.now)
	in := func(name string) bool {
		w.later(2 * time.Second)
		r := basicRequest(t, name+":"+annsPassword)
		_, err := b.Prove(r)
		return err == nil
	}
	if !in("ann") || in("eve") {
		t.Error("the file is not read")
	}
	write("ann:" + good + "\neve:" + good + "\n")
	if !in("eve") {
		t.Error("the file is not read again")
	}
	write("ann:" + good + "\neve:" + good + "\nmallory:plain text\n")
	if !in("eve") || !w.event(identity.LoginFail, identity.DamagedHash) {
		t.Error("a file that cannot be used ends what was good, or nobody is told")
	}
	write("ann:" + good + "\n# and no eve any more\n")
	if in("eve") {
		t.Error("a user who was removed is remembered")
	}
}

func certificate(t testing.TB, change func(*x509.Certificate)) *merlon.Request {
	t.Helper()
	uri, err := url.Parse("spiffe://example.com/job")
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "ann"}, Issuer: pkix.Name{CommonName: "Staff CA"}, RawIssuer: []byte("Staff CA"),
		EmailAddresses: []string{"Ann@example.com"}, URIs: []*url.URL{uri}, DNSNames: []string{"host.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(c)
	}
	r := merlontest.Request(t, "GET /")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
	return r
}

func TestCertificates(t *testing.T) {
	w := newWorld(t, identity.Config{})
	w.add(account.Account{ID: "ANN-ID", Name: "ann@example.com", Roles: []string{"team"}})
	w.add(account.Account{Name: "gone", Disabled: true})
	prover := func(c identity.Certificates) *identity.CertificateProver {
		p, err := identity.NewCertificates(identity.Config{Certificates: &c}, w.store)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, c := range map[string]identity.Certificates{
		"ann": {Name: "cn"}, "Ann@example.com": {}, "spiffe://example.com/job": {Name: "uri"}, "host.example.com": {Name: "dns"},
	} {
		c.Groups, c.Issuers = []string{"staff"}, []string{"Other CA", "Staff CA"}
		id, err := prover(c).Prove(certificate(t, nil))
		if err != nil || id.Name != name || !slices.Equal(id.Groups, []string{"staff"}) || !slices.Equal(id.Methods, []string{"certificate"}) {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	id, err := prover(identity.Certificates{Accounts: true}).Prove(certificate(t, nil))
	if err != nil || id.Subject != "ANN-ID" || !slices.Equal(id.Roles, []string{"team"}) {
		t.Errorf("%+v, %v", id, err)
	}
	a, _ := prover(identity.Certificates{}).Prove(certificate(t, nil))
	b, _ := prover(identity.Certificates{}).Prove(certificate(t, func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) }))
	other, _ := prover(identity.Certificates{}).Prove(certificate(t, func(c *x509.Certificate) { c.RawIssuer = []byte("Other CA") }))
	if a.Subject != b.Subject || a.Subject == other.Subject {
		t.Errorf("subjects %s, %s, %s", a.Subject, b.Subject, other.Subject)
	}
	for name, row := range map[string]struct {
		c      identity.Certificates
		change func(*x509.Certificate)
		why    merlon.Reason
	}{
		"expired while the connection was open": {identity.Certificates{}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, identity.CertificateRefused},
		"no name":                               {identity.Certificates{}, func(c *x509.Certificate) { c.EmailAddresses = nil }, identity.CertificateRefused},
		"two names":                             {identity.Certificates{}, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@x.example", "b@x.example"} }, identity.CertificateRefused},
		"a name with NUL":                       {identity.Certificates{Name: "cn"}, func(c *x509.Certificate) { c.Subject.CommonName = "ann\x00x" }, identity.CertificateRefused},
		"another issuer":                        {identity.Certificates{Issuers: []string{"Other CA"}}, nil, identity.CertificateRefused},
		"no account":                            {identity.Certificates{Accounts: true, Name: "cn"}, nil, identity.NoAccount},
		"a disabled account":                    {identity.Certificates{Accounts: true, Name: "cn"}, func(c *x509.Certificate) { c.Subject.CommonName = "gone" }, identity.AccountDisabled},
		"no log-in name":                        {identity.Certificates{Accounts: true, Name: "cn"}, func(c *x509.Certificate) { c.Subject.CommonName = "a b" }, identity.CertificateRefused},
	} {
		if id, err := prover(row.c).Prove(certificate(t, row.change)); id != nil || reasonOf(err) != row.why || statusOf(err) != 403 {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	unverified := certificate(t, nil)
	unverified.TLS.VerifiedChains = nil
	clear := merlontest.Request(t, "GET /")
	for name, r := range map[string]*merlon.Request{"not verified": unverified, "no TLS": clear} {
		if _, err := prover(identity.Certificates{}).Prove(r); !errors.Is(err, merlon.ErrNoProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, c := range []identity.Certificates{{Name: "serial"}, {Issuers: []string{}}, {Accounts: true, Roles: []string{"x"}}} {
		if _, err := identity.NewCertificates(identity.Config{Certificates: &c}, w.store); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestWindow(t *testing.T) {
	at := func(s string) time.Time {
		tm, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return tm
	}
	for _, row := range []struct {
		window, at string
		in         bool
	}{
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-27T06:00:00Z", true}, // a Friday, 07:00 there
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-27T05:59:59Z", false},
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-27T19:00:00Z", false}, // 20:00 there
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-11-28T10:00:00Z", false},
		{"Mon-Fri 07:00-20:00 Europe/Berlin", "2026-07-03T05:00:00Z", true}, // summer time
		{"Fri-Mon 00:00-24:00 UTC", "2026-11-29T23:59:59Z", true},
		{"Fri-Mon 00:00-24:00 UTC", "2026-12-01T00:00:00Z", false},
		{"Fri 22:00-06:00 UTC", "2026-11-28T05:59:00Z", true}, // Saturday morning belongs to Friday
		{"Fri 22:00-06:00 UTC", "2026-11-27T05:59:00Z", false},
		{"Sat,Sun 10:00-12:00 America/New_York", "2026-11-28T15:00:00Z", true},
		{"daily 10:00-12:00 UTC", "2026-11-28T11:00:00Z", true},
		{"10:00-12:00 UTC", "2026-11-28T12:00:00Z", false},
	} {
		if in, err := identity.ParseWindow(row.window, at(row.at)); err != nil || in != row.in {
			t.Errorf("%s at %s: %v, %v", row.window, row.at, in, err)
		}
	}
	for _, bad := range []string{"", "always", "Mon 10:00-12:00", "Mon 10:00-10:00 UTC", "Mon 24:00-10:00 UTC", "Mon 10:60-12:00 UTC", "Mon 25:00-26:00 UTC",
		"mon 10:00-12:00 UTC", "Mon- 10:00-12:00 UTC", "Mon,, 10:00-12:00 UTC", "Mon 10-12 UTC", "Mon 10:00-12:00 Mars/Base", "Mon 10:00-12:00 Local", "Mon 10:00-12:00 ../../etc/passwd", "Mon 10:00-12:00 UTC x"} {
		if _, err := identity.ParseWindow(bad, time.Now()); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestRules(t *testing.T) {
	rules, err := identity.NewRules(identity.Config{Login: []identity.Rule{
		{Groups: []string{"ops"}, From: []string{"10.8.0.0/16", "2001:db8:1::/48"}},
		{Users: []string{"Ann@Example.com"}, When: "daily 08:00-18:00 UTC"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name   string
		groups []string
		client string
		at     time.Time
		in     bool
	}{
		{"bob", []string{"staff", "ops"}, "10.8.1.1", noon, true},
		{"bob", []string{"ops"}, "::ffff:10.8.1.1", noon, true}, // trap 45
		{"bob", []string{"ops"}, "2001:db8:1:ffff::5", noon, true},
		{"bob", []string{"ops"}, "2001:db8:2::5", noon, false},
		{"bob", []string{"ops"}, "64:ff9b::10.8.1.1", noon, false}, // trap 45: NAT64 is not the network itself
		{"bob", []string{"staff"}, "10.8.1.1", noon, false},
		{"ann@example.com", nil, "198.51.100.1", noon, true},
		{"ann@example.com", nil, "198.51.100.1", noon.Add(6 * time.Hour), false},
	} {
		if in := identity.Allow(rules, row.name, row.groups, netip.MustParseAddr(row.client), row.at); in != row.in {
			t.Errorf("%+v: %v", row, in)
		}
	}
	if identity.Allow(rules, "bob", []string{"ops"}, netip.Addr{}, noon) {
		t.Error("without an address")
	}
	if w := rules.Weak(); len(w) != 1 {
		t.Errorf("%v", w)
	}
	if !rules.LocksOut([]account.Account{{Name: "eve"}, {Name: "bob", Groups: []string{"staff"}}}) || rules.LocksOut([]account.Account{{Name: "eve"}, {Name: "ann@example.com"}}) {
		t.Error("who is locked out")
	}
}

func FuzzParseBasic(f *testing.F) {
	f.Add("Basic YW5uOng=")
	f.Add("basic  !!!")
	f.Add("Basic " + base64.StdEncoding.EncodeToString([]byte("m\xfc:\x00")))
	f.Fuzz(func(t *testing.T, field string) {
		user, pass, ok := identity.ParseBasic(field)
		if !ok {
			return
		}
		if user == "" || strings.ContainsAny(user, ":\x00\r\n") || strings.ContainsAny(pass, "\x00\r\n") || !utf8.ValidString(user+pass) || len(field) > 4096 {
			t.Errorf("%q became %q and %q", field, user, pass)
		}
		again, p, ok := identity.ParseBasic("Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass)))
		if len(user)+len(pass) < 2000 && (!ok || again != user || p != pass) {
			t.Errorf("%q, %q are read back as %q, %q", user, pass, again, p)
		}
	})
}

func FuzzParseHtpasswd(f *testing.F) {
	f.Add("ann:$2y$10$LMdg.wk8Q0bI8GJ9pXQ1K.Dn3C9kxIvr5wxB0FTUJJ9Twd9oxGMkK\n")
	f.Add("a:{SHA}x\nb\n:")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := identity.ParseHtpasswd([]byte(text))
		for user, hash := range users {
			if user == "" || strings.Contains(user, ":") || !strings.HasPrefix(hash, "$2") && !strings.HasPrefix(hash, "$argon2id$") {
				t.Errorf("%q has %q (%v)", user, hash, err)
			}
		}
	})
}

func FuzzParseWindow(f *testing.F) {
	f.Add("Mon-Fri,Sun 22:00-06:00 UTC")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		begin := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		for h := range 7 * 48 {
			in, err := identity.ParseWindow(text, begin.Add(time.Duration(h)*30*time.Minute))
			if err != nil {
				return
			}
			if in {
				n++
			}
		}
		_ = n // a window may be shorter than what is looked at; it must only not panic
	})
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
