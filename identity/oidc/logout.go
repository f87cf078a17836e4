package oidc

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/merlon-dev/merlon/secrets"
)

// logoutAge is how old a log-out token may be: providers try again for a
// while when we could not be reached.
const logoutAge = 5 * time.Minute

// A Logout is whose sessions have ended at a provider: those of the session
// SID there, or all of Subject's if SID is empty. One of the two is there.
type Logout struct{ Issuer, Subject, SID string }

// VerifyLogoutToken checks a log-out token that somebody sent to
// [LogoutPath] (OpenID Connect Back-Channel Logout 1.0, 2.6). It is good once.
func (rp *RelyingParty) VerifyLogoutToken(ctx context.Context, name, raw string) (Logout, error) {
	p := rp.providers[name]
	if p == nil {
		return Logout{}, because(UnknownProvider, "%q", name)
	}
	if err := logoutType(raw); err != nil {
		return Logout{}, &Error{LogoutRefused, err}
	}
	m, err := p.discover(ctx)
	if err != nil {
		return Logout{}, err
	}
	t, err := oidc.NewVerifier(p.Issuer, p.keys, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: m.algs, Now: p.now}).VerifyLogout(ctx, raw)
	if err != nil {
		return Logout{}, &Error{LogoutRefused, err}
	}
	now := p.now()
	if t.IssuedAt.After(now.Add(skew)) || now.Sub(t.IssuedAt) > logoutAge {
		return Logout{}, because(LogoutRefused, "iat is %v", t.IssuedAt)
	}
	first, err := rp.seen.First(ctx, "oidc logout "+p.Name+" "+t.TokenID, t.IssuedAt.Add(logoutAge+skew))
	if err != nil {
		return Logout{}, err
	}
	if !first {
		return Logout{}, because(LogoutRefused, "jti came before")
	}
	return Logout{t.Issuer, t.Subject, t.SessionID}, nil
}

// logoutType looks at the header before anything is fetched for the token's
// sake. Not every provider sets typ to logout+jwt; none that is something
// else, such as an access token, is let pass.
func logoutType(raw string) error {
	if len(raw) > 16<<10 {
		return fmt.Errorf("is too long")
	}
	algs := make([]jose.SignatureAlgorithm, len(algorithms))
	for i, a := range algorithms {
		algs[i] = jose.SignatureAlgorithm(a)
	}
	jws, err := jose.ParseSignedCompact(raw, algs)
	if err != nil {
		return err
	}
	typ, _ := jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType].(string)
	if !slices.Contains([]string{"", "jwt", "logout+jwt", "application/logout+jwt"}, strings.ToLower(typ)) {
		return fmt.Errorf("typ is %q", typ)
	}
	return nil
}

// EndSessionURL returns where to send a browser so that its session at the
// provider ends too, which comes back to a path of the host; or "" if the
// provider knows no such thing. The ID token is the one of the session's
// [Proof].
func (rp *RelyingParty) EndSessionURL(ctx context.Context, name string, idToken secrets.Secret, host, path string) (string, error) {
	p := rp.providers[name]
	if p == nil {
		return "", because(UnknownProvider, "%q", name)
	}
	m, err := p.discover(ctx)
	if err != nil || m.EndSession == "" {
		return "", err
	}
	host = strings.ToLower(host)
	if !validHost.MatchString(host) {
		return "", because(StateMissing, "the host %q cannot be returned to", host)
	}
	u, err := url.Parse(m.EndSession)
	if err != nil {
		return "", &Error{ProviderDown, err}
	}
	q := u.Query()
	q.Set("client_id", p.ClientID)
	q.Set("post_logout_redirect_uri", "https://"+host+path)
	if hint := idToken.Reveal(); hint != "" {
		q.Set("id_token_hint", hint)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}
