package live_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/internal/store/live"
	"github.com/merlon-dev/merlon/internal/store/redis"
	"github.com/merlon-dev/merlon/secrets"
	"github.com/merlon-dev/merlon/test/redistest"
)

// keepers returns two replicas' keepers, which share a key as processes do
// that read it from one file.
func keepers(t *testing.T, at string) (one, other *resume.Keeper) {
	t.Helper()
	open := func() *resume.Keeper {
		k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
		if err != nil {
			t.Fatal(err)
		}
		return resume.NewIn(k, live.NewKept(live.Connected(redistest.Dial(t, at))))
	}
	return open(), open()
}

const formType = "application/x-www-form-urlencoded"

// post is a form's request, of a subject unless that is empty.
func post(subject, target, body string, cookie *http.Cookie) *merlon.Request {
	hr := httptest.NewRequest(http.MethodPost, "https://shop.example"+target, strings.NewReader(body))
	hr.RequestURI = target
	hr.TLS = &tls.ConnectionState{}
	hr.Header.Set("Content-Type", formType)
	if cookie != nil {
		hr.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value})
	}
	r := merlon.NewRequest(hr)
	r.Client = netip.MustParseAddr("192.0.2.1")
	if subject != "" {
		r.Identity = &merlon.Identity{Subject: subject}
	}
	return r
}

func ticketForm(ticket string) string { return url.Values{resume.Field: {ticket}}.Encode() }

func keptContract(t *testing.T, at string) {
	one, other := keepers(t, at)
	gone := func(t *testing.T, why string, err error) {
		t.Helper()
		if !errors.Is(err, resume.ErrGone) {
			t.Errorf("%s: %v", why, err)
		}
	}
	keep := func(t *testing.T, subject, body string) (string, *http.Cookie) {
		t.Helper()
		ticket, cookie, err := one.Keep(post(subject, "/pay", body, nil))
		if err != nil {
			t.Fatal(err)
		}
		return ticket, cookie
	}
	for name, body := range map[string]string{
		"a form": "amount=5&to=b%C3%B6b", "nothing": "", "bytes": "\x00\r\n$1\r\n\xff", "as large as may be": strings.Repeat("a", resume.MaxBody),
	} {
		t.Run("another replica goes on with "+name, func(t *testing.T) {
			ticket, cookie := keep(t, "ann", body)
			_, err := other.Take(post("", "/", "", cookie), ticket)
			gone(t, "before anybody has proved who they are", err)
			for range 2 {
				if what, err := other.Release(post("ann", "/", "", cookie), ticket, "ann"); err != nil || what.Target != "/pay" || what.Body != nil {
					t.Fatalf("%+v %v", what, err)
				}
			}
			r := post("ann", "/pay", ticketForm(ticket), cookie)
			what, swapped, err := other.Swap(r)
			if err != nil || !swapped || what.For != "ann" || what.Subject != "ann" {
				t.Fatalf("%v, %v, %v", what, swapped, err)
			}
			if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
				t.Errorf("came back as %d bytes: %v", len(got), err)
			}
			for _, k := range []*resume.Keeper{one, other} {
				_, _, err := k.Swap(post("ann", "/pay", ticketForm(ticket), cookie))
				gone(t, "a second time", err)
			}
		})
	}
	t.Run("it is for whom it was kept, in one browser", func(t *testing.T) {
		ticket, cookie := keep(t, "ann", "a=1")
		_, err := other.Release(post("bob", "/", "", cookie), ticket, "bob")
		gone(t, "another account", err)
		_, err = other.Release(post("ann", "/", "", nil), ticket, "ann")
		gone(t, "another browser", err)
		_, err = other.Release(post("ann", "/", "", cookie), ticket, "")
		gone(t, "nobody", err)
		if _, err := other.Release(post("ann", "/", "", cookie), ticket, "ann"); err != nil {
			t.Errorf("its owner: %v", err)
		}
	})
	t.Run("released for one, asked for another", func(t *testing.T) {
		ticket, cookie := keep(t, "", "a=1")
		if _, err := one.Release(post("ann", "/", "", cookie), ticket, "ann"); err != nil {
			t.Fatal(err)
		}
		_, err := other.Release(post("bob", "/", "", cookie), ticket, "bob")
		gone(t, "bob", err)
	})
	t.Run("of many who come at once one is let in", func(t *testing.T) {
		ticket, cookie := keep(t, "ann", "a=1")
		if _, err := one.Release(post("ann", "/", "", cookie), ticket, "ann"); err != nil {
			t.Fatal(err)
		}
		var in atomic.Int32
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				if _, ok, _ := []*resume.Keeper{one, other}[i%2].Swap(post("ann", "/pay", ticketForm(ticket), cookie)); ok {
					in.Add(1)
				}
			})
		}
		wg.Wait()
		if in.Load() != 1 {
			t.Errorf("%d were let in", in.Load())
		}
	})
}

