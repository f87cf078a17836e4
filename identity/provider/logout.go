package provider

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	sendTimeout = 5 * time.Second
	sendTries   = 3
	logoutTTL   = 2 * time.Minute
)

// sid names a session to one client: two clients cannot tell by it that they
// have to do with the same browser.
func (p *Provider) sid(client, session string) string {
	mac := hmac.New(sha256.New, p.sidKey)
	mac.Write([]byte(client + "\x00" + session))
	return encoding.EncodeToString(mac.Sum(nil)[:24])
}

// endSession is the log-out endpoint (OpenID Connect RP-Initiated Logout 1.0).
// Who comes with an ID token of the very session that ends is believed; all
// others are asked, or any page could log people out.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) {
	noStore(w)
	id := signedIn(r)
	if r.Method == http.MethodPost {
		if _, err := readForm(w, r); err != nil {
			p.fail(w, r, http.StatusBadRequest, BadRequest)
			return
		}
		if r.PostForm.Has("ticket") {
			p.logOutConfirmed(w, r)
			return
		}
		// Another site's form brings no cookie (SameSite=Lax), a link does.
		w.Header().Set("Location", EndSession+"?"+r.PostForm.Encode())
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		p.fail(w, r, http.StatusBadRequest, BadRequest)
		return
	}
	for _, values := range q {
		if len(values) > 1 {
			p.fail(w, r, http.StatusBadRequest, BadRequest)
			return
		}
	}
	c, sid, ok := p.hinted(r.Context(), q)
	if !ok {
		p.fail(w, r, http.StatusBadRequest, UnknownClient)
		return
	}
	if c == nil && q.Has("id_token_hint") {
		q.Del("post_logout_redirect_uri") // whose it would be is not known
	}
	target, ok := afterLogOut(c, q)
	if !ok {
		p.fail(w, r, http.StatusBadRequest, RedirectMismatch)
		return
	}
	switch {
	case id == nil: // it is done already
		p.goOn(w, r, target)
	case sid != "" && sid == p.sid(c.ID, id.Session):
		p.endThis(w, r, target)
	default:
		ask := Ask{Action: EndSession, Host: hostOf(target), Ticket: p.seal(ticket{Kind: logOutTicket, Query: target}, id)}
		if c != nil {
			ask.Client = c.Name
		}
		p.Pages.ConfirmLogOut(w, r, ask)
	}
}

// hinted returns the client that a log-out comes from and the session that its
// ID token names. Neither is needed, but what is there must fit together. A
// token that does not hold is as good as none: keys do not last for ever.
func (p *Provider) hinted(ctx context.Context, q url.Values) (c *client, sid string, ok bool) {
	name := q.Get("client_id")
	// It may have expired: it only has to have been ours.
	claims, err := p.Signer.Verify(ctx, q.Get("id_token_hint"), typID)
	if party, _ := claims["azp"].(string); err == nil && party != "" && claims["iss"] == p.issuer {
		if name != "" && name != party {
			return nil, "", false
		}
		name = party
		sid, _ = claims["sid"].(string)
	}
	if name == "" {
		return nil, "", true
	}
	c = p.clients[name]
	return c, sid, c != nil
}

// afterLogOut returns where to go afterwards; "" is our own page.
func afterLogOut(c *client, q url.Values) (string, bool) {
	uri := q.Get("post_logout_redirect_uri")
	if uri == "" {
		return "", true
	}
	if c == nil || !slices.Contains(c.Logout, uri) {
		return "", false
	}
	if state := q.Get("state"); state != "" {
		return extend(uri, url.Values{"state": {state}}), true
	}
	return uri, true
}

// logOutConfirmed takes the answer to the page that asks.
func (p *Provider) logOutConfirmed(w http.ResponseWriter, r *http.Request) {
	t, ok := p.open(r.PostForm.Get("ticket"), logOutTicket, signedIn(r))
	switch {
	case !ok:
		p.fail(w, r, http.StatusBadRequest, StaleForm)
	case r.PostForm.Get("answer") != "allow":
		p.goOn(w, r, "")
	default:
		p.endThis(w, r, t.Query)
	}
}

