package resume_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/portal/resume"
	"github.com/merlon-dev/merlon/secrets"
)

func newKeeper(t testing.TB) *resume.Keeper {
	t.Helper()
	k, err := secrets.NewKey(secrets.New(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return resume.New(k)
}

const form = "application/x-www-form-urlencoded"

// post is a form's request as the gateway has it, of ann unless told otherwise.
func post(target, media, body string, more ...func(*merlon.Request)) *merlon.Request {
	hr := httptest.NewRequest(http.MethodPost, "https://shop.example"+target, strings.NewReader(body))
	hr.RequestURI = target
	hr.TLS = &tls.ConnectionState{}
	hr.Header.Set("Content-Type", media)
	r := merlon.NewRequest(hr)
	r.Client = netip.MustParseAddr("192.0.2.1")
	r.Identity = &merlon.Identity{Subject: "ann"}
	for _, f := range more {
		f(r)
	}
	return r
}

func with(c *http.Cookie) func(*merlon.Request) {
	return func(r *merlon.Request) { r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value}) }
}

func ticketForm(ticket string) string { return url.Values{resume.Field: {ticket}}.Encode() }

func TestARequestComesBackAsItWas(t *testing.T) {
	for _, c := range []struct{ media, body string }{
		{form, "amount=5&to=b%C3%B6b"},
		{"multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\n\x00\xff\r\n--x--\r\n"},
		{"text/plain", ""},
		{form, strings.Repeat("a", resume.MaxBody)},
	} {
		k := newKeeper(t)
		ticket, cookie, err := k.Keep(post("/pay?x=1&y=%2f", c.media, c.body))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(cookie.Name, "__Host-") || !cookie.Secure || !cookie.HttpOnly || cookie.Path != "/" || cookie.Domain != "" {
			t.Errorf("the cookie can be read or set by others: %v", cookie)
		}
		what, err := k.Release(post("/.merlon/resume", form, "", with(cookie)), ticket, "ann")
		if err != nil || what.Target != "/pay?x=1&y=%2f" || what.Method != http.MethodPost || what.Body != nil {
			t.Fatalf("released: %+v, %v", what, err)
		}
		r := post("/pay?x=1&y=%2f", form, ticketForm(ticket), with(cookie))
		what, swapped, err := k.Swap(r)
		if err != nil || !swapped || what.For != "ann" {
			t.Fatalf("%v, %v, %v", what, swapped, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != c.body || r.ContentLength != int64(len(c.body)) || r.Header.Get("Content-Type") != c.media {
			t.Errorf("came back as %d bytes of %s: %v", len(body), r.Header.Get("Content-Type"), err)
		}
		if used := k.Used(); used != [3]int{} {
			t.Errorf("%v is still held", used)
		}
		if _, _, err := k.Swap(post("/pay?x=1&y=%2f", form, ticketForm(ticket), with(cookie))); !errors.Is(err, resume.ErrGone) {
			t.Errorf("a second time: %v", err)
		}
	}
}

func TestATicketIsForOneBrowserAccountHostAndTarget(t *testing.T) {
	other := &http.Cookie{Name: "__Host-merlon-resume", Value: strings.Repeat("B", 43)}
	for _, c := range []struct {
		name            string
		release, resend func(*merlon.Request)
		subject         string
	}{
		{"another browser asks", func(r *merlon.Request) { r.Header.Set("Cookie", other.String()) }, nil, "ann"},
		{"no cookie", func(r *merlon.Request) { r.Header.Del("Cookie") }, nil, "ann"},
		{"two cookies", with(other), nil, "ann"},
		{"another host", func(r *merlon.Request) { r.Host = "admin.example" }, nil, "ann"},
		{"another account (trap 47: the user is switched between steps)", nil, nil, "bob"},
		{"nobody", nil, nil, ""},
		{"resent by another browser", nil, func(r *merlon.Request) { r.Header.Set("Cookie", other.String()) }, "ann"},
		{"resent to another host", nil, func(r *merlon.Request) { r.Host = "admin.example" }, "ann"},
		{"resent to another target", nil, func(r *merlon.Request) { r.URL, _ = url.Parse("/admin") }, "ann"},
		{"resent to another query", nil, func(r *merlon.Request) { r.URL, _ = url.Parse("/pay?to=eve") }, "ann"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKeeper(t)
			ticket, cookie, err := k.Keep(post("/pay", form, "amount=5"))
			if err != nil {
				t.Fatal(err)
			}
			r := post("/.merlon/resume", form, "", with(cookie))
			if c.release != nil {
				c.release(r)
			}
			_, err = k.Release(r, ticket, c.subject)
			if c.resend == nil {
				if !errors.Is(err, resume.ErrGone) {
					t.Fatalf("was released: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r = post("/pay", form, ticketForm(ticket), with(cookie))
			c.resend(r)
			if _, swapped, err := k.Swap(r); swapped || err != nil && !errors.Is(err, resume.ErrGone) {
				t.Errorf("was given out: %v, %v", swapped, err)
			}
			body, _ := io.ReadAll(r.Body)
			if strings.Contains(string(body), "amount") {
				t.Error("the kept body was given out")
			}
		})
	}
	t.Run("before it is released", func(t *testing.T) {
		k := newKeeper(t)
		ticket, cookie, _ := k.Keep(post("/pay", form, "amount=5"))
		if _, _, err := k.Swap(post("/pay", form, ticketForm(ticket), with(cookie))); !errors.Is(err, resume.ErrGone) {
			t.Error(err)
		}
		if _, err := k.Release(post("/", form, "", with(cookie)), ticket, "ann"); err != nil {
			t.Errorf("is gone for its owner too: %v", err)
		}
	})
	t.Run("released for one, asked for another", func(t *testing.T) {
		k := newKeeper(t)
		nobody := func(r *merlon.Request) { r.Identity = nil }
		ticket, cookie, _ := k.Keep(post("/pay", form, "amount=5", nobody))
		if _, err := k.Release(post("/", form, "", with(cookie)), ticket, "ann"); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Release(post("/", form, "", with(cookie)), ticket, "bob"); !errors.Is(err, resume.ErrGone) {
			t.Error(err)
		}
	})
}

func TestOneBrowserKeepsSeveral(t *testing.T) {
	k := newKeeper(t)
	first, cookie, _ := k.Keep(post("/a", form, "a=1"))
	second, again, _ := k.Keep(post("/b", form, "b=1", with(cookie)))
	if again.Value != cookie.Value {
		t.Error("the second took the first one's cookie away")
	}
	for _, ticket := range []string{first, second} {
		if _, err := k.Release(post("/", form, "", with(cookie)), ticket, "ann"); err != nil {
			t.Error(err)
		}
	}
}

func TestOnlyFormsAreKept(t *testing.T) {
	k := newKeeper(t)
	for name, change := range map[string]func(*merlon.Request){
		"json":        func(r *merlon.Request) { r.Header.Set("Content-Type", "application/json") },
		"no type":     func(r *merlon.Request) { r.Header.Del("Content-Type") },
		"fetch":       func(r *merlon.Request) { r.Header.Set("Sec-Fetch-Mode", "cors") },
		"a frame":     func(r *merlon.Request) { r.Header.Set("Sec-Fetch-Dest", "iframe") },
		"compressed":  func(r *merlon.Request) { r.Header.Set("Content-Encoding", "gzip") },
		"chunked":     func(r *merlon.Request) { r.TransferEncoding = []string{"chunked"} },
		"put":         func(r *merlon.Request) { r.Method = http.MethodPut },
		"get":         func(r *merlon.Request) { r.Method = http.MethodGet },
		"a long type": func(r *merlon.Request) { r.Header.Set("Content-Type", form+"; x="+strings.Repeat("x", 300)) },
	} {
		if _, _, err := k.Keep(post("/pay", form, "a=1", change)); err == nil {
			t.Errorf("%s was kept", name)
		}
	}
	if _, _, err := k.Keep(post("/pay", form, strings.Repeat("a", resume.MaxBody+1))); !errors.Is(err, resume.ErrTooLarge) {
		t.Errorf("too long: %v", err)
	}
	if _, _, err := k.Keep(post("/pay?"+strings.Repeat("a", 9000), form, "")); !errors.Is(err, resume.ErrTooLarge) {
		t.Errorf("a long target: %v", err)
	}
}

func TestWhatIsKeptIsBoundedAndForgotten(t *testing.T) {
	k := newKeeper(t)
	now := time.Now()
	k.SetNow(func() time.Time { return now })
	body := strings.Repeat("a", resume.MaxBody)
	kept := 0
	for range 10 {
		if _, _, err := k.Keep(post("/pay", form, body)); err == nil {
			kept++
		} else if !errors.Is(err, resume.ErrFull) {
			t.Fatal(err)
		}
	}
	if kept < 1 || kept > 4 {
		t.Errorf("one account keeps %d of 1 MiB", kept)
	}
	kept = 0
	for i := range 10 { // one client has a whole /64
		if _, _, err := k.Keep(post("/pay", form, body, func(r *merlon.Request) {
			r.Identity = nil
			r.Client = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)})
		})); err == nil {
			kept++
		}
	}
	if kept < 1 || kept > 4 {
		t.Errorf("one IPv6 client keeps %d of 1 MiB", kept)
	}
	for i := range 200 {
		_, _, _ = k.Keep(post("/pay", form, body, func(r *merlon.Request) {
			r.Identity = nil
			r.Client = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		}))
	}
	if used := k.Used(); used[2] > 16<<20 || used[0] > 64<<20 {
		t.Errorf("strangers hold %v", used)
	}
	if _, _, err := k.Keep(post("/pay", form, body, func(r *merlon.Request) { r.Identity.Subject = "bob" })); err != nil {
		t.Errorf("strangers have taken the room of those signed in: %v", err)
	}
	for i := range 200 {
		_, _, _ = k.Keep(post("/pay", form, body, func(r *merlon.Request) { r.Identity.Subject = fmt.Sprint(i) }))
	}
	if used := k.Used(); used[0] > 64<<20 {
		t.Errorf("all hold %v", used)
	}
	now = now.Add(resume.Lifetime)
	ticket, cookie, err := k.Keep(post("/pay", form, "a=1"))
	if err != nil {
		t.Fatal(err)
	}
	if used := k.Used(); used[0] > 4096 || used[1] != 1 {
		t.Errorf("what is too old is still held: %v", used)
	}
	now = now.Add(resume.Lifetime)
	if _, err := k.Release(post("/", form, "", with(cookie)), ticket, "ann"); !errors.Is(err, resume.ErrGone) {
		t.Errorf("after ten minutes: %v", err)
	}
}

func TestAReleasedRequestIsSentAtOnce(t *testing.T) {
	k := newKeeper(t)
	now := time.Now()
	k.SetNow(func() time.Time { return now })
	ticket, cookie, _ := k.Keep(post("/pay", form, "a=1"))
	for range 2 { // a page that is loaded again does not begin the minute anew
		if _, err := k.Release(post("/", form, "", with(cookie)), ticket, "ann"); err != nil {
			t.Fatal(err)
		}
		now = now.Add(40 * time.Second)
	}
	if _, _, err := k.Swap(post("/pay", form, ticketForm(ticket), with(cookie))); !errors.Is(err, resume.ErrGone) {
		t.Errorf("after a minute: %v", err)
	}
}

func TestOfTwoThatComeWithOneTicketOneIsLetIn(t *testing.T) {
	k := newKeeper(t)
	ticket, cookie, _ := k.Keep(post("/pay", form, "a=1"))
	if _, err := k.Release(post("/", form, "", with(cookie)), ticket, "ann"); err != nil {
		t.Fatal(err)
	}
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, ok, _ := k.Swap(post("/pay", form, ticketForm(ticket), with(cookie))); ok {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d were let in", in.Load())
	}
}

// Whatever else comes is left as it is, to the byte.
func FuzzSwap(f *testing.F) {
	f.Add("merlon-resume=x", "application/x-www-form-urlencoded", true)
	f.Add("merlon-resume=x&a=b", "application/x-www-form-urlencoded", true)
	f.Add("a=b", "text/plain", false)
	k := newKeeper(f)
	f.Fuzz(func(t *testing.T, body, media string, cookie bool) {
		r := post("/pay", media, body)
		if cookie {
			r.AddCookie(&http.Cookie{Name: "__Host-merlon-resume", Value: strings.Repeat("A", 43)})
		}
		_, swapped, err := k.Swap(r)
		if swapped {
			t.Fatal("something was given out")
		}
		left, _ := io.ReadAll(r.Body)
		if err == nil && (!bytes.Equal(left, []byte(body)) || r.Header.Get("Content-Type") != media) {
			t.Errorf("%q became %q", body, left)
		}
	})
}
