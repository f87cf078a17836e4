package people_test

import (
	"encoding/json"
	"net"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/test/harness"
)

const verifier = "a-verifier-of-at-least-43-characters-0123456789"

// refreshToken signs somebody in to the wiki, an application of the
// authorization server, and returns its refresh token.
func (p *place) refreshToken(who *harness.Person, scope string) string {
	p.t.Helper()
	q := url.Values{
		"response_type": {"code"}, "client_id": {"wiki"}, "redirect_uri": {"https://wiki.example.com/back"}, "scope": {scope}, "state": {"s"},
		"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
	}
	to := who.Get("/.merlon/oauth/authorize?" + q.Encode()).SentTo("https://wiki.example.com/back?")
	back, err := url.Parse(to)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.tokens(url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")},
		"redirect_uri": {"https://wiki.example.com/back"}, "code_verifier": {verifier}}, 200)
}

// tokens asks the token endpoint as the wiki does, and returns the next refresh
// token.
func (p *place) tokens(form url.Values, status int) string {
	p.t.Helper()
	form.Set("client_id", "wiki")
	wiki := p.person()
	page := wiki.Do("POST", "/.merlon/oauth/token", form.Encode(), "Accept", "*/*", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "",
		"Origin", "", "User-Agent", "wiki/1").Want(status)
	var v struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(page.Body), &v); err != nil || (v.Refresh == "") == (status == 200) {
		p.t.Fatalf("%v: %s", err, page.Body)
	}
	return v.Refresh
}

var aSession = regexp.MustCompile(`(?m)^([A-Z2-7]{26}) +ann `)

// traps 49, 56: what an application was allowed ends with the session, whoever
// ends it and by what. Offline access survives the end of one session.
func TestApplicationsEndWithTheSession(t *testing.T) {
	t.Parallel()
	addr := harness.FreeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	seed(t, store.Config{Dir: data}, people(t)...)
	p := serve(t, data, strings.ReplaceAll(`off: [waf]
identity:
  server:
    issuer: https://localhost:PORT
    clients: [{id: wiki, public: true, consent: false, redirect: ["https://wiki.example.com/back"], scopes: [openid, offline_access]}]
`, "PORT", port)+cheap+requireLogin, nil, addr)
	pass := annsPassword
	for _, c := range []struct {
		name    string
		offline bool // offline access ends, too
		end     func(who *harness.Person)
	}{
		{"signing out", false, func(who *harness.Person) { who.Get("/.merlon/logout").Send("/.merlon/logout").Want(200) }},
		{"signing out everywhere", true, func(who *harness.Person) {
			who.Get("/.merlon/logout").Send("/.merlon/logout", "everywhere", "yes").Want(200)
		}},
		{"session end --id", false, func(*harness.Person) {
			id := aSession.FindStringSubmatch(p.run("session", "list", "--user", "ann"))
			p.run("session", "end", "--user", "ann", "--id", id[1])
		}},
		{"session end", true, func(*harness.Person) { p.run("session", "end", "--user", "ann") }},
		{"a new password", true, func(who *harness.Person) {
			other := p.in("ann", pass)
			other.Get("/.merlon/account").Send("/.merlon/account/password", "current", pass, "new", nextPassword).SentTo("/.merlon/account?done=")
			pass = nextPassword
		}},
		{"user disable", true, func(*harness.Person) { p.run("user", "disable", "ann"); p.run("user", "enable", "ann") }},
		{"user delete", true, func(*harness.Person) { p.run("user", "delete", "ann", "--yes") }},
	} {
		who := p.in("ann", pass)
		bound, offline := p.refreshToken(who, "openid"), p.refreshToken(who, "openid offline_access")
		bound = p.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {bound}}, 200)
		c.end(who)
		t.Log(c.name)
		p.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {bound}}, 400)
		status := 200
		if c.offline {
			status = 400
		}
		p.tokens(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {offline}}, status)
		if c.name != "user delete" {
			p.run("session", "end", "--user", "ann")
		}
	}
}
