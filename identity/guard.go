package identity

import (
	"errors"
	"hash/maphash"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/session"
)

const (
	// Proved: the request proves who sent it.
	Proved merlon.Reason = "identity-proved"
	// NobodyProved: the request proves nobody. Whether that is enough is for the
	// access guard.
	NobodyProved merlon.Reason = "anonymous"
	// ProofFailed: the request carries a proof that does not hold. The client
	// must send another, or none.
	ProofFailed merlon.Reason = "proof-failed"
	// ProofsDisagree: the request carries the proofs of two different users, a
	// session's cookie and an API key, say. Which of them is meant is
	// anyone's guess. Send one.
	ProofsDisagree merlon.Reason = "proofs-disagree"
	// SecondFactorMissing: mfa.required asks this user for a second factor, or
	// a better one, that the session has not proved. Its owner must sign in
	// again or prove it.
	SecondFactorMissing merlon.Reason = "second-factor-missing"
)

// sessionProver is the name of a session.Manager as a prover.
const sessionProver = "session"

// Prefix is where Merlon's own pages are, which a session that lacks a second
// factor must reach.
const Prefix = "/.merlon/"

// A Guard finds out who is asking and sets Request.Identity. It asks every
// prover, in order:
//
//   - A proof that is there and does not hold refuses with 401, since who sends
//     it means to be somebody. Only a session that has ended is no proof any
//     more: its browser becomes anonymous and loses the cookie.
//   - Proofs of two different users refuse: an attacker may have added one.
//   - Of two proofs of one user the first counts, with what a client
//     certificate proves beside it added.
//   - What login rules do not let in here and now is not let in, be it by a
//     key; a session stays, but proves nobody here.
type Guard struct {
	c       Config
	provers []merlon.Prover
	renewer renewer // nil if there is none
	asked   *asked
	rules   *Rules
	now     func() time.Time
}

// New returns a Guard that asks the provers in this order: those that a
// program sends on purpose (certificate, key, token, Basic) before the session.
func New(c Config, provers ...merlon.Prover) (*Guard, error) {
	c, err := c.complete()
	rules, rerr := NewRules(c)
	if err := errors.Join(err, rerr); err != nil {
		return nil, err
	}
	g := &Guard{c: c, provers: provers, rules: rules, now: time.Now, asked: &asked{seed: maphash.MakeSeed()}}
	for _, p := range provers {
		if m, ok := p.(renewer); ok {
			g.renewer = m
		}
	}
	return g, nil
}

// Name returns "identity".
func (g *Guard) Name() string { return "identity" }

// Middleware puts the guard in front of next.
func (g *Guard) Middleware(next http.Handler) http.Handler { return merlon.Middleware(g)(next) }

// Weak says what about the configuration its author may not have meant.
func (g *Guard) Weak() []string {
	weak := g.rules.Weak()
	if b := g.c.Basic; b != nil && b.Htpasswd != "" && required(g.c.MFA, b.Roles) > account.None {
		weak = append(weak, "basic.htpasswd: mfa.required asks its users for a second factor, which such a file has not; they are let in by the password alone")
	}
	return weak
}

// Close ends the guard. It holds nothing open; requests that are under way go
// on to be judged.
func (g *Guard) Close() error { return nil }

// Who returns who has sent r as far as its proofs hold, or nil. Unlike Check it
// changes nothing: it is for requests that were refused before, whose answer
// brings no new cookie.
func (g *Guard) Who(r *merlon.Request) *merlon.Identity {
	found, _, refused := g.find(r)
	if found == nil || refused != nil {
		return nil
	}
	return g.withTenant(found)
}

// An absence is why a session's cookie proves nobody, and whether it is to be
// cleared.
type absence struct {
	why   merlon.Reason
	clear bool
}

