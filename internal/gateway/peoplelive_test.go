package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/merlon-dev/merlon/identity/account"
	"github.com/merlon-dev/merlon/identity/apikey"
	"github.com/merlon-dev/merlon/identity/session"
	"github.com/merlon-dev/merlon/test/harness"
)

// soonest is within what time connections end whose proof has ended; the rest
// is for a busy machine.
const soonest = time.Second + 500*time.Millisecond

// webSocket opens one with the browser's cookies. Its end is told by ended.
func webSocket(t testing.TB, b *harness.Person) (ended <-chan time.Time) {
	t.Helper()
	return dialWebSocket(t, b, http.Header{"Cookie": {b.Cookies()}})
}

func dialWebSocket(t testing.TB, b *harness.Person, proof http.Header) (ended <-chan time.Time) {
	t.Helper()
	proof.Set("Origin", b.Base)
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	c, res, err := d.Dial("wss"+strings.TrimPrefix(b.Base, "https")+"/ws", proof)
	if err != nil {
		if res != nil {
			err = errors.Join(err, errors.New(res.Status))
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	end := make(chan time.Time, 1)
	go func() {
		_, _, err := c.ReadMessage()
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
			end <- time.Now()
		}
	}()
	return end
}

// stream opens an event stream.
func stream(t testing.TB, b *harness.Person, accept string) (ended <-chan time.Time) {
	t.Helper()
	r, err := http.NewRequest("GET", b.Base+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	c := *b.HTTP
	c.Timeout = 0
	res, err := c.Do(r)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	br := bufio.NewReader(res.Body)
	if line, err := br.ReadString('\n'); err != nil || line != "data: x\n" {
		t.Fatal(line, err)
	}
	end := make(chan time.Time, 1)
	t.Cleanup(func() { _ = res.Body.Close() })
	go func() {
		_, _ = io.Copy(io.Discard, br)
		end <- time.Now()
	}()
	return end
}

// Trap 49: what ends a session ends what it has open, and nothing else.
func TestOpenConnectionsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	w := settle(t, openTown)
	bob := w.in("bob")
	bobs := map[string]<-chan time.Time{"WebSocket": webSocket(t, bob), "stream": stream(t, bob, "text/event-stream")}
	ctx := context.Background()
	for name, end := range map[string]func(ann *harness.Person){
		"log-out": func(ann *harness.Person) {
			ann.Get("/.merlon/logout").Send("/.merlon/logout").Want(200)
		},
		"log-out everywhere, elsewhere": func(*harness.Person) {
			other := w.in("ann")
			other.Get("/.merlon/account").Want(200).Send("/.merlon/account/sessions").SentTo("/.merlon/account")
		},
		"the account is disabled": func(*harness.Person) {
			_, err := w.Stores().Accounts.Update(ctx, "ANN-ID", func(a *account.Account) error {
				a.Disabled, a.ValidFrom = true, time.Now()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		"an administrator ends all": func(*harness.Person) {
			if _, err := w.Stores().Sessions.End(ctx, session.Where{Account: "ANN-ID"}); err != nil {
				t.Fatal(err)
			}
		},
		"another role": func(*harness.Person) {
			_, err := w.Stores().Accounts.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Roles = nil; return nil })
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.Stores().Accounts.Update(ctx, "ANN-ID", func(a *account.Account) error {
				a.Disabled, a.Roles = false, []string{"team"}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			ann := w.in("ann")
			open := map[string]<-chan time.Time{
				"WebSocket": webSocket(t, ann), "stream": stream(t, ann, "text/event-stream"), "stream asked for by a fetch": stream(t, ann, "*/*"),
			}
			time.Sleep(200 * time.Millisecond)
			for what, ended := range open {
				select {
				case <-ended:
					t.Fatalf("the %s has ended by itself", what)
				default:
				}
			}
			end(ann)
			over := time.Now()
			for what, ended := range open {
				select {
				case at := <-ended:
					t.Logf("%s: %v", what, at.Sub(over).Round(time.Millisecond))
				case <-time.After(soonest - time.Since(over)):
					t.Errorf("the %s is open after %s", what, soonest)
				}
			}
		})
	}
	for what, ended := range bobs {
		select {
		case <-ended:
			t.Errorf("bob's %s has ended", what)
		default:
		}
	}
	bob.Get("/").Want(200, "backend BOB-ID")
}

// A program's connection ends with its key, password or account, too.
func TestOpenConnectionsEndWithTheirKey(t *testing.T) {
	t.Parallel()
	w := settle(t, strings.Replace(openTown, "identity:\n", "identity:\n  basic: {}\n", 1))
	ctx := context.Background()
	keys := apikey.New(w.Stores().Keys, w.Stores().Accounts)
	issue := func(account string) (http.Header, apikey.Key) {
		text, k, err := keys.Issue(ctx, apikey.Key{Account: account, Name: "live"})
		if err != nil {
			t.Fatal(err)
		}
		return http.Header{"Authorization": {"Bearer " + text.Reveal()}}, k
	}
	anns, key := issue("ANN-ID")
	bobs, _ := issue("BOB-ID")
	basic := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("ann:"+annsPassword))}}
	b := w.browser()
	byKey, byBasic, bob := dialWebSocket(t, b, anns), dialWebSocket(t, b, basic), dialWebSocket(t, b, bobs)
	time.Sleep(2200 * time.Millisecond)
	if err := keys.Revoke(ctx, key.ID); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	select {
	case at := <-byKey:
		if at.Before(began) {
			t.Error("the key's connection has ended by itself")
		}
	case <-time.After(soonest):
		t.Error("the connection outlives its key")
	}
	select {
	case <-byBasic:
		t.Fatal("the password's connection has ended by itself")
	default:
	}
	if _, err := w.Stores().Accounts.Update(ctx, "ANN-ID", func(a *account.Account) error { a.Password = hashed(t, bobsPassword); return nil }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-byBasic:
	case <-time.After(soonest + time.Second): // what was verified is believed for a second
		t.Error("the connection outlives its password")
	}
	select {
	case <-bob:
		t.Error("bob's has ended by itself")
	default:
	}
}