// endThis ends the session of the request and what hangs on it.
func (p *Provider) endThis(w http.ResponseWriter, r *http.Request, target string) {
	id := signedIn(r)
	err := p.Pages.EndSession(w, r)
	if err == nil {
		err = p.LoggedOut(r.Context(), id.Subject, id.Session)
	}
	if err != nil {
		p.unable(w, r, err)
		return
	}
	p.goOn(w, r, target)
}

func (p *Provider) goOn(w http.ResponseWriter, r *http.Request, target string) {
	if target == "" {
		p.Pages.SignedOut(w, r)
		return
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}

// LoggedOut ends what was granted during a session, or all of a subject's if
// session is empty, and tells the applications. What was granted for offline
// access survives the end of one session, but not of all. Call it whenever a
// session ends by somebody's will, wherever that happens; twice does no harm.
// Applications are told in the background, see [Provider.Wait].
func (p *Provider) LoggedOut(ctx context.Context, subject, session string) error {
	gs, err := EndGrants(ctx, p.Store, subject, session, p.now())
	errs := []error{err}
	told := make(map[[2]string]bool)
	for _, g := range gs {
		c := p.clients[g.Client]
		if c == nil || c.BackchannelLogout == "" || told[[2]string{g.Client, g.Session}] {
			continue
		}
		told[[2]string{g.Client, g.Session}] = true
		token, err := p.logoutToken(ctx, c, g)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.sending.Go(func() { p.send(context.WithoutCancel(ctx), c, token) })
	}
	return errors.Join(errs...)
}

// EndGrants does in a store what [Provider.LoggedOut] does, for who works on it
// beside a running Provider, and returns the grants that the end was about.
// Applications are not told; they notice when their tokens run out.
func EndGrants(ctx context.Context, s Store, subject, session string, now time.Time) ([]Grant, error) {
	all, err := s.Grants(ctx, subject, now)
	if err != nil {
		return nil, err
	}
	var about []Grant
	var errs []error
	for _, g := range all {
		if session != "" && g.Session != session {
			continue
		}
		about = append(about, g)
		if !g.Offline || session == "" {
			errs = append(errs, s.EndGrant(ctx, g.ID))
		}
	}
	return about, errors.Join(errs...)
}

// logoutToken makes a log-out token (OpenID Connect Back-Channel Logout 1.0, 2.4).
func (p *Provider) logoutToken(ctx context.Context, c *client, g Grant) (string, error) {
	now := p.now()
	return p.Signer.Sign(ctx, map[string]any{
		"iss": p.issuer, "aud": c.ID, "sub": g.Subject, "sid": p.sid(c.ID, g.Session), "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(logoutTTL).Unix(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": struct{}{}},
	}, typLogout)
}

// send delivers a log-out token, in a few tries.
func (p *Provider) send(ctx context.Context, c *client, token string) {
	p.places <- struct{}{}
	defer func() { <-p.places }()
	var err error
	for try := range sendTries {
		if try > 0 {
			time.Sleep(p.retry << (try - 1))
		}
		if err = p.post(ctx, c.BackchannelLogout, token); err == nil {
			return
		}
	}
	if p.Failed != nil {
		p.Failed(c.ID, err)
	}
}

func (p *Provider) post(ctx context.Context, to, token string) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	body := strings.NewReader(url.Values{"logout_token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	// The token is for that address and no other.
	h := *p.HTTP
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := h.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent {
		return fmt.Errorf("answered %s", res.Status)
	}
	return nil
}

// Wait waits until no log-out token is under way, or the context ends.
func (p *Provider) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { p.sending.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Consents returns what a subject has allowed, for the page where they can
// take it back.
func (p *Provider) Consents(ctx context.Context, subject string) ([]Consent, error) {
	return p.Store.Consents(ctx, subject)
}

// TakeBack takes a subject's consent back and ends what was granted by it.
func (p *Provider) TakeBack(ctx context.Context, subject, client string) error {
	return p.Store.RemoveConsent(ctx, subject, client)
}

// ClientName returns what to call a client; one that is gone by its id.
func (p *Provider) ClientName(id string) string {
	if c := p.clients[id]; c != nil {
		return c.Name
	}
	return id
}