// find asks every prover.
func (g *Guard) find(r *merlon.Request) (found *merlon.Identity, none absence, refused *merlon.Decision) {
	refuse := func(d merlon.Decision) (*merlon.Identity, absence, *merlon.Decision) { return nil, none, &d }
	for _, p := range g.provers {
		id, err := p.Prove(r)
		switch {
		case err == nil && id != nil:
		case errors.Is(err, merlon.ErrNoProof):
			continue
		case err == nil:
			return refuse(merlon.Unable(errors.New("identity: " + p.Name() + " has proved nobody and did not say so")))
		default:
			if why, ok := over(err); ok {
				none = absence{why, why != session.Elsewhere}
				continue
			}
			return refuse(g.refuse(r, p, err))
		}
		if !g.rules.allow(id.Name, id.Groups, r.Client, g.now()) {
			if p.Name() == sessionProver {
				none.why = NotAllowedHere
				continue
			}
			return refuse(g.refuse(r, p, &failure{why: NotAllowedHere}))
		}
		if found == nil {
			found = id
			continue
		}
		if found.Subject != id.Subject {
			d := merlon.Refuse(http.StatusUnauthorized, ProofsDisagree)
			d.Header = http.Header{"Www-Authenticate": {bearer(r)}}
			return refuse(d)
		}
		found = together(found, id)
	}
	return found, none, nil
}

// Check sets r.Identity.
func (g *Guard) Check(r *merlon.Request) merlon.Decision {
	found, none, refused := g.find(r)
	if refused != nil {
		return *refused
	}
	if found == nil {
		d := merlon.Pass(NobodyProved)
		if none.why != "" {
			d.Reason = none.why
		}
		if none.clear {
			d.Header = http.Header{}
			session.Clear(d.Header)
			d.Header.Del("Clear-Site-Data") // an attacker's cookie must not empty the site's storage
		}
		return d
	}
	r.Identity = g.withTenant(found)
	d := merlon.Pass(Proved)
	if renewed, err := g.renew(r, found); err != nil {
		return g.refuse(r, g.renewer, err)
	} else if renewed != nil {
		d.Header = http.Header{"Set-Cookie": {renewed.String()}}
	}
	if g.lacksFactor(found) && !strings.HasPrefix(r.Path, Prefix) {
		d.Effect, d.Status, d.Reason = merlon.Challenge, http.StatusUnauthorized, SecondFactorMissing
		if d.Header == nil {
			d.Header = http.Header{}
		}
		d.Header.Set("WWW-Authenticate", bearer(r)+`, error="insufficient_user_authentication"`) // RFC 9470
	}
	return d
}

// withTenant adds the tenant that a group of id names, if nothing else does.
func (g *Guard) withTenant(id *merlon.Identity) *merlon.Identity {
	if g.c.Tenant == "" || id.Tenant != "" {
		return id
	}
	tenant := ""
	for _, group := range id.Groups {
		if rest, ok := strings.CutPrefix(group, g.c.Tenant); ok && rest != "" && (tenant == "" || rest < tenant) {
			tenant = rest
		}
	}
	if tenant == "" {
		return id
	}
	with := *id // others may hold the one that was proved
	with.Tenant = tenant
	return &with
}

// Tries reports whether r has something of the kind that proves who is asking.
// Whether it does is for Check; guards that are asked before it need to know
// who might be somebody.
func (g *Guard) Tries(r *merlon.Request) bool {
	return slices.ContainsFunc(g.provers, func(p merlon.Prover) bool { return brings(p.Name(), r) })
}

// TriesSession reports whether a session's cookie is all that r tries. One that
// proves nobody is not told so, unlike a key.
func (g *Guard) TriesSession(r *merlon.Request) bool {
	return g.Tries(r) && !slices.ContainsFunc(g.provers, func(p merlon.Prover) bool { return p.Name() != sessionProver && brings(p.Name(), r) })
}

