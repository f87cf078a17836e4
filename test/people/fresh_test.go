package people_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/internal/store"
	"github.com/merlon-dev/merlon/test/harness"
)

// oldSession makes a session of ann's that was proved some time ago, and
// returns its cookie.
func oldSession(t testing.TB, data string, ago time.Duration) *http.Cookie {
	t.Helper()
	db, err := store.Open(context.Background(), store.Config{Dir: data})
	if err != nil {
		t.Fatal(err)
	}
	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails
	now := time.Now().UTC().Truncate(time.Microsecond)
	began := now.Add(-ago)
	_, err = db.Sessions().Put(context.Background(), session.Session{
		Hash: sha256.Sum256(id[:]), ID: rand.Text(), Account: "ANN-ID", Site: "localhost", Methods: []string{"password"}, Level: 1,
		Created: began, Issued: began, Proved: began, Raised: began, Seen: now, Until: now.Add(time.Hour), Expires: now.Add(time.Hour),
		Client: netip.MustParseAddr("127.0.0.1"),
	}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return &http.Cookie{Name: session.Cookie, Value: base64.RawURLEncoding.EncodeToString(id[:]), Path: "/", Secure: true}
}

// Who changes something with a proof of ten minutes ago is asked for another,
// and what they had sent is done: at the site and on Merlon's own pages.
func TestAnOldProofIsRenewedAndTheFormGoesOn(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	seed(t, store.Config{Dir: data}, people(t)...)
	var cookies []*http.Cookie // one each, since a proof brings another
	for range 2 {
		cookies = append(cookies, oldSession(t, data, 10*time.Minute))
	}
	p := serve(t, data, "off: [waf]\nidentity:\n"+cheap+`sites:
  - {host: localhost, upstream: BACKEND, require: login, routes: [{path: /close, require: {fresh: 5m}}]}
`, nil)
	home, err := url.Parse(p.base())
	if err != nil {
		t.Fatal(err)
	}
	ann := func(i int) *harness.Person {
		who := p.person()
		who.HTTP.Jar.SetCookies(home, cookies[i:i+1])
		return who
	}
	prove := func(who *harness.Person, asked *harness.Page) *harness.Page {
		page := who.Get(asked.SentTo("/.merlon/prove?resume=")).Want(200)
		return who.Get(page.Send("/.merlon/prove", "password", annsPassword).Next()).Want(200)
	}

	who := ann(0)
	prove(who, who.Do("POST", "/close", "sure=yes")).Send("/close").Want(200, "backend ANN-ID")

	who = ann(1)
	kept := prove(who, who.Get("/.merlon/account").Want(200).Send("/.merlon/account/display", "display", "Ann Gull"))
	kept.Send("/.merlon/account/display").SentTo("/.merlon/account?done=display")
	who.Get("/.merlon/account").Want(200, "Ann Gull")
	kept.Send("/.merlon/account/display").Want(404, "Please do it again")
}
