package provider

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
)

// maxQuery is how long an authorization request may be: it has to come back
// from the log-in page as a path that account.SafeReturn lets pass.
const maxQuery = account.MaxReturn - len(Authorize) - 64

// afterParam is added to an authorization request when its sender is sent to
// log in: a log-in since that time, in Unix seconds, is a fresh one. Who
// forges it deceives only the application that they themselves came from, and
// could as well leave out prompt and max_age; applications look at auth_time.
const afterParam = "merlon_after"

// authorization is an authorization request that was looked at.
type authorization struct {
	query     string // as it came, without afterParam
	client    *client
	redirect  string
	state     string
	scopes    []string // sorted
	nonce     string
	challenge string
	none      bool // prompt=none: show no page
	login     bool // prompt=login or select_account
	ask       bool // prompt=consent
	maxAge    time.Duration
	bounded   bool // whether maxAge was given
	strength  account.Strength
	hint      string
	after     time.Time // zero if the sender was not sent to log in
}

// An oauthError is an answer that the protocol has a word for.
type oauthError struct{ code, description string }

func invalid(description string) *oauthError { return &oauthError{"invalid_request", description} }

// authorize is the authorization endpoint.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	a, ok := p.readAuthorization(w, r, r.URL.RawQuery)
	if !ok {
		return
	}
	id := signedIn(r)
	if need, missing := p.need(a, id); missing {
		if a.none {
			p.answerError(w, r, a, &oauthError{"login_required", "nobody is signed in, or not as asked for"})
			return
		}
		need.ReturnTo = Authorize + "?" + a.query + "&" + afterParam + "=" + strconv.FormatInt(p.now().Unix(), 10)
		noStore(w)
		p.Pages.LogIn(w, r, need)
		return
	}
	ask, err := p.mustAsk(r, a, id)
	switch {
	case err != nil:
		p.answerError(w, r, a, &oauthError{"server_error", "try again"})
	case ask && a.none:
		p.answerError(w, r, a, &oauthError{"consent_required", "the person has to be asked"})
	case ask:
		noStore(w)
		p.Pages.Consent(w, r, Ask{
			Client: a.client.Name, Host: hostOf(a.redirect), Scopes: a.scopes, Action: Authorize,
			Ticket: p.seal(ticket{Kind: consentTicket, Query: a.query}, id),
		})
	default:
		p.answerCode(w, r, a, id)
	}
}

// signedIn returns who is signed in as a person by a session. Keys, tokens and
// Basic are for programs, and for what they are bounded to: whoever has one
// must not get a code, and so a token without these bounds, for it.
func signedIn(r *http.Request) *merlon.Identity {
	mr := merlon.From(r)
	if mr == nil || mr.Identity == nil {
		return nil
	}
	id := mr.Identity
	if id.Subject == "" || id.Session == "" || id.When.IsZero() || id.Scopes != nil {
		return nil
	}
	for _, m := range id.Methods {
		if m == account.ByToken || m == account.ByKey || m == account.ByBasic {
			return nil
		}
	}
	return id
}

// need returns how somebody has to log in first, if they do.
func (p *Provider) need(a *authorization, id *merlon.Identity) (Need, bool) {
	need := Need{Strength: max(a.strength, a.client.Strength), Hint: a.hint, Client: a.client.Name}
	if id == nil {
		return need, true
	}
	now, proved := p.now(), account.StrengthOf(id.Methods)
	must := p.required(a.client, id)
	need.Strength = max(a.strength, must)
	var since time.Time // what a log-in must not be older than
	if a.bounded {
		since = now.Add(-a.maxAge)
	}
	if a.login || a.bounded && a.maxAge == 0 {
		since = now.Add(1) // never young enough, unless they were just sent to log in
	}
	if !a.after.IsZero() && a.after.Before(since) {
		since = a.after
	}
	if id.When.Before(since) {
		need.Fresh = true
		return need, true
	}
	// acr_values are a wish: who has just logged in has done what they can.
	if proved < must || !a.none && a.after.IsZero() && proved < a.strength {
		return need, true
	}
	return Need{}, false
}

// mustAsk reports whether the person has to be asked for their consent.
func (p *Provider) mustAsk(r *http.Request, a *authorization, id *merlon.Identity) (bool, error) {
	if a.ask {
		return true, nil
	}
	if !a.client.consent {
		return false, nil
	}
	given, err := p.given(r, id.Subject, a.client.ID)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(a.scopes, func(s string) bool { return !slices.Contains(given, s) }) || len(given) == 0, nil
}

// given returns the scopes that a subject has allowed a client.
func (p *Provider) given(r *http.Request, subject, client string) ([]string, error) {
	cs, err := p.Store.Consents(r.Context(), subject)
	if err != nil {
		return nil, err
	}
	for _, c := range cs {
		if c.Client == client {
			return c.Scopes, nil
		}
	}
	return nil, nil
}