// brings reports whether r has what a prover of that name looks at. What nobody
// looks at, such as a token of the backend's own, proves nothing.
func brings(prover string, r *merlon.Request) bool {
	bearer := func(ok func(rest string) bool) bool {
		return slices.ContainsFunc(r.Header["Authorization"], func(v string) bool {
			scheme, rest, _ := strings.Cut(strings.TrimSpace(v), " ")
			return strings.EqualFold(scheme, "Bearer") && ok(rest)
		})
	}
	switch prover {
	case sessionProver:
		return session.Has(r.Header)
	case account.ByBasic:
		return slices.ContainsFunc(r.Header["Authorization"], basicScheme)
	case account.ByCertificate:
		return r.TLS != nil && len(r.TLS.VerifiedChains) > 0
	case account.ByKey:
		return slices.ContainsFunc(r.Header["X-Api-Key"], ownKey) || bearer(ownKey)
	case account.ByToken:
		return bearer(func(rest string) bool { return strings.ContainsAny(rest, ".{") })
	}
	return r.Header["Authorization"] != nil
}

// asked remembers which sessions have been asked about within this second. It
// may forget one, which is then asked about once more.
type asked struct {
	seed  maphash.Seed
	slots [1024]atomic.Uint64
}

func (a *asked) lately(session string, now time.Time) bool {
	h := maphash.String(a.seed, session)
	slot, value := &a.slots[h%uint64(len(a.slots))], h^uint64(now.Unix())
	return slot.Swap(value) == value
}

// A renewer is a prover whose proof is rotated when what its owner may has
// changed: a session.Manager.
type renewer interface {
	merlon.Prover
	Renew(r *merlon.Request) (*http.Cookie, error)
}

// renew returns a new cookie for a session whose owner's rights have changed.
// One that has ended meanwhile will be noticed by the next request.
func (g *Guard) renew(r *merlon.Request, id *merlon.Identity) (*http.Cookie, error) {
	if g.renewer == nil || id.Session == "" || r.Header["Cookie"] == nil || g.asked.lately(id.Session, r.Received) {
		return nil, nil
	}
	c, err := g.renewer.Renew(r)
	if _, ended := over(err); ended || errors.Is(err, merlon.ErrNoProof) {
		return nil, nil
	}
	return c, err
}

// lacksFactor reports whether a person has proved less than policy asks of
// their roles: a session from before the policy, say. Programs are proved by
// keys that such a person has made.
func (g *Guard) lacksFactor(id *merlon.Identity) bool {
	if id.When.IsZero() || len(g.c.MFA.Required) == 0 {
		return false
	}
	return account.StrengthOf(id.Methods) < required(g.c.MFA, id.Roles)
}

// over reports that a session's cookie proves nobody any more, or never did.
func over(err error) (merlon.Reason, bool) {
	e, ok := errors.AsType[*session.Error](err)
	if !ok || e.Reason == session.Unavailable {
		return "", false
	}
	return e.Reason, true
}

// together is what two proofs of one user prove. A certificate is bound to the
// connection, and so adds to the other; of others, the first counts alone, or
// a key that is good for little would become a session.
func together(first, other *merlon.Identity) *merlon.Identity {
	cert := func(id *merlon.Identity) bool { return len(id.Methods) == 1 && id.Methods[0] == account.ByCertificate }
	switch {
	case cert(first):
		both := *other
		both.Methods = append(slices.Clone(other.Methods), account.ByCertificate)
		return &both
	case cert(other):
		both := *first
		both.Methods = append(slices.Clone(first.Methods), account.ByCertificate)
		return &both
	}
	return first
}

// A challenger is a prover that has its own words for WWW-Authenticate.
type challenger interface {
	challenge(r *merlon.Request) string
}