func TestAReloadKeepsSessions(t *testing.T) {
	t.Parallel()
	w := settle(t, openTown)
	ann := w.in("ann")
	open := webSocket(t, ann)
	again := func(text string) error {
		f := read(t, text, w.backend.URL)
		f.Data = w.data
		return w.Reload(f)
	}
	old := w.Gateway()
	if err := again(strings.Replace(openTown, "role: team", "role: other", 1)); err != nil || w.Gateway() == old {
		t.Fatal(err)
	}
	ann.Get("/").Want(200, "backend ANN-ID")
	ann.Get("/team/x").Want(403) // the new rules hold for sessions that there are
	select {
	case <-open:
		t.Error("the reload has closed a WebSocket")
	default:
	}
	ann.Get("/.merlon/logout").Send("/.merlon/logout").Want(200)
	select {
	case <-open:
	case <-time.After(soonest):
		t.Error("a WebSocket from before the reload outlives its session")
	}
	// A log-in that began before a reload ends after it.
	b := w.browser()
	page := b.Get("/.merlon/login").Want(200)
	if err := again(openTown); err != nil {
		t.Fatal(err)
	}
	page.Send("/.merlon/login", "name", "ann", "password", annsPassword).Next()
	b.Get("/team/x").Want(200)
}

func TestAReloadCannotMovePeople(t *testing.T) {
	t.Setenv("MERLON_TEST_STORE", "postgres://nowhere.invalid/merlon")
	t.Setenv("MERLON_TEST_KEY", strings.Repeat("k", 40))
	w := settle(t, openTown)
	ann := w.in("ann")
	old := w.Gateway()
	for name, text := range map[string]string{
		"another store": openTown + "store: env:MERLON_TEST_STORE\n",
		"Redis":         openTown + "redis: env:MERLON_TEST_STORE\n",
		"another key":   strings.Replace(openTown, "identity:\n", "key: env:MERLON_TEST_KEY\nidentity:\n", 1),
		"other letters": strings.Replace(openTown, "identity:\n", "identity:\n  mail: {from: x@example.com}\n", 1),
		"and a mistake": openTown + "store: env:MERLON_TEST_STORE\nledger: {sync: sometimes}\n",
	} {
		f := read(t, text, w.backend.URL)
		f.Data = w.data
		err := w.Reload(f)
		if err == nil || !strings.Contains(f.Explain(err).Error(), "restart Merlon") || w.Gateway() != old {
			t.Errorf("%s: %v", name, err)
		}
		if name == "and a mistake" && !strings.Contains(err.Error(), "ledger.sync") {
			t.Errorf("only one of two mistakes is told: %v", err)
		}
	}
	ann.Get("/").Want(200, "backend ANN-ID")

	// People cannot be switched on by a reload.
	f := read(t, local+shop, w.backend.URL)
	s := serve(t, f)
	next := read(t, local+shop+"    require: login\n", w.backend.URL)
	next.Data = f.Data
	if err := s.Reload(next); err == nil || !strings.Contains(err.Error(), "restart Merlon") {
		t.Errorf("people switched on: %v", err)
	}
}