func TestKept(t *testing.T) {
	_, at := redistest.OnSocket(t)
	keptContract(t, at)
}

func TestKeptInMiniredis(t *testing.T) { keptContract(t, "redis://"+miniredis.RunT(t).Addr()) }

func TestKeptInACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	keptContract(t, redistest.Cluster(t))
}

func TestKeptWithFewRights(t *testing.T) {
	keptContract(t, redistest.WithTLS(t, strings.Fields(live.KeptRights+" "+redis.LinkRights)...))
}

// What lies there can be read by nobody and does not stay.
func TestKeptIsSealedAndForgotten(t *testing.T) {
	_, at := redistest.OnSocket(t)
	c := redistest.Dial(t, at)
	one, other := keepers(t, at)
	ticket, cookie, err := one.Keep(post("ann", "/pay", "card=4111111111111111", nil))
	if err != nil {
		t.Fatal(err)
	}
	lives := func() time.Duration {
		keys, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
		if err != nil || len(keys) != 1 {
			t.Fatal(keys, err)
		}
		left, err := c.Do(t.Context(), c.B().Pttl().Key(keys[0]).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(left) * time.Millisecond
	}
	if d := lives(); d > resume.Lifetime || d < resume.Lifetime-time.Minute {
		t.Errorf("it lives %v", d)
	}
	dump := everything(t, c)
	for _, text := range []string{"4111111111111111", "/pay", "card", ticket, cookie.Value} {
		if has(dump, text) {
			t.Errorf("%q is in there", text)
		}
	}
	if !has(dump, "ann") {
		t.Error("the dump is not one")
	}
	if _, err := other.Release(post("ann", "/", "", cookie), ticket, "ann"); err != nil {
		t.Fatal(err)
	}
	if d := lives(); d > time.Minute || d <= 0 {
		t.Errorf("it lives %v after it was released", d)
	}
	key, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	redistest.Do(t, c, "PEXPIRE", key[0], "20000")
	if _, err := other.Release(post("ann", "/", "", cookie), ticket, "ann"); err != nil {
		t.Fatal(err)
	}
	if d := lives(); d > 20*time.Second {
		t.Errorf("a page that is loaded again begins the minute anew: %v", d)
	}
	// Another's key does not open it, and what was changed is not given out.
	redistest.Do(t, c, "HSET", key[0], "s", "made up, and long enough to be something that could have been sealed")
	if what, err := other.Take(post("ann", "/", "", cookie), ticket); err == nil || what.Body != nil {
		t.Errorf("%+v %v", what, err)
	}
}

// Of what one replica keeps there is no more than in memory, and room that is
// free again is found.
func TestKeptIsBounded(t *testing.T) {
	_, at := redistest.OnSocket(t)
	one, _ := keepers(t, at)
	body := strings.Repeat("a", resume.MaxBody)
	var tickets []string
	var cookies []*http.Cookie
	for range 6 {
		ticket, cookie, err := one.Keep(post("ann", "/pay", body, nil))
		if errors.Is(err, resume.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		tickets, cookies = append(tickets, ticket), append(cookies, cookie)
	}
	if len(tickets) < 1 || len(tickets) > 4 {
		t.Fatalf("one account keeps %d of 1 MiB", len(tickets))
	}
	// Asking for what is not released makes no room.
	if _, err := one.Take(post("ann", "/pay", "", cookies[0]), tickets[0]); !errors.Is(err, resume.ErrGone) {
		t.Error(err)
	}
	if _, _, err := one.Keep(post("ann", "/pay", body, nil)); !errors.Is(err, resume.ErrFull) {
		t.Errorf("%v", err)
	}
	if _, err := one.Release(post("ann", "/", "", cookies[0]), tickets[0], "ann"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Take(post("ann", "/pay", "", cookies[0]), tickets[0]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := one.Keep(post("ann", "/pay", body, nil)); err != nil {
		t.Errorf("the room is not given back: %v", err)
	}
}

// A server that hangs keeps nothing and gives nothing out, and takes no room.
func TestKeptWithoutAServer(t *testing.T) {
	srv, at := redistest.OnSocket(t)
	one, _ := keepers(t, at)
	ticket, cookie, err := one.Keep(post("ann", "/pay", "a=1", nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Release(post("ann", "/", "", cookie), ticket, "ann"); err != nil {
		t.Fatal(err)
	}
	srv.Signal(t, syscall.SIGSTOP)
	began := time.Now()
	if _, _, err := one.Keep(post("ann", "/pay", "a=1", nil)); err == nil || errors.Is(err, resume.ErrFull) {
		t.Errorf("kept: %v", err)
	}
	r := post("ann", "/pay", ticketForm(ticket), cookie)
	if _, swapped, err := one.Swap(r); swapped || err == nil {
		t.Errorf("swapped: %v %v", swapped, err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a server that hangs holds two forms for %v", took)
	}
	srv.Signal(t, syscall.SIGCONT)
}