// refuse words what a proof that does not hold is answered.
func (g *Guard) refuse(r *merlon.Request, p merlon.Prover, err error) merlon.Decision {
	status, why := http.StatusUnauthorized, ProofFailed
	if s, ok := err.(interface{ Status() int }); ok {
		status = s.Status()
	}
	if w, ok := err.(interface{ Reason() merlon.Reason }); ok {
		why = w.Reason()
	}
	if e, ok := errors.AsType[*session.Error](err); ok {
		status, why = http.StatusServiceUnavailable, e.Reason
	}
	if status == http.StatusServiceUnavailable {
		d := merlon.Unable(err)
		d.Reason = why
		d.Header = http.Header{"Retry-After": {"1"}}
		return d
	}
	d := merlon.Refuse(status, why)
	d.Err = err
	d.Findings = []merlon.Finding{{Rule: p.Name(), Message: "a proof of this kind does not hold"}}
	switch status {
	case http.StatusUnauthorized:
		text := bearer(r) + `, error="invalid_token"`
		if c, ok := p.(challenger); ok {
			text = c.challenge(r)
		}
		d.Header = http.Header{"Www-Authenticate": {text}}
	case http.StatusTooManyRequests:
		if w, ok := err.(interface{ RetryAfter() time.Duration }); ok {
			d.Header = http.Header{"Retry-After": {strconv.Itoa(max(1, int((w.RetryAfter()+time.Second-1)/time.Second)))}}
		}
	}
	return d
}

func bearer(r *merlon.Request) string { return "Bearer realm=" + quoted(realmOf(r)) }

// realmOf is the site, in the configuration's words: what a client wrote as
// Host has no place in a header field.
func realmOf(r *merlon.Request) string {
	if r.Site == "" {
		return "Merlon"
	}
	return r.Site
}

// quoted writes an RFC 9110 quoted-string of printable ASCII.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c >= ' ' && c < 0x7f:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Challenges is how a program may prove who it is, for the WWW-Authenticate
// fields of whoever asks it to.
func (g *Guard) Challenges(r *merlon.Request) []string {
	var list []string
	programs := false
	for _, p := range g.provers {
		switch p := p.(type) {
		case challenger:
			if c := p.challenge(r); c != "" && g.c.Basic != nil && g.c.Basic.Ask {
				list = append(list, c)
			}
		default:
			programs = programs || p.Name() != sessionProver
		}
	}
	if programs || len(list) == 0 {
		list = append(list, bearer(r))
	}
	return list
}

// Strip takes out of the header that goes to the backend what proved r to
// Merlon: whoever reads it there could use it here. Merlon's cookies always
// go; Authorization and X-API-Key stay if they are not Merlon's, or if
// forward_authorization says so.
func (g *Guard) Strip(r *merlon.Request, h http.Header) {
	session.StripCookies(h)
	if g.c.ForwardAuthorization {
		return
	}
	if v := h["X-Api-Key"]; v != nil {
		if kept := slices.DeleteFunc(slices.Clone(v), ownKey); len(kept) == 0 {
			delete(h, "X-Api-Key")
		} else {
			h["X-Api-Key"] = kept
		}
	}
	if h["Authorization"] == nil {
		return
	}
	for _, p := range g.provers {
		if p.Name() == sessionProver || p.Name() == account.ByCertificate {
			continue
		}
		if p.Name() == account.ByBasic {
			// Asking again may cost a hash; whose scheme it is does not.
			if basicScheme(h.Get("Authorization")) {
				delete(h, "Authorization")
				return
			}
			continue
		}
		if _, err := p.Prove(r); !errors.Is(err, merlon.ErrNoProof) && !onlyKeyField(r) {
			delete(h, "Authorization")
			return
		}
	}
}

// ownKey reports whether a field's value is a key of ours.
func ownKey(v string) bool { return strings.HasPrefix(strings.TrimSpace(v), "mk_") }

// onlyKeyField reports that the key came in X-API-Key, so that Authorization
// is somebody else's.
func onlyKeyField(r *merlon.Request) bool {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return slices.ContainsFunc(r.Header["X-Api-Key"], ownKey) && !ownKey(rest)
}