// consented takes the answer to the consent page.
func (p *Provider) consented(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	if _, err := readForm(w, r); err != nil {
		p.fail(w, r, http.StatusBadRequest, BadRequest)
		return
	}
	id := signedIn(r)
	t, ok := p.open(r.PostForm.Get("ticket"), consentTicket, id)
	if !ok {
		p.fail(w, r, http.StatusBadRequest, StaleForm)
		return
	}
	a, ok := p.readAuthorization(w, r, t.Query)
	if !ok {
		return
	}
	if r.PostForm.Get("answer") != "allow" {
		p.answerError(w, r, a, &oauthError{"access_denied", "the person said no"})
		return
	}
	given, err := p.given(r, id.Subject, a.client.ID)
	if err == nil {
		err = p.Store.SetConsent(r.Context(), Consent{
			Subject: id.Subject, Client: a.client.ID, Scopes: sorted(slices.Concat(given, a.scopes)), Since: p.now(),
		})
	}
	if err != nil {
		p.answerError(w, r, a, &oauthError{"server_error", "try again"})
		return
	}
	p.answerCode(w, r, a, id)
}

// readAuthorization reads an authorization request, or writes why it is none.
// Until client and redirect URI are known to belong together, nothing is sent
// anywhere but to the person in front of the browser.
func (p *Provider) readAuthorization(w http.ResponseWriter, r *http.Request, query string) (*authorization, bool) {
	q, err := url.ParseQuery(query)
	if err != nil || len(query) > maxQuery+len(afterParam)+16 || len(q["client_id"]) > 1 || len(q["redirect_uri"]) > 1 {
		p.fail(w, r, http.StatusBadRequest, BadRequest)
		return nil, false
	}
	a := &authorization{client: p.clients[q.Get("client_id")], redirect: q.Get("redirect_uri"), state: q.Get("state")}
	if a.client == nil || !a.client.may(codeGrant) {
		p.fail(w, r, http.StatusBadRequest, UnknownClient)
		return nil, false
	}
	if !a.client.redirects(a.redirect) {
		p.fail(w, r, http.StatusBadRequest, RedirectMismatch)
		return nil, false
	}
	if after, err := strconv.ParseInt(q.Get(afterParam), 10, 64); err == nil {
		if t := time.Unix(after, 0); !t.After(p.now()) && p.now().Sub(t) <= stepTTL {
			a.after = t
		}
	}
	q.Del(afterParam)
	a.query = q.Encode()
	if len(a.query) > maxQuery {
		p.fail(w, r, http.StatusBadRequest, BadRequest)
		return nil, false
	}
	if e := a.read(q); e != nil {
		p.answerError(w, r, a, e)
		return nil, false
	}
	return a, true
}

// challengeS256 is a SHA-256 in base64url.
var challengeS256 = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// read reads what an authorization request asks for.
func (a *authorization) read(q url.Values) *oauthError {
	for name, values := range q {
		if len(values) > 1 && name != "resource" {
			return invalid(name + " comes more than once") // RFC 6749, 3.1
		}
	}
	switch {
	case q.Has("request"):
		return &oauthError{"request_not_supported", "send the parameters themselves"}
	case q.Has("request_uri"):
		return &oauthError{"request_uri_not_supported", "send the parameters themselves"}
	case q.Get("response_type") != "code":
		return &oauthError{"unsupported_response_type", "only code"}
	case q.Has("response_mode") && q.Get("response_mode") != "query":
		return invalid("response_mode can only be query")
	case q.Get("code_challenge_method") != "S256":
		return invalid("PKCE with code_challenge_method S256 is required") // RFC 9700, 2.1.1
	case !challengeS256.MatchString(q.Get("code_challenge")):
		return invalid("code_challenge is not one of S256")
	}
	a.challenge, a.nonce, a.hint = q.Get("code_challenge"), q.Get("nonce"), q.Get("login_hint")
	a.scopes = sorted(strings.Fields(q.Get("scope")))
	if len(a.scopes) == 0 {
		return &oauthError{"invalid_scope", "scope is missing"}
	}
	for _, s := range a.scopes {
		if !slices.Contains(a.client.Scopes, s) {
			return &oauthError{"invalid_scope", "a scope that this client may not ask for"}
		}
	}
	for prompt := range strings.FieldsSeq(q.Get("prompt")) {
		switch prompt {
		case "none":
			a.none = true
		case "login", "select_account":
			a.login = true
		case "consent":
			a.ask = true
		default:
			return invalid("unknown prompt")
		}
	}
	if a.none && (a.login || a.ask) {
		return invalid("prompt none goes with no other")
	}
	if age := q.Get("max_age"); age != "" {
		n, err := strconv.ParseUint(age, 10, 31)
		if err != nil {
			return invalid("max_age must be seconds")
		}
		a.maxAge, a.bounded = time.Duration(n)*time.Second, true
	}
	a.strength = wished(strings.Fields(q.Get("acr_values")))
	return nil
}

// wished returns the least of the strengths among acr_values that we know.
func wished(values []string) account.Strength {
	least, found := account.None, false
	for _, v := range values {
		var s account.Strength
		if s.UnmarshalText([]byte(v)) == nil && (!found || s < least) {
			least, found = s, true
		}
	}
	return least
}

// answerCode makes a grant and sends its code to the application.
func (p *Provider) answerCode(w http.ResponseWriter, r *http.Request, a *authorization, id *merlon.Identity) {
	now, code := p.now(), rand.Text()+rand.Text()
	g := Grant{
		ID: rand.Text(), Client: a.client.ID, Subject: id.Subject, Session: id.Session, Scopes: a.scopes,
		Offline: slices.Contains(a.scopes, scopeOffline) && a.client.may(refreshGrant),
		Methods: slices.Clone(id.Methods), AuthTime: id.When, Created: now,
		Expires: now.Add(sessionTTL),
	}
	if g.Offline {
		g.Expires = now.Add(p.refresh)
	}
	err := p.Store.AddGrant(r.Context(), g, &Code{
		Hash: hashOf(code), Grant: g.ID, Client: a.client.ID, Redirect: a.redirect,
		Challenge: a.challenge, Nonce: a.nonce, Expires: now.Add(codeTTL),
	})
	if err != nil {
		p.answerError(w, r, a, &oauthError{"server_error", "try again"})
		return
	}
	p.answer(w, a, url.Values{"code": {code}})
}

// answerError tells the application why there is no code.
func (p *Provider) answerError(w http.ResponseWriter, r *http.Request, a *authorization, e *oauthError) {
	if e.code != "login_required" && e.code != "consent_required" && e.code != "access_denied" {
		p.record(r, http.StatusBadRequest, BadRequest, e.description)
	}
	p.answer(w, a, url.Values{"error": {e.code}, "error_description": {e.description}})
}

// answer sends the browser back to the application, by 303, so that no form
// goes on with it (RFC 9700, 4.12), and says who answers (RFC 9207).
func (p *Provider) answer(w http.ResponseWriter, a *authorization, q url.Values) {
	if a.state != "" {
		q.Set("state", a.state)
	}
	q.Set("iss", p.issuer)
	noStore(w)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Location", extend(a.redirect, q))
	w.WriteHeader(http.StatusSeeOther)
}

// extend adds parameters to an address that may have some already.
func extend(uri string, q url.Values) string {
	sep := "?"
	if strings.Contains(uri, "?") {
		sep = "&"
	}
	return uri + sep + q.Encode()
}

// The kinds of a ticket.
const (
	consentTicket = "consent"
	logOutTicket  = "logout"
)

// ticket is what a page of ours is about. Sealed, and bound to one session, so
// that nobody else's page can make a browser answer (CSRF).
type ticket struct {
	Kind    string `json:"k"`
	Query   string `json:"q"`
	Subject string `json:"u"`
	Session string `json:"s"`
	Expires int64  `json:"e"`
}

func (p *Provider) seal(t ticket, id *merlon.Identity) string {
	t.Subject, t.Session, t.Expires = id.Subject, id.Session, p.now().Add(stepTTL).Unix()
	plain, err := json.Marshal(t)
	if err != nil { // strings and a number
		panic(err)
	}
	return encoding.EncodeToString(p.tickets.Seal(plain, t.Kind))
}

func (p *Provider) open(text, kind string, id *merlon.Identity) (t ticket, ok bool) {
	sealed, err := encoding.DecodeString(text)
	if err != nil || id == nil {
		return ticket{}, false
	}
	plain, err := p.tickets.Open(sealed, kind)
	if err != nil || json.Unmarshal(plain, &t) != nil {
		return ticket{}, false
	}
	ok = t.Kind == kind && t.Subject == id.Subject && t.Session == id.Session && p.now().Unix() < t.Expires
	return t, ok
}

// fail shows a person what went wrong.
func (p *Provider) fail(w http.ResponseWriter, r *http.Request, status int, reason merlon.Reason) {
	p.record(r, status, reason, "")
	noStore(w)
	p.Pages.Fail(w, r, status, reason)
}

// record notes a refusal with the request.
func (p *Provider) record(r *http.Request, status int, reason merlon.Reason, message string) {
	mr := merlon.From(r)
	if mr == nil {
		return
	}
	d := merlon.Refuse(status, reason)
	if message != "" {
		d.Findings = []merlon.Finding{{Message: message}}
	}
	mr.Record("provider", d)
}

func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
}

func hostOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	if u.Host == "" {
		return u.Scheme
	}
	return u.Host
}

// sorted returns the strings sorted, each once.
func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}
